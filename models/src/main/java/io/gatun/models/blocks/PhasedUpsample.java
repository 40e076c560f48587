package io.gatun.models.blocks;

import io.gatun.models.Layers;
import io.gatun.models.WeightLoader;
import io.gatun.ops.Convolution.Geometry;
import io.gatun.ops.Elementwise;
import io.gatun.runtime.DType;
import io.gatun.runtime.DeviceArena;
import io.gatun.runtime.Stream;
import io.gatun.runtime.Tensor;
import java.util.ArrayList;
import java.util.List;

/// What [Upsample] computes for twice the size, in 4 products per pixel instead of 9 and without the doubled image. The
/// nine taps of a pixel meet only four different pixels of the small image; which ones depends on whether its row and
/// its column are even. So each of the four kinds is a 2x2 convolution of the small image, with sums of the weights.
///
/// @param kinds of even rows and even columns, even and odd, odd and even, odd and odd: [F, C, 2, 2] each
/// @param bias  conv.bias [F]
public record PhasedUpsample(List<Tensor> kinds, Tensor bias) {
    /// By parity, for the two taps of a kind: the first of the three taps that fall on it, and how many.
    private static final int[][][] TAPS = {{{0, 1}, {1, 2}}, {{0, 2}, {2, 1}}};

    /// Of the weights of one that is for other sizes too.
    public static PhasedUpsample of(WeightLoader w, Upsample upsample) {
        Tensor weight = upsample.conv();
        long out = weight.size(0);
        long in = weight.rank() == 4 ? weight.size(1) : 0; // a missing weight is reported when the reading ends
        List<Tensor> kinds = new ArrayList<>();
        for (int kind = 0; kind < 4; kind++) {
            int row = kind / 2;
            int column = kind % 2;
            kinds.add(w.derived((stream, to) -> sum(stream, to, weight, TAPS[row], TAPS[column]), out, in, 2, 2));
        }
        return new PhasedUpsample(kinds, upsample.bias());
    }

    /// `to[f, c, a, b]` = the sum of the taps of `weight[f, c]` that fall on row a and column b. Sums in f32.
    private static void sum(Stream stream, Tensor to, Tensor weight, int[][] rows, int[][] columns) {
        try (DeviceArena arena = to.device().newArena("taps")) {
            Tensor taps = arena.allocate(DType.F32, weight.shape());
            Tensor sums = arena.allocate(DType.F32, to.shape());
            Elementwise.cast(stream, taps, weight);
            Elementwise.fill(stream, sums, 0);
            for (int a = 0; a < 2; a++) {
                for (int b = 0; b < 2; b++) {
                    Tensor sum = at(sums, a, b);
                    for (int r = rows[a][0]; r < rows[a][0] + rows[a][1]; r++) {
                        for (int c = columns[b][0]; c < columns[b][0] + columns[b][1]; c++) {
                            Elementwise.add(stream, sum, sum, at(taps, r, c));
                        }
                    }
                }
            }
            Elementwise.cast(stream, to, sums);
        }
    }

    private static Tensor at(Tensor kernel, int row, int column) {
        return kernel.slice(2, row, row + 1).slice(3, column, column + 1);
    }

    /// @param x [B, H, W, C]
    /// @return [B, 2H, 2W, F]
    public Tensor forward(Layers net, Tensor x) {
        Tensor y = net.allocate(x.dtype(), x.size(0), 2 * x.size(1), 2 * x.size(2), bias.size(0));
        forwardInto(net, y, x);
        return y;
    }

    /// As [#forward], into a tensor of the caller's, such as a slice of a wider one.
    ///
    /// @param y [B, 2H, 2W, F]
    public void forwardInto(Layers net, Tensor y, Tensor x) {
        long[] step = {y.stride(0), 2 * y.stride(1), 2 * y.stride(2), y.stride(3)};
        for (int kind = 0; kind < 4; kind++) {
            int row = kind / 2;
            int column = kind % 2;
            Geometry pads = new Geometry(1, 1, 1 - row, row, 1 - column, column, 1, 1, 1);
            Tensor part = net.conv(x, kinds.get(kind), bias, pads);                             // [B, H, W, F]
            Tensor ofKind = y.slice(1, row, y.size(1)).slice(2, column, y.size(2));
            net.copyInto(ofKind.strided(part.shape(), step), part);                             // [B, H, W, F]
        }
    }
}
