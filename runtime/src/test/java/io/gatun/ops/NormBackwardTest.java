package io.gatun.ops;

import static org.junit.jupiter.api.Assertions.assertThrows;
import static org.junit.jupiter.api.Assertions.assertTrue;

import io.gatun.ops.cases.Fill;
import io.gatun.ops.cases.HostValues;
import io.gatun.ops.cases.NormBackwardCases;
import io.gatun.ops.cases.NormCases.Part;
import io.gatun.ops.cases.OpCase;
import io.gatun.ops.cases.Operand;
import io.gatun.runtime.DType;
import io.gatun.runtime.GatunException;
import java.util.EnumSet;
import java.util.List;
import java.util.Set;
import org.junit.jupiter.api.Tag;
import org.junit.jupiter.api.Test;
import org.junit.jupiter.params.ParameterizedTest;
import org.junit.jupiter.params.provider.EnumSource;

@Tag("device")
class NormBackwardTest {
    private static final int REPEATS = 30;
    private static final int[] WIDTHS = {1, 3, 33, 257, 1000};
    private static final Set<Part> ALL = EnumSet.of(Part.RESIDUAL, Part.WEIGHT, Part.BIAS);
    private static final List<Set<Part>> PARTS = List.of(Set.of(), ALL, EnumSet.of(Part.BIAS),
            EnumSet.of(Part.WEIGHT, Part.F32_PARAMETERS));

    @ParameterizedTest
    @EnumSource(names = {"F32", "BF16", "F16"})
    void layerNormBackward_oddWidths(DType dtype) {
        for (int c : WIDTHS) {
            for (Set<Part> parts : PARTS) {
                OpCheck.check(NormBackwardCases.layerNorm(dtype, 3, c, parts));
            }
        }
        OpCheck.check(NormBackwardCases.layerNorm(dtype, 1, 1030, ALL));
        OpCheck.check(NormBackwardCases.layerNorm(dtype, 0, 5, ALL));
    }

    @ParameterizedTest
    @EnumSource(names = {"F32", "BF16", "F16"})
    void rmsNormBackward_oddWidths(DType dtype) {
        for (int c : WIDTHS) {
            for (Set<Part> parts : PARTS) {
                OpCheck.check(NormBackwardCases.rmsNorm(dtype, 3, c, parts));
            }
        }
        OpCheck.check(NormBackwardCases.rmsNorm(dtype, 1, 1030, ALL));
        OpCheck.check(NormBackwardCases.rmsNorm(dtype, 0, 5, ALL));
    }

    /// Several chunks of rows, and work for two threads.
    @Test
    void layerNormBackward_manyRows() {
        OpCheck.check(NormBackwardCases.layerNorm(DType.F32, 1001, 33, ALL));
        OpCheck.check(NormBackwardCases.layerNorm(DType.BF16, 1001, 5, ALL));
    }

    @Test
    void rmsNormBackward_manyRows() {
        OpCheck.check(NormBackwardCases.rmsNorm(DType.F32, 1001, 33, ALL));
    }

    @Test
    void layerNormBackward_repeats() {
        OpCase opCase = NormBackwardCases.layerNorm(DType.BF16, 130, 70, ALL);
        HostValues in = opCase.values(1);
        HostValues first = OpCheck.run(opCase, in);
        for (int i = 1; i < REPEATS; i++) {
            HostValues again = OpCheck.run(opCase, in);
            opCase.operands().stream().filter(Operand::isWritten)
                    .forEach(o -> OpCheck.assertSameBits(opCase + ": ", o, first, again));
        }
    }

    @ParameterizedTest
    @EnumSource(names = {"F32", "BF16"})
    void layerNormBackward_nanSpoilsItsRowOnly(DType dtype) {
        OpCheck.check(NormBackwardCases.layerNorm(dtype, 3, 33, Set.of()).with("dy",
                Fill.normal(1).with(40, 1000, Double.NaN), "a NaN"));
        OpCheck.check(NormBackwardCases.rmsNorm(dtype, 3, 33, Set.of()).with("x",
                Fill.normal(1).with(40, 1000, Double.NaN), "a NaN"));
    }

    @Test
    void layerNormBackward_rowAlone() {
        OpCheck.rowAlone(NormBackwardCases.layerNorm(DType.F32, 9, 127, EnumSet.of(Part.RESIDUAL)), "dx", "dy", "x",
                "residual", "mean", "rstd");
    }

    @Test
    void layerNormBackward_badArguments() {
        OpCase opCase = NormBackwardCases.layerNorm(DType.BF16, 3, 5, ALL);
        BadArguments.check(opCase);
        BadArguments.refuses(opCase, "x", DType.BF16, new int[] {3, 0}, null);
        BadArguments.refuses(opCase, "dweight", DType.BF16, new int[] {5}, "dweight");
        GatunException e = assertThrows(GatunException.class, () -> OpCheck.run(opCase, opCase.values(1), "workspace"));
        assertTrue(e.getMessage().startsWith("layernorm_backward: workspace has 0 bytes, expected "), e.getMessage());
    }

    @Test
    void rmsNormBackward_badArguments() {
        OpCase opCase = NormBackwardCases.rmsNorm(DType.F32, 3, 5, ALL);
        BadArguments.check(opCase);
        BadArguments.refuses(opCase, "residual", DType.F32, new int[] {3, 4}, "residual");
        BadArguments.refuses(opCase, "rstd", DType.F32, new int[] {4}, "rstd");
    }
}
