package io.gatun.ops;

import static io.gatun.runtime.Tensor.on;

import io.gatun.bindings.gatun.Gatun;
import io.gatun.runtime.GatunException;
import io.gatun.runtime.Stream;
import io.gatun.runtime.Tensor;
import org.jspecify.annotations.Nullable;

/// Two-dimensional convolution by our own kernels: implicit matrix products, no buffer of patches.
/// [io.gatun.runtime.Device#convolution] chooses between them and the vendor's library.
///
/// Images are [B, H, W, C] (H and W height and width): the order of the dimensions, not of the memory. Channels last is
/// the fast layout; a channels-first tensor is passed as a permuted view.
public final class Convolution {
    private Convolution() {}

    /// Strides, pads (top, bottom, left, right), dilations and groups of a convolution.
    public record Geometry(int strideH, int strideW, int padTop, int padBottom, int padLeft, int padRight,
            int dilationH, int dilationW, int groups) {
        public Geometry {
            if (Math.min(Math.min(strideH, strideW), Math.min(dilationH, Math.min(dilationW, groups))) < 1
                    || Math.min(Math.min(padTop, padBottom), Math.min(padLeft, padRight)) < 0) {
                throw GatunException.invalid("convolution: stride %dx%d, dilation %dx%d, groups %d, pads %d %d %d %d:"
                        + " expected 1 or more, pads 0 or more", strideH, strideW, dilationH, dilationW, groups, padTop,
                        padBottom, padLeft, padRight);
            }
        }

        /// One stride and one pad for all sides.
        public static Geometry of(int stride, int pad) {
            return new Geometry(stride, stride, pad, pad, pad, pad, 1, 1, 1);
        }

        /// `same` size for an odd kernel at stride 1.
        public static Geometry same(int kernel) {
            return of(1, kernel / 2);
        }

        public Geometry withGroups(int number) {
            return new Geometry(strideH, strideW, padTop, padBottom, padLeft, padRight, dilationH, dilationW, number);
        }

        /// H' for an image of height H.
        public long outputHeight(long height, long kernel) {
            return (height + padTop + padBottom - dilationH * (kernel - 1) - 1) / strideH + 1;
        }

        /// W' for an image of width W.
        public long outputWidth(long width, long kernel) {
            return (width + padLeft + padRight - dilationW * (kernel - 1) - 1) / strideW + 1;
        }
    }

    /// Strides, pads, output pads, dilations and groups of a transposed convolution.
    public record Transposed(int strideH, int strideW, int padH, int padW, int outputPadH, int outputPadW,
            int dilationH, int dilationW, int groups) {
        public Transposed {
            if (Math.min(Math.min(strideH, strideW), Math.min(dilationH, Math.min(dilationW, groups))) < 1
                    || Math.min(Math.min(padH, padW), Math.min(outputPadH, outputPadW)) < 0) {
                throw GatunException.invalid("transposed convolution: stride %dx%d, dilation %dx%d, groups %d, pads %d"
                        + " %d, output pads %d %d: expected 1 or more, pads 0 or more", strideH, strideW, dilationH,
                        dilationW, groups, padH, padW, outputPadH, outputPadW);
            }
        }

        /// One stride and one pad for all sides.
        public static Transposed of(int stride, int pad) {
            return new Transposed(stride, stride, pad, pad, 0, 0, 1, 1, 1);
        }

        /// H' for an image of height H.
        public long outputHeight(long height, long kernel) {
            return (height - 1) * strideH - 2L * padH + dilationH * (kernel - 1) + outputPadH + 1;
        }

        /// W' for an image of width W.
        public long outputWidth(long width, long kernel) {
            return (width - 1) * strideW - 2L * padW + dilationW * (kernel - 1) + outputPadW + 1;
        }
    }

    /// `y[b,i,j,f] = activation(bias[f] + sum x[b, i sh - pt + u dh, j sw - pl + v dw, c] w[f,u,v,c])`.
    ///
    /// @param y      [B, H', W', F]
    /// @param x      [B, H, W, C] f32, bf16 or f16, any strides
    /// @param weight [F, kh, kw, C/groups], any strides (torch's, permuted 0, 2, 3, 1)
    /// @param bias   [F] x's dtype or f32, or null
    public static void conv2d(Stream stream, Tensor y, Tensor x, Tensor weight, @Nullable Tensor bias, Geometry g,
            ActivationKind activation) {
        stream.enter("conv2d");
        try {
            stream.check(Gatun.gt_conv2d(stream.descriptor(), y.on(stream), x.on(stream), weight.on(stream),
                    on(bias, stream), g.strideH, g.strideW, g.padTop, g.padBottom, g.padLeft, g.padRight, g.dilationH,
                    g.dilationW, g.groups, activation.code()));
        } finally {
            stream.exit();
        }
    }

    /// The transpose of [#conv2d] with x and y exchanged, plus bias.
    ///
    /// @param y      [B, H', W', F]
    /// @param x      [B, H, W, C] f32, bf16 or f16, any strides
    /// @param weight [C, kh, kw, F/groups], any strides (torch's, permuted 0, 2, 3, 1)
    /// @param bias   [F] x's dtype or f32, or null
    public static void convTranspose2d(Stream stream, Tensor y, Tensor x, Tensor weight, @Nullable Tensor bias,
            Transposed g, ActivationKind activation) {
        stream.enter("conv_transpose2d");
        try {
            stream.check(Gatun.gt_conv_transpose2d(stream.descriptor(), y.on(stream), x.on(stream), weight.on(stream),
                    on(bias, stream), g.strideH, g.strideW, g.padH, g.padW, g.outputPadH, g.outputPadW, g.dilationH,
                    g.dilationW, g.groups, activation.code()));
        } finally {
            stream.exit();
        }
    }

