package io.gatun.ops;

import io.gatun.ops.Convolution.Geometry;
import io.gatun.ops.Convolution.Transposed;
import io.gatun.ops.cases.ConvolutionCases;
import io.gatun.ops.cases.ConvolutionCases.Sizes;
import io.gatun.ops.cases.ConvolutionCases.Via;
import io.gatun.ops.cases.Fill;
import io.gatun.ops.cases.OpCase;
import io.gatun.runtime.DType;
import java.util.List;
import org.junit.jupiter.api.Tag;
import org.junit.jupiter.api.Test;
import org.junit.jupiter.params.ParameterizedTest;
import org.junit.jupiter.params.provider.EnumSource;

@Tag("device")
class ConvolutionTest {
    /// Pads at the bottom and the right only, as in front of a convolution with stride 2.
    private static final Geometry DOWN = new Geometry(2, 2, 0, 1, 0, 1, 1, 1, 1);
    private static final Geometry UNEVEN = new Geometry(2, 1, 1, 0, 2, 3, 1, 2, 1);
    private static final Transposed UP = Transposed.of(2, 1);

    private record Shape(Sizes sizes, Geometry geometry) {}

    private record Up(Sizes sizes, Transposed geometry) {}

    private static final List<Shape> SHAPES = List.of(
            new Shape(Sizes.of(2, 5, 3, 7, 9, 1), Geometry.of(1, 0)),
            new Shape(Sizes.of(2, 7, 5, 5, 4, 3), Geometry.same(3)),
            new Shape(Sizes.of(1, 4, 3, 33, 67, 3), Geometry.same(3)),
            new Shape(Sizes.of(1, 9, 6, 3, 6, 3), DOWN),
            new Shape(Sizes.of(1, 8, 8, 3, 5, 4), Geometry.of(2, 1)),
            new Shape(Sizes.of(1, 9, 8, 3, 2, 7), Geometry.same(7)),
            new Shape(new Sizes(1, 6, 7, 4, 3, 3, 2), UNEVEN),
            new Shape(Sizes.of(1, 7, 6, 4, 5, 3), new Geometry(1, 1, 2, 2, 2, 2, 2, 2, 1)),
            new Shape(Sizes.of(1, 5, 4, 6, 8, 3), Geometry.same(3).withGroups(2)),
            new Shape(Sizes.of(1, 5, 4, 9, 9, 3), Geometry.same(3).withGroups(9)),
            new Shape(Sizes.of(1, 1, 1, 130, 3, 1), Geometry.of(1, 0)),
            new Shape(Sizes.of(1, 2, 2, 2, 3, 2), Geometry.of(3, 2)));

    private static final List<Up> UPS = List.of(
            new Up(Sizes.of(2, 4, 6, 5, 3, 4), UP),
            new Up(Sizes.of(2, 1, 1, 6, 4, 4), Transposed.of(1, 0)),
            new Up(Sizes.of(1, 5, 4, 3, 2, 3), new Transposed(2, 2, 1, 1, 1, 1, 1, 1, 1)),
            new Up(Sizes.of(1, 2, 3, 33, 35, 3), new Transposed(3, 2, 0, 1, 2, 0, 1, 1, 1)),
            new Up(Sizes.of(1, 3, 3, 4, 2, 2), new Transposed(3, 3, 0, 0, 0, 0, 1, 1, 1)),
            new Up(Sizes.of(1, 4, 3, 2, 3, 3), new Transposed(2, 3, 1, 2, 0, 1, 4, 2, 1)),
            new Up(Sizes.of(1, 3, 4, 6, 4, 3), new Transposed(2, 1, 1, 1, 0, 0, 1, 1, 2)));

    @ParameterizedTest
    @EnumSource(names = {"F32", "BF16", "F16"})
    void conv2d_shapes(DType dtype) {
        for (Via via : Via.values()) {
            for (Shape s : SHAPES) {
                OpCheck.check(ConvolutionCases.conv2d(dtype, dtype, s.sizes, s.geometry, ActivationKind.NONE, via));
            }
        }
    }

    @ParameterizedTest
    @EnumSource(names = {"F32", "BF16", "F16"})
    void convTranspose2d_shapes(DType dtype) {
        for (Via via : Via.values()) {
            for (Up s : UPS) {
                OpCheck.check(ConvolutionCases.convTranspose2d(dtype, dtype, s.sizes, s.geometry, ActivationKind.NONE,
                        via));
            }
        }
    }

    @ParameterizedTest
    @EnumSource
    void conv2d_activations(ActivationKind activation) {
        Sizes s = Sizes.of(1, 4, 5, 6, 5, 3);
        for (Via via : Via.values()) {
            OpCheck.check(ConvolutionCases.conv2d(DType.F32, null, s, DOWN, activation, via));
            OpCheck.check(ConvolutionCases.conv2d(DType.F32, DType.F32, s, DOWN, activation, via));
            OpCheck.check(ConvolutionCases.conv2d(DType.BF16, DType.F32, s, DOWN, activation, via));
            OpCheck.check(ConvolutionCases.convTranspose2d(DType.F32, null, s, UP, activation, via));
            OpCheck.check(ConvolutionCases.convTranspose2d(DType.BF16, DType.F32, s, UP, activation, via));
        }
    }

