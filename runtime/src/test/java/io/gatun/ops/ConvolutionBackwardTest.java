package io.gatun.ops;

import static org.junit.jupiter.api.Assumptions.assumeTrue;

import io.gatun.ops.Convolution.Geometry;
import io.gatun.ops.Convolution.Transposed;
import io.gatun.ops.cases.ConvolutionBackwardCases;
import io.gatun.ops.cases.ConvolutionCases.Sizes;
import io.gatun.ops.cases.ConvolutionCases.Via;
import io.gatun.ops.cases.Fill;
import io.gatun.ops.cases.HostValues;
import io.gatun.ops.cases.OpCase;
import io.gatun.ops.cases.TestDevice;
import io.gatun.runtime.DType;
import java.util.List;
import org.junit.jupiter.api.Tag;
import org.junit.jupiter.api.Test;
import org.junit.jupiter.params.ParameterizedTest;
import org.junit.jupiter.params.provider.EnumSource;

@Tag("device")
class ConvolutionBackwardTest {
    private static final int REPEATS = 30;
    private static final Via[] VIAS = {Via.OWN_KERNEL, Via.DEVICE};

    private record Shape(Sizes sizes, Geometry geometry) {}

    private record Up(Sizes sizes, Transposed geometry) {}

    private static final List<Shape> SHAPES = List.of(
            new Shape(Sizes.of(2, 3, 5, 7, 9, 1), Geometry.of(1, 0)),
            new Shape(Sizes.of(2, 5, 6, 16, 24, 3), Geometry.same(3)),
            new Shape(Sizes.of(3, 4, 3, 33, 35, 3), Geometry.same(3)),
            new Shape(Sizes.of(1, 9, 6, 3, 6, 3), new Geometry(2, 2, 0, 1, 0, 1, 1, 1, 1)),
            new Shape(Sizes.of(2, 8, 8, 3, 5, 4), Geometry.of(2, 1)),
            new Shape(new Sizes(1, 6, 7, 4, 3, 3, 2), new Geometry(2, 1, 1, 0, 2, 3, 1, 2, 1)),
            new Shape(Sizes.of(1, 7, 6, 4, 5, 3), new Geometry(1, 1, 2, 2, 2, 2, 2, 2, 1)),
            new Shape(Sizes.of(1, 5, 4, 6, 8, 3), Geometry.same(3).withGroups(2)),
            new Shape(Sizes.of(1, 5, 4, 9, 9, 3), Geometry.same(3).withGroups(9)),
            new Shape(Sizes.of(1, 2, 2, 2, 3, 2), Geometry.of(3, 2)));

    private static final List<Up> UPS = List.of(
            new Up(Sizes.of(2, 4, 3, 5, 3, 4), Transposed.of(2, 1)),
            new Up(Sizes.of(2, 1, 1, 6, 4, 4), Transposed.of(1, 0)),
            new Up(Sizes.of(1, 5, 4, 3, 2, 3), new Transposed(2, 2, 1, 1, 1, 1, 1, 1, 1)),
            new Up(Sizes.of(1, 2, 3, 33, 35, 3), new Transposed(3, 2, 0, 1, 2, 0, 1, 1, 1)),
            new Up(Sizes.of(1, 4, 3, 2, 3, 3), new Transposed(2, 3, 1, 2, 0, 1, 4, 2, 1)),
            new Up(Sizes.of(1, 3, 4, 6, 4, 3), new Transposed(2, 1, 1, 1, 0, 0, 1, 1, 2)));

    @ParameterizedTest
    @EnumSource(names = {"F32", "BF16", "F16"})
    void conv2d_shapes(DType dtype) {
        for (Via via : VIAS) {
            for (Shape s : SHAPES) {
                OpCheck.check(ConvolutionBackwardCases.inputGradient(dtype, s.sizes, s.geometry, via));
                OpCheck.check(ConvolutionBackwardCases.weightGradient(dtype, s.sizes, s.geometry, via));
            }
        }
    }

    @ParameterizedTest
    @EnumSource(names = {"F32", "BF16", "F16"})
    void convTranspose2d_shapes(DType dtype) {
        for (Via via : VIAS) {
            for (Up s : UPS) {
                OpCheck.check(ConvolutionBackwardCases.transposedInputGradient(dtype, s.sizes, s.geometry, via));
                OpCheck.check(ConvolutionBackwardCases.transposedWeightGradient(dtype, s.sizes, s.geometry, via));
            }
        }
    }

    /// More pixels than are summed at a time or in one part, and more outputs and terms than a block has.
    @ParameterizedTest
    @EnumSource(names = {"F32", "BF16"})
    void conv2d_severalBlocks(DType dtype) {
        for (Via via : VIAS) {
            OpCheck.check(ConvolutionBackwardCases.weightGradient(dtype, Sizes.of(9, 12, 11, 5, 6, 3),
                    Geometry.same(3), via));
            OpCheck.check(ConvolutionBackwardCases.weightGradient(dtype, Sizes.of(2, 3, 2, 66, 130, 1),
                    Geometry.of(1, 0), via));
        }
    }

