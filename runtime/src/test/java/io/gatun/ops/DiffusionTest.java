package io.gatun.ops;

import static org.junit.jupiter.api.Assertions.assertEquals;
import static org.junit.jupiter.api.Assertions.assertTrue;

import io.gatun.bindings.gatun.Gatun;
import io.gatun.ops.cases.DiffusionCases;
import io.gatun.ops.cases.DiffusionCases.Part;
import io.gatun.ops.cases.Fill;
import io.gatun.ops.cases.HostValues;
import io.gatun.ops.cases.OpCase;
import io.gatun.runtime.DType;
import java.util.EnumSet;
import java.util.List;
import java.util.Set;
import org.junit.jupiter.api.Tag;
import org.junit.jupiter.api.Test;
import org.junit.jupiter.params.ParameterizedTest;
import org.junit.jupiter.params.provider.EnumSource;

@Tag("device")
class DiffusionTest {
    private static final List<Set<Part>> PARTS = List.of(Set.of(), EnumSet.of(Part.GUIDANCE, Part.INPUT),
            EnumSet.of(Part.DRAWN_NOISE, Part.CLIP, Part.INPUT), EnumSet.of(Part.GIVEN_NOISE, Part.VARIANCE_VALUE),
            EnumSet.of(Part.GUIDANCE, Part.DRAWN_NOISE, Part.VARIANCE_RANGE), EnumSet.of(Part.MASK, Part.INPUT),
            EnumSet.of(Part.GUIDANCE, Part.STATISTICS, Part.MASK, Part.GIVEN_NOISE, Part.INPUT));

    @ParameterizedTest
    @EnumSource(names = {"F32", "BF16", "F16"})
    void step_everyPart(DType dtype) {
        for (Set<Part> parts : PARTS) {
            OpCheck.check(DiffusionCases.step(dtype, 2, 3, 5, 3, parts.size() % 6, 1, parts));
        }
        OpCheck.check(DiffusionCases.step(dtype, 1, 1, 31, 1, 0, 0, Set.of()));
        OpCheck.check(DiffusionCases.step(dtype, 2, 11, 13, 4, 5, 2, PARTS.getLast()));
    }

    /// The last call leaves the input as it is; beyond the table nothing changes at all.
    @Test
    void step_endOfTheTable() {
        for (int call : new int[] {2, 3, -1}) {
            OpCheck.check(DiffusionCases.step(DType.F32, 2, 3, 5, 3, 2, call, PARTS.getLast()));
        }
    }

    /// A slot that is not read may hold anything, as it does before it is first written.
    @Test
    void step_unreadSlotsMayBeNan() {
        OpCase opCase = DiffusionCases.step(DType.F32, 1, 5, 7, 1, 1, 0, Set.of());
        OpCheck.check(opCase.with("state", Fill.constant(Double.NaN), "NaN in the slot"));
    }

    @Test
    void step_nanSpoilsItsElementOnly() {
        OpCase opCase = DiffusionCases.step(DType.F32, 2, 3, 5, 3, 2, 1,
                EnumSet.of(Part.GUIDANCE, Part.CLIP, Part.INPUT));
        OpCheck.check(opCase.with("output", Fill.normal(1).with(7, 1000, Double.NaN), "a NaN"));
        OpCheck.check(opCase.with("sample", Fill.normal(1).with(7, 1000, Double.NaN), "a NaN"));
    }

    @Test
    void step_imageAlone() {
        Set<Part> parts = EnumSet.of(Part.DRAWN_NOISE, Part.VARIANCE_VALUE, Part.STATISTICS, Part.MASK, Part.INPUT);
        OpCheck.rowAlone(DiffusionCases.step(DType.F32, 2, 3, 5, 3, 0, 1, parts), "sample", "input", "output",
                "variance", "statistics", "seeds", "mask", "known", "known_noise");
        OpCheck.rowAlone(DiffusionCases.statistics(DType.F32, 3, 9, 11, 4, false, 0.9f), "statistics", "sample",
                "output");
    }