    /// More terms than a panel has, more pixels than a block has, and more outputs than a panel has.
    @ParameterizedTest
    @EnumSource(names = {"F32", "BF16"})
    void conv2d_severalBlocks(DType dtype) {
        for (Via via : Via.values()) {
            OpCheck.check(ConvolutionCases.conv2d(dtype, null, Sizes.of(1, 20, 21, 5, 66, 3), Geometry.same(3),
                    ActivationKind.NONE, via));
            OpCheck.check(ConvolutionCases.conv2d(dtype, null, Sizes.of(1, 3, 2, 130, 40, 3), Geometry.same(3),
                    ActivationKind.NONE, via));
        }
    }

    @Test
    void convolutions_noImages() {
        for (Via via : Via.values()) {
            OpCheck.check(ConvolutionCases.conv2d(DType.F32, null, Sizes.of(0, 4, 5, 3, 2, 3), DOWN,
                    ActivationKind.NONE, via));
            OpCheck.check(ConvolutionCases.convTranspose2d(DType.F32, null, Sizes.of(0, 4, 5, 3, 2, 4), UP,
                    ActivationKind.NONE, via));
        }
    }

    @ParameterizedTest
    @EnumSource(names = {"F32", "BF16", "F16"})
    void convolutions_imageAlone(DType dtype) {
        for (Via via : new Via[] {Via.OWN_KERNEL, Via.DEVICE}) {
            OpCheck.rowAlone(ConvolutionCases.conv2d(dtype, null, Sizes.of(3, 5, 6, 35, 9, 3), Geometry.same(3),
                    ActivationKind.SILU, via), "y", "x");
            OpCheck.rowAlone(ConvolutionCases.conv2d(dtype, null, Sizes.of(3, 3, 3, 32, 64, 1), Geometry.of(1, 0),
                    ActivationKind.NONE, via), "y", "x");
            OpCheck.rowAlone(ConvolutionCases.convTranspose2d(dtype, null, Sizes.of(3, 2, 3, 35, 9, 4), UP,
                    ActivationKind.NONE, via), "y", "x");
        }
    }

    @Test
    void convolutions_nanSpoilsWhatMeetsIt() {
        Fill fill = Fill.normal(1).with(40, 1000, Double.NaN);
        for (Via via : Via.values()) {
            OpCheck.check(ConvolutionCases.conv2d(DType.F32, null, Sizes.of(2, 5, 6, 3, 4, 3), Geometry.same(3),
                    ActivationKind.SILU, via).with("x", fill, "a NaN"));
            OpCheck.check(ConvolutionCases.convTranspose2d(DType.F32, null, Sizes.of(2, 3, 6, 3, 4, 4), UP,
                    ActivationKind.RELU, via).with("x", fill, "a NaN"));
        }
    }

    @Test
    void convolutions_badArguments() {
        for (Via via : Via.values()) {
            OpCase conv = ConvolutionCases.conv2d(DType.BF16, DType.F32, Sizes.of(1, 4, 5, 6, 4, 3),
                    Geometry.same(3).withGroups(2), ActivationKind.NONE, via);
            BadArguments.check(conv);
            BadArguments.refuses(conv, "weight", DType.F32, new int[] {4, 3, 3, 3}, "weight");
            BadArguments.refuses(conv, "weight", DType.BF16, new int[] {4, 3, 3, 6}, "weight");
            BadArguments.refuses(conv, "weight", DType.BF16, new int[] {4, 9, 3, 3}, null);
            BadArguments.refuses(conv, "y", DType.BF16, new int[] {1, 4, 4, 4}, "y");
            BadArguments.refuses(conv, "y", DType.F32, new int[] {1, 4, 5, 4}, "y");
            BadArguments.refuses(conv, "bias", DType.F16, new int[] {4}, "bias");
            BadArguments.refuses(conv, "bias", DType.F32, new int[] {5}, "bias");
            OpCase up = ConvolutionCases.convTranspose2d(DType.F32, DType.F32, Sizes.of(1, 4, 5, 6, 4, 3), UP,
                    ActivationKind.NONE, via);
            BadArguments.check(up);
            BadArguments.refuses(up, "weight", DType.F32, new int[] {4, 3, 3, 6}, "weight");
            BadArguments.refuses(up, "y", DType.F32, new int[] {1, 8, 9, 4}, "y");
            BadArguments.refuses(up, "x", DType.F32, new int[] {1, 4, 5, 5}, null);
        }
    }
}
