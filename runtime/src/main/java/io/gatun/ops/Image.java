package io.gatun.ops;

import static io.gatun.runtime.Tensor.on;

import io.gatun.bindings.gatun.Gatun;
import io.gatun.runtime.Stream;
import io.gatun.runtime.Tensor;
import org.jspecify.annotations.Nullable;

/// What image models need beside convolutions. Images are [B, H, W, C] (H and W height and width), any strides.
public final class Image {
    private Image() {}

    /// The order of the halves of a time step's embedding: `flip_sin_to_cos`.
    public enum Sinusoids {
        SIN_COS(0),
        COS_SIN(1);

        private final int code;

        Sinusoids(int code) {
            this.code = code;
        }
    }

    /// Nearest neighbour: `y[b,i,j,c] = x[b, i H / H', j W / W', c]`, the divisions rounded down.
    ///
    /// @param y [B, H', W', C];  x [B, H, W, C] of one float dtype
    public static void upsampleNearest(Stream stream, Tensor y, Tensor x) {
        stream.enter("upsample_nearest");
        try {
            stream.check(Gatun.gt_upsample_nearest(stream.descriptor(), y.on(stream), x.on(stream)));
        } finally {
            stream.exit();
        }
    }

    /// The mean over windows of `size` x `size`, that far apart.
    ///
    /// @param y [B, H / size, W / size, C];  x [B, H, W, C] of one float dtype
    public static void averagePool(Stream stream, Tensor y, Tensor x, int size) {
        stream.enter("average_pool");
        try {
            stream.check(Gatun.gt_average_pool(stream.descriptor(), y.on(stream), x.on(stream), size));
        } finally {
            stream.exit();
        }
    }

    /// The maximum over windows of `size` x `size`, that far apart.
    ///
    /// @param y [B, H / size, W / size, C];  x [B, H, W, C] of one float dtype
    public static void maxPool(Stream stream, Tensor y, Tensor x, int size) {
        maxPool(stream, y, x, size, size, 0);
    }

    /// `y[b,i,j,c] = max x[b, i stride - pad + u, j stride - pad + v, c]` over u, v < size, of what lies inside x. A
    /// NaN in a window gives NaN.
    ///
    /// @param y   [B, (H + 2 pad - size) / stride + 1, .., C];  x [B, H, W, C] of one float dtype
    /// @param pad 0 to size / 2
    public static void maxPool(Stream stream, Tensor y, Tensor x, int size, int stride, int pad) {
        stream.enter("max_pool");
        try {
            stream.check(Gatun.gt_max_pool(stream.descriptor(), y.on(stream), x.on(stream), size, stride, pad));
        } finally {
            stream.exit();
        }
    }

    /// The gradient of [#upsampleNearest]: a pixel of dx is the sum of dy over those that show it.
    ///
    /// @param dx [B, H, W, C];  dy [B, H', W', C] of one float dtype
    public static void upsampleNearestBackward(Stream stream, Tensor dx, Tensor dy) {
        stream.enter("upsample_nearest_backward");
        try {
            stream.check(Gatun.gt_upsample_nearest_backward(stream.descriptor(), dx.on(stream), dy.on(stream)));
        } finally {
            stream.exit();
        }
    }

    /// The gradient of [#averagePool]: `dx[b,i,j,c] = dy[b, i / size, j / size, c] / size^2`, 0 where no window is.
    ///
    /// @param dx [B, H, W, C];  dy [B, H / size, W / size, C] of one float dtype
    public static void averagePoolBackward(Stream stream, Tensor dx, Tensor dy, int size) {
        stream.enter("average_pool_backward");
        try {
            stream.check(Gatun.gt_average_pool_backward(stream.descriptor(), dx.on(stream), dy.on(stream), size));
        } finally {
            stream.exit();
        }
    }

    /// As [#maxPoolBackward(Stream, Tensor, Tensor, Tensor, int, int, int)], for windows `size` apart without pad.
    public static void maxPoolBackward(Stream stream, Tensor dx, Tensor dy, Tensor x, int size) {
        maxPoolBackward(stream, dx, dy, x, size, size, 0);
    }

    /// The gradient of [#maxPool]: a pixel of dx is the sum of dy over the windows whose maximum it is. Of equal ones
    /// it is the first of the window, row by row, of NaNs the last, as torch has it.
    ///
    /// @param dx [B, H, W, C];  x likewise, as the op read it
    /// @param dy as y of [#maxPool], of one float dtype with x and dx
    public static void maxPoolBackward(Stream stream, Tensor dx, Tensor dy, Tensor x, int size, int stride, int pad) {
        stream.enter("max_pool_backward");
        try {
            stream.check(Gatun.gt_max_pool_backward(stream.descriptor(), dx.on(stream), dy.on(stream), x.on(stream),
                    size, stride, pad));
        } finally {
            stream.exit();
        }
    }

    /// Sinusoids of a time step: `angle[i] = t exp(-ln(10000) i / (E/2 - shift))`, in f32 as diffusers does.
    ///
    /// @param y         [B, E] floats
    /// @param timesteps [B] f32; with a counter [n]
    /// @param counter   [1] i32: every row is of `timesteps[counter[0]]`; null: row b is of `timesteps[b]`
    public static void timestepEmbedding(Stream stream, Tensor y, Tensor timesteps, @Nullable Tensor counter,
            Sinusoids order, float shift) {
        stream.enter("timestep_embedding");
        try {
            stream.check(Gatun.gt_timestep_embedding(stream.descriptor(), y.on(stream), timesteps.on(stream),
                    on(counter, stream), order.code, shift));
        } finally {
            stream.exit();
        }
    }

    /// 8-bit pixels: `y = round(255 clamp(x scale + offset, 0, 1))`; one channel of x fills all three of y.
    ///
    /// @param y [B, H, W, 3] u8;  x [B, H, W, 1 or 3] floats
    public static void rgb8(Stream stream, Tensor y, Tensor x, float scale, float offset) {
        stream.enter("rgb8");
        try {
            stream.check(Gatun.gt_rgb8(stream.descriptor(), y.on(stream), x.on(stream), scale, offset));
        } finally {
            stream.exit();
        }
    }
}