    /// torch.quantile(|x|, 0.3) of 0, 1, .. 14 is 4.2.
    @Test
    void statistics_quantileLikeTorch() {
        OpCase opCase = DiffusionCases.statistics(DType.F32, 1, 3, 5, 1, false, 0.3f)
                .with("table", Fill.constant(1), "ones").with("output", Fill.constant(0), "")
                .with("sample", (random, i) -> i % 2 == 0 ? i : -i, "");
        assertEquals(4.2, OpCheck.run(opCase, opCase.values(1)).floats("statistics")[1], 1e-6);
    }

    /// Noise that a row asks for and nobody gives is no silent zero.
    @Test
    void step_missingNoiseIsNan() {
        OpCase opCase = DiffusionCases.step(DType.F32, 1, 2, 2, 1, 0, 0, EnumSet.of(Part.DRAWN_NOISE));
        HostValues out = OpCheck.run(opCase, opCase.values(1), "seeds");
        for (float x : out.floats("sample")) {
            assertTrue(Float.isNaN(x), "x is " + x);
        }
    }

    @ParameterizedTest
    @EnumSource(names = {"F32", "BF16", "F16"})
    void input_oneOrTwo(DType dtype) {
        for (int call : new int[] {0, 2, 3}) {
            OpCheck.check(DiffusionCases.input(dtype, 2, 3, 5, 3, call, false));
            OpCheck.check(DiffusionCases.input(dtype, 2, 3, 5, 3, call, true));
        }
    }

    @ParameterizedTest
    @EnumSource(names = {"F32", "BF16", "F16"})
    void statistics_oddSizes(DType dtype) {
        for (float ratio : new float[] {0, 0.5f, 0.995f, 1}) {
            OpCheck.check(DiffusionCases.statistics(dtype, 2, 3, 5, 3, true, ratio));
            OpCheck.check(DiffusionCases.statistics(dtype, 1, 17, 19, 4, false, ratio));
        }
    }

    @Test
    void statistics_equalMagnitudesAndNan() {
        OpCase opCase = DiffusionCases.statistics(DType.F32, 2, 3, 5, 3, false, 0.9f)
                .with("output", Fill.constant(0), "no output");
        OpCheck.check(opCase.with("sample", Fill.values(2, -2), "equal magnitudes"));
        OpCheck.check(opCase.with("sample", Fill.normal(3).with(50, 1000, Double.NaN), "a NaN in the second image"));
        OpCheck.check(opCase.with("sample", Fill.normal(3).with(50, 1000, Double.POSITIVE_INFINITY), "an Inf"));
    }

    @Test
    void fields_ofTheTable() {
        assertEquals(Gatun.GT_DIFFUSION_FIELDS(), Diffusion.FIELDS);
        assertEquals(Gatun.GT_DIFFUSION_SLOTS(), Diffusion.SLOTS);
        assertEquals(Gatun.GT_DIFFUSION_SOURCES(), Diffusion.SOURCES);
        assertEquals(Gatun.GT_DIFFUSION_CLIP(), Diffusion.Field.CLIP);
        assertEquals(Gatun.GT_DIFFUSION_KNOWN_NOISE(), Diffusion.Field.KNOWN_NOISE);
        assertEquals(Gatun.GT_DIFFUSION_UPDATE(), Diffusion.Field.UPDATE);
    }

    @Test
    void diffusion_badArguments() {
        OpCase opCase = DiffusionCases.step(DType.BF16, 2, 3, 5, 3, 2, 1, PARTS.getLast());
        BadArguments.check(opCase, "state", "noise");
        BadArguments.refuses(opCase, "state", DType.F32, new int[] {6, 2, 3, 5, 3}, "state");
        BadArguments.refuses(opCase, "state", DType.F32, new int[] {2, 2, 3, 5, 4}, "state");
        BadArguments.refuses(opCase, "noise", DType.F32, new int[] {2, 2, 3, 5, 3}, "noise");
        BadArguments.refuses(opCase, "output", DType.BF16, new int[] {3, 3, 5, 3}, "output");
        BadArguments.refuses(opCase, "mask", DType.F32, new int[] {2, 3, 5, 2}, "mask");
        BadArguments.refuses(opCase, "table", DType.F32, new int[] {3, 65}, "table");
        BadArguments.check(DiffusionCases.input(DType.F32, 2, 3, 5, 3, 0, true));
        BadArguments.check(DiffusionCases.statistics(DType.F32, 2, 3, 5, 3, true, 0.5f));
    }
}
