package io.gatun.runtime;

import io.gatun.ops.Convolution.Geometry;
import io.gatun.ops.Convolution.Transposed;
import org.jspecify.annotations.Nullable;

/// Strides, pads, dilations and groups of a convolution of either kind, as the vendors' libraries see them. Of a
/// transposed one the pads are those of the convolution that it transposes.
record ConvolutionWindow(boolean transposed, int strideH, int strideW, int padTop, int padBottom, int padLeft,
        int padRight, int dilationH, int dilationW, int groups) {
    static ConvolutionWindow of(Geometry g) {
        return new ConvolutionWindow(false, g.strideH(), g.strideW(), g.padTop(), g.padBottom(), g.padLeft(),
                g.padRight(), g.dilationH(), g.dilationW(), g.groups());
    }

    static ConvolutionWindow of(Transposed g) {
        return new ConvolutionWindow(true, g.strideH(), g.strideW(), g.padH(), g.padH() - g.outputPadH(), g.padW(),
                g.padW() - g.outputPadW(), g.dilationH(), g.dilationW(), g.groups());
    }

    /// Whether operands are not empty, fit together and are channels last, each image dense by itself. What does not
    /// fit is left to our kernel, which takes any strides and says what is wrong.
    boolean fits(Tensor y, Tensor x, Tensor weight, @Nullable Tensor bias) {
        return weight.dtype() == x.dtype() && fitsButForDType(y, x, weight, bias);
    }

    /// As [#fits], of the gradients of y and of the weight, which is f32.
    boolean fitsGradient(Tensor dy, Tensor x, Tensor dweight) {
        return dweight.dtype() == DType.F32 && fitsButForDType(dy, x, dweight, null);
    }

    /// The convolution that a transposed one transposes.
    ConvolutionWindow plain() {
        return new ConvolutionWindow(false, strideH, strideW, padTop, padBottom, padLeft, padRight, dilationH,
                dilationW, groups);
    }

    private boolean fitsButForDType(Tensor y, Tensor x, Tensor weight, @Nullable Tensor bias) {
        if (x.rank() != 4 || y.rank() != 4 || weight.rank() != 4 || y.elements() == 0 || x.elements() == 0
                || weight.elements() == 0 || !x.dtype().isFloat() || y.dtype() != x.dtype() || !isLegal()) {
            return false;
        }
        long c = x.size(3);
        long f = y.size(3);
        boolean weightFits = c % groups == 0 && f % groups == 0 && weight.size(0) == (transposed ? c : f)
                && weight.size(3) == (transposed ? f : c) / groups;
        boolean biasFits = bias == null || bias.rank() == 1 && bias.size(0) == f && bias.isContiguous()
                && (bias.dtype() == x.dtype() || bias.dtype() == DType.F32);
        return weightFits && biasFits && y.size(0) == x.size(0)
                && y.size(1) == outputs(x.size(1), weight.size(1), strideH, padTop + padBottom, dilationH)
                && y.size(2) == outputs(x.size(2), weight.size(2), strideW, padLeft + padRight, dilationW)
                && isDense(y) && isDense(x);
    }

    private boolean isLegal() {
        int least = Math.min(Math.min(strideH, strideW), Math.min(Math.min(dilationH, dilationW), groups));
        boolean outputPadsFit = padTop - padBottom < Math.max(strideH, dilationH)
                && padLeft - padRight < Math.max(strideW, dilationW);
        return least >= 1 && padTop >= 0 && padLeft >= 0 && (!transposed || outputPadsFit && padBottom <= padTop
                && padRight <= padLeft);
    }

    private long outputs(long in, long taps, int stride, int pads, int dilation) {
        long reach = dilation * (taps - 1) + 1;
        return transposed ? (in - 1) * stride - pads + reach
                : in + pads < reach ? -1 : (in + pads - reach) / stride + 1;
    }

    /// Each image by itself; how far apart they are does not matter.
    private static boolean isDense(Tensor images) {
        long step = 1;
        for (int d = 3; d >= 1; d--) {
            if (images.size(d) != 1 && images.stride(d) != step) {
                return false;
            }
            step *= images.size(d);
        }
        return true;
    }
}
