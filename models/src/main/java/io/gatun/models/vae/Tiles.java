package io.gatun.models.vae;

import io.gatun.models.Layers;
import io.gatun.ops.Elementwise;
import io.gatun.runtime.DType;
import io.gatun.runtime.GatunException;
import io.gatun.runtime.Tensor;
import java.util.ArrayList;
import java.util.List;
import java.util.function.UnaryOperator;
import org.jspecify.annotations.Nullable;

/// An image in overlapping tiles, one at a time, so that what the network needs does not grow with the image: only the
/// result and the finished tiles of two rows do. Where tiles overlap the result fades from one to the next, as
/// diffusers does it: a tile is blended with the one above, then with the one to the left, both as they are after
/// their own blending. The result is close to that of the whole image, not equal: norms and attention see one tile.
///
/// @param side  height and width of a tile of the input
/// @param step  from one tile of the input to the next
/// @param blend rows and columns of the output that fade
/// @param limit rows and columns of the output that a tile contributes
record Tiles(long side, long step, long blend, long limit) {
    /// @param in  height and width of a tile
    /// @param out the same after the network
    static Tiles of(long in, long out) {
        if (in % 4 != 0 || out % 4 != 0) {
            throw GatunException.invalid("tiles of %d by %d become %d by %d: expected multiples of 4 (see sample_size)",
                    in, in, out, out);
        }
        return new Tiles(in, in / 4 * 3, out / 4, out / 4 * 3);
    }

    /// Whether an input is larger than a tile.
    boolean isLarger(Tensor x) {
        return x.size(1) > side || x.size(2) > side;
    }

    /// @param x       [B, H, W, C]
    /// @param network what is done with a tile [B, h, w, C]
    /// @return [B, H out / in, W out / in, F] f32
    Tensor run(Layers net, Tensor x, UnaryOperator<Tensor> network) {
        Tensor y = null;
        List<@Nullable Tensor> above = new ArrayList<>();
        for (long top = 0; top < x.size(1); top += step) {
            List<@Nullable Tensor> row = new ArrayList<>();
            for (long left = 0; left < x.size(2); left += step) {
                Tensor in = net.copy(x.slice(1, top, Math.min(top + side, x.size(1)))
                        .slice(2, left, Math.min(left + side, x.size(2))));                      // [B, h, w, C]
                Tensor tile = net.cast(network.apply(in), DType.F32);                            // [B, h', w', F]
                fade(net, tile, row.size() < above.size() ? above.get(row.size()) : null, 1);
                fade(net, tile, row.isEmpty() ? null : row.getLast(), 2);
                row.add(tile);
                if (y == null) {
                    y = net.allocate(DType.F32, x.size(0), x.size(1) * limit / step, x.size(2) * limit / step,
                            tile.size(3));
                }
                put(net, y, tile, top / step * limit, left / step * limit);
            }
            above = row;
        }
        return y;
    }

    private void put(Layers net, Tensor y, Tensor tile, long top, long left) {
        long height = Math.min(limit, tile.size(1));
        long width = Math.min(limit, tile.size(2));
        net.copyInto(y.slice(1, top, top + height).slice(2, left, left + width),
                tile.slice(1, 0, height).slice(2, 0, width));
    }

    /// `tile[i] = before[n - e + i] (1 - i / e) + tile[i] i / e` for the first e rows (dim 1) or columns (dim 2).
    private void fade(Layers net, Tensor tile, @Nullable Tensor before, int dim) {
        if (before == null) {
            return;
        }
        long e = Math.min(blend, Math.min(before.size(dim), tile.size(dim)));
        Tensor from = before.slice(dim, before.size(dim) - e, before.size(dim));
        Tensor to = tile.slice(dim, 0, e);
        Tensor difference = net.allocate(DType.F32, to.shape());
        Tensor ramp = net.allocate(DType.F32, e);
        for (long i = 0; i < e; i++) {
            Tensor one = ramp.slice(0, i, i + 1);
            double part = (double) i / e;
            net.op(stream -> Elementwise.fill(stream, one, part), one);
        }
        long[] stride = new long[4];
        stride[dim] = 1;
        Tensor wide = ramp.strided(to.shape(), stride);
        net.op(stream -> {
            Elementwise.scale(stream, difference, from, -1);
            Elementwise.add(stream, difference, difference, to);
            Elementwise.addGated(stream, to, from, wide, difference);
        }, to, from, difference, ramp);
    }
}