    /// What oneDNN cuts by images and by outputs, and what it leaves whole; at sizes that the emulator would take
    /// minutes for.
    @ParameterizedTest
    @EnumSource(names = {"F32", "BF16"})
    void gradients_partsOfTheLibrary(DType dtype) {
        assumeTrue(TestDevice.isCpu(), "oneDNN is for the CPU");
        for (Shape s : List.of(new Shape(Sizes.of(6, 8, 8, 32, 32, 3), Geometry.same(3)),
                new Shape(Sizes.of(2, 4, 4, 64, 128, 3), Geometry.same(3)),
                new Shape(Sizes.of(1, 7, 9, 16, 64, 4), Geometry.of(2, 1)))) {
            OpCheck.check(ConvolutionBackwardCases.inputGradient(dtype, s.sizes, s.geometry, Via.DEVICE));
            OpCheck.check(ConvolutionBackwardCases.weightGradient(dtype, s.sizes, s.geometry, Via.DEVICE));
        }
        OpCheck.check(ConvolutionBackwardCases.transposedWeightGradient(dtype, Sizes.of(4, 4, 4, 64, 32, 4),
                Transposed.of(2, 1), Via.DEVICE));
    }

    @Test
    void gradients_noImages() {
        for (Via via : VIAS) {
            Sizes none = Sizes.of(0, 4, 5, 3, 2, 3);
            OpCheck.check(ConvolutionBackwardCases.inputGradient(DType.F32, none, Geometry.same(3), via));
            OpCheck.check(ConvolutionBackwardCases.weightGradient(DType.F32, none, Geometry.same(3), via));
            OpCheck.check(ConvolutionBackwardCases.transposedInputGradient(DType.F32, none, Transposed.of(2, 1), via));
            OpCheck.check(ConvolutionBackwardCases.transposedWeightGradient(DType.F32, none, Transposed.of(2, 1),
                    via));
        }
    }

    /// An output's gradient that is NaN spoils the inputs that it met; no tap lies outside here.
    @Test
    void gradients_nanSpoilsWhatMeetsIt() {
        Fill fill = Fill.normal(1).with(40, 1000, Double.NaN);
        for (Via via : VIAS) {
            OpCheck.check(ConvolutionBackwardCases.inputGradient(DType.F32, Sizes.of(2, 5, 6, 3, 4, 3),
                    Geometry.of(1, 0), via).with("dy", fill, "a NaN"));
            OpCheck.check(ConvolutionBackwardCases.weightGradient(DType.F32, Sizes.of(2, 5, 6, 3, 4, 3),
                    Geometry.of(1, 0), via).with("dy", fill, "a NaN"));
        }
    }

    @Test
    void gradients_badArguments() {
        Sizes s = Sizes.of(1, 4, 5, 6, 4, 3);
        for (Via via : VIAS) {
            OpCase input = ConvolutionBackwardCases.inputGradient(DType.BF16, s, Geometry.same(3).withGroups(2), via);
            BadArguments.check(input);
            BadArguments.refuses(input, "weight", DType.F32, new int[] {4, 3, 3, 3}, "weight");
            BadArguments.refuses(input, "weight", DType.BF16, new int[] {4, 3, 3, 6}, "weight");
            BadArguments.refuses(input, "dy", DType.BF16, new int[] {1, 4, 4, 4}, "dy");
            OpCase weight = ConvolutionBackwardCases.weightGradient(DType.BF16, s, Geometry.same(3), via);
            BadArguments.check(weight);
            BadArguments.refuses(weight, "dweight", DType.F16, new int[] {4, 3, 3, 6}, "dweight");
            BadArguments.refuses(weight, "dy", DType.F32, new int[] {1, 4, 5, 4}, "dy");
            BadArguments.refuses(weight, "x", DType.BF16, new int[] {1, 4, 6, 6}, null);
            OpCase up = ConvolutionBackwardCases.transposedInputGradient(DType.F32, s, Transposed.of(2, 1), via);
            BadArguments.check(up);
            BadArguments.refuses(up, "weight", DType.F32, new int[] {4, 3, 3, 6}, "weight");
            OpCase upWeight = ConvolutionBackwardCases.transposedWeightGradient(DType.F32, s, Transposed.of(2, 1),
                    via);
            BadArguments.check(upWeight);
            BadArguments.refuses(upWeight, "dy", DType.F32, new int[] {1, 7, 8, 4}, "dy");
        }
    }

    /// Many images, few weights.
    @ParameterizedTest
    @EnumSource(names = {"F32", "BF16"})
    void weightGradient_bitsRepeat(DType dtype) {
        OpCase opCase = ConvolutionBackwardCases.weightGradient(dtype, Sizes.of(8, 8, 8, 8, 8, 3), Geometry.same(3),
                Via.DEVICE);
        HostValues in = opCase.values(1);
        HostValues first = OpCheck.run(opCase, in);
        for (int run = 1; run < REPEATS; run++) {
            OpCheck.assertSameBits(opCase + ", run " + run + ": ", opCase.operands().getFirst(), first,
                    OpCheck.run(opCase, in));
        }
    }
}