    /// Gradient of [#conv2d] with respect to x:
    /// `dx[b,i,j,c] = sum dy[b,i',j',f] w[f,u,v,c]` over all u, v, f with `i = i' sh - pt + u dh`,
    /// `j = j' sw - pl + v dw`.
    ///
    /// @param dx     [B, H, W, C] dy's dtype, any strides
    /// @param dy     [B, H', W', F] f32, bf16 or f16, any strides
    /// @param weight [F, kh, kw, C/groups] dy's dtype, any strides
    public static void conv2dBackwardInput(Stream stream, Tensor dx, Tensor dy, Tensor weight, Geometry g) {
        stream.enter("conv2d_backward_input");
        try {
            stream.check(Gatun.gt_conv2d_backward_input(stream.descriptor(), dx.on(stream), dy.on(stream),
                    weight.on(stream), g.strideH, g.strideW, g.padTop, g.padBottom, g.padLeft, g.padRight,
                    g.dilationH, g.dilationW, g.groups));
        } finally {
            stream.exit();
        }
    }

    /// Gradient of [#conv2d] with respect to weight, sums in f32 in an order that the sizes alone decide:
    /// `dw[f,u,v,c] = sum_{b,i,j} dy[b,i,j,f] x[b, i sh - pt + u dh, j sw - pl + v dw, c]`.
    ///
    /// @param dweight   [F, kh, kw, C/groups] f32 or x's dtype, any strides
    /// @param dy        [B, H', W', F] x's dtype, any strides
    /// @param x         [B, H, W, C] f32, bf16 or f16, any strides
    /// @param workspace u8 of [#backwardWeightWorkspaceBytes] for dweight and dy; null where that is 0
    public static void conv2dBackwardWeight(Stream stream, Tensor dweight, Tensor dy, Tensor x, Geometry g,
            @Nullable Tensor workspace) {
        stream.enter("conv2d_backward_weight");
        try {
            stream.check(Gatun.gt_conv2d_backward_weight(stream.descriptor(), dweight.on(stream), dy.on(stream),
                    x.on(stream), g.strideH, g.strideW, g.padTop, g.padBottom, g.padLeft, g.padRight, g.dilationH,
                    g.dilationW, g.groups, on(workspace, stream)));
        } finally {
            stream.exit();
        }
    }

    /// Bytes of workspace that the gradient of a weight wants.
    ///
    /// @param images dy of [#conv2dBackwardWeight], x of [#convTranspose2dBackwardWeight]
    public static long backwardWeightWorkspaceBytes(Stream stream, Tensor dweight, Tensor images, int groups) {
        return WorkspaceQuery.bytes(stream, "conv2d_backward_weight_workspace",
                bytes -> Gatun.gt_conv2d_backward_weight_workspace(stream.descriptor(), dweight.shapeOn(stream),
                        images.shapeOn(stream), groups, bytes));
    }

    /// Gradient of [#convTranspose2d] with respect to x:
    /// `dx[b,i,j,c] = sum_{u,v,f} dy[b, i sh - ph + u dh, j sw - pw + v dw, f] w[c,u,v,f]`.
    ///
    /// @param dx     [B, H, W, C] dy's dtype, any strides
    /// @param dy     [B, H', W', F] f32, bf16 or f16, any strides
    /// @param weight [C, kh, kw, F/groups] dy's dtype, any strides
    public static void convTranspose2dBackwardInput(Stream stream, Tensor dx, Tensor dy, Tensor weight,
            Transposed g) {
        stream.enter("conv_transpose2d_backward_input");
        try {
            stream.check(Gatun.gt_conv_transpose2d_backward_input(stream.descriptor(), dx.on(stream), dy.on(stream),
                    weight.on(stream), g.strideH, g.strideW, g.padH, g.padW, g.outputPadH, g.outputPadW, g.dilationH,
                    g.dilationW, g.groups));
        } finally {
            stream.exit();
        }
    }

    /// Gradient of [#convTranspose2d] with respect to weight:
    /// `dw[c,u,v,f] = sum_{b,i,j} x[b,i,j,c] dy[b, i sh - ph + u dh, j sw - pw + v dw, f]`.
    ///
    /// @param dweight   [C, kh, kw, F/groups] f32 or x's dtype, any strides
    /// @param dy        [B, H', W', F] x's dtype, any strides
    /// @param x         [B, H, W, C] f32, bf16 or f16, any strides
    /// @param workspace u8 of [#backwardWeightWorkspaceBytes] for dweight and x; null where that is 0
    public static void convTranspose2dBackwardWeight(Stream stream, Tensor dweight, Tensor dy, Tensor x, Transposed g,
            @Nullable Tensor workspace) {
        stream.enter("conv_transpose2d_backward_weight");
        try {
            stream.check(Gatun.gt_conv_transpose2d_backward_weight(stream.descriptor(), dweight.on(stream),
                    dy.on(stream), x.on(stream), g.strideH, g.strideW, g.padH, g.padW, g.outputPadH, g.outputPadW,
                    g.dilationH, g.dilationW, g.groups, on(workspace, stream)));
        } finally {
            stream.exit();
        }
    }
}
