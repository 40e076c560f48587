package io.gatun.ops;

import static org.junit.jupiter.api.Assertions.assertArrayEquals;
import static org.junit.jupiter.api.Assertions.assertEquals;

import io.gatun.ops.Attention.Mask;
import io.gatun.ops.Convolution.Geometry;
import io.gatun.ops.Linear.WeightLayout;
import io.gatun.ops.Rope.Pairing;
import io.gatun.ops.cases.TestDevice;
import io.gatun.runtime.DType;
import io.gatun.runtime.Device;
import io.gatun.runtime.DeviceArena;
import io.gatun.runtime.Stream;
import io.gatun.runtime.Tensor;
import java.util.SplittableRandom;
import org.junit.jupiter.api.AfterEach;
import org.junit.jupiter.api.Assumptions;
import org.junit.jupiter.api.BeforeEach;
import org.junit.jupiter.api.Tag;
import org.junit.jupiter.api.Test;

/// Do ops find elements behind the first 2^31? What an op makes of the last row of such a tensor must be, bit for bit,
/// what it makes of that row alone. The name keeps this out of the build; bench's GPU suite runs it.
@Tag("gpu")
class LargeIndices {
    /// What the largest test takes, and a little.
    private static final long BYTES = 20L << 30;
    private static final int C = 1 << 14;
    /// [ROWS, C] has 2^31 + C elements.
    private static final long ROWS = (1L << 31) / C + 1;
    /// Elements from one batch to the next.
    private static final long FAR = (1L << 31) + 8;

    private Device device;
    private Stream stream;
    private DeviceArena arena;

    @BeforeEach
    void open() {
        device = TestDevice.open(1);
        stream = device.newStream();
        arena = device.newArena("LargeIndices");
        Assumptions.assumeTrue(device.memoryFree() > BYTES && !TestDevice.isCpu(),
                "skipped: needs a GPU with 20 GiB of free memory");
    }

    @AfterEach
    void close() {
        arena.close();
        stream.close();
        device.close();
    }

    /// Zeros, but for the last row.
    private Tensor matrix(Tensor lastRow) {
        Tensor all = arena.allocate(lastRow.dtype(), ROWS, C);
        Elementwise.fill(stream, all, 0);
        Elementwise.copy(stream, last(all), lastRow);
        return all;
    }

    private Tensor last(Tensor all) {
        return all.slice(0, ROWS - 1, ROWS);
    }

    private Tensor random(DType dtype, long... shape) {
        int n = 1;
        for (long size : shape) {
            n *= (int) size;
        }
        float[] values = new float[n];
        SplittableRandom random = new SplittableRandom(n);
        for (int i = 0; i < n; i++) {
            values[i] = (float) random.nextGaussian();
        }
        Tensor tensor = arena.allocate(dtype, shape);
        tensor.copyFrom(stream, values);
        return tensor;
    }

    private Tensor ints(long... values) {
        Tensor tensor = arena.allocate(DType.I32, values.length);
        tensor.copyFrom(stream, values);
        return tensor;
    }

    private void assertSame(String op, Tensor alone, Tensor far) {
        assertArrayEquals(alone.toFloats(stream), far.toFloats(stream), op + " on " + TestDevice.name());
    }

    @Test
    void elementwise_behind2G() {
        Tensor row = random(DType.BF16, 1, C);
        row.slice(1, 0, 1).copyFrom(stream, Float.NaN);
        Tensor x = matrix(row);
        Tensor count = arena.allocate(DType.I64, 1);
        Elementwise.countNonfinite(stream, count, x);
        assertEquals(1, count.toLongs(stream)[0], "count_nonfinite on " + TestDevice.name());
        Tensor y = arena.allocate(DType.BF16, ROWS, C);
        Elementwise.copy(stream, y, x);
        assertSame("copy", row, last(y));
        Elementwise.add(stream, y, x, x);
        Tensor twice = arena.allocate(DType.BF16, 1, C);
        Elementwise.add(stream, twice, row, row);
        assertSame("add", twice, last(y));
        Elementwise.geluTanh(stream, y, x);
        Elementwise.geluTanh(stream, twice, row);
        assertSame("gelu_tanh", twice, last(y));
    }

    @Test
    void rows_behind2G() {
        Tensor row = random(DType.BF16, 1, C);
        Tensor x = matrix(row);
        Tensor alone = arena.allocate(DType.BF16, 1, C);
        Tensor y = arena.allocate(DType.BF16, ROWS, C);
        Norm.layerNorm(stream, y, x, null, null, 1e-5f);
        Norm.layerNorm(stream, alone, row, null, null, 1e-5f);
        assertSame("layernorm", alone, last(y));
        Norm.rmsNorm(stream, y, x, null, 1e-5f);
        Norm.rmsNorm(stream, alone, row, null, 1e-5f);
        assertSame("rmsnorm", alone, last(y));
        Softmax.softmax(stream, y, x);
        Softmax.softmax(stream, alone, row);
        assertSame("softmax", alone, last(y));
        Tensor ids = arena.allocate(DType.I32, ROWS);
        Sampling.argmax(stream, ids, x);
        Tensor id = arena.allocate(DType.I32, 1);
        Sampling.argmax(stream, id, row);
        assertEquals(id.toLongs(stream)[0], ids.slice(0, ROWS - 1, ROWS).toLongs(stream)[0],
                "argmax on " + TestDevice.name());
    }

    @Test
    void tables_behind2G() {
        Tensor row = random(DType.BF16, 1, C);
        Tensor table = matrix(row);
        Tensor y = arena.allocate(DType.BF16, 1, C);
        Embedding.embedding(stream, y, ints(ROWS - 1), table, null, null);
        assertSame("embedding", row, y);
        Tensor x = random(DType.BF16, 1, C);
        Tensor all = arena.allocate(DType.F32, 1, ROWS);
        Linear.linear(stream, all, x, table, null, WeightLayout.OUT_IN);
        Tensor alone = arena.allocate(DType.F32, 1, 1);
        Linear.linear(stream, alone, x, row, null, WeightLayout.OUT_IN);
        assertSame("linear", alone, all.slice(1, ROWS - 1, ROWS));
    }

    /// The second of two batches lies so far behind the first.
    @Test
    void strides_behind2G() {
        int t = 33;
        int h = 2;
        int d = 64;
        long[] far = {FAR, h * d, d, 1};
        Tensor memory = arena.allocate(DType.BF16, FAR + t * h * d);
        Tensor q = memory.strided(new long[] {2, t, h, d}, far);
        Elementwise.copy(stream, q, random(DType.BF16, 2, t, h, d));
        Tensor second = q.slice(0, 1, 2);
        Tensor y = arena.allocate(DType.BF16, 2, t, h, d);
        Tensor alone = arena.allocate(DType.BF16, 1, t, h, d);
        for (Mask mask : Mask.values()) {
            attend(y, q, mask);
            attend(alone, second, mask);
            assertSame("attention " + mask, alone, y.slice(0, 1, 2));
        }
        Tensor rows = memory.strided(new long[] {2, h, d}, new long[] {FAR, d, 1});
        Tensor turns = random(DType.F32, 9, 2, d / 2);
        Tensor turned = arena.allocate(DType.BF16, 2, h, d);
        Rope.rope(stream, turned, rows, ints(3, 7), turns, Pairing.HALF);
        Tensor one = arena.allocate(DType.BF16, 1, h, d);
        Rope.rope(stream, one, rows.slice(0, 1, 2), ints(7), turns, Pairing.HALF);
        assertSame("rope", one, turned.slice(0, 1, 2));
    }

    /// Two images, the second of which lies so far behind the first.
    private Tensor farImages(DType dtype, int h, int w, int c) {
        Tensor memory = arena.allocate(dtype, FAR + h * w * c);
        Tensor images = memory.strided(new long[] {2, h, w, c}, new long[] {FAR, (long) w * c, c, 1});
        Elementwise.copy(stream, images, random(dtype, 2, h, w, c));
        return images;
    }

    @Test
    void images_behind2G() {
        int h = 9;
        int w = 7;
        int c = 32;
        Tensor x = farImages(DType.BF16, h, w, c);
        Tensor second = x.slice(0, 1, 2);
        Tensor y = arena.allocate(DType.BF16, 2, h, w, c);
        Tensor alone = arena.allocate(DType.BF16, 1, h, w, c);
        Tensor weight = random(DType.BF16, c, 3, 3, c);
        Convolution.conv2d(stream, y, x, weight, null, Geometry.same(3), ActivationKind.NONE);
        Convolution.conv2d(stream, alone, second, weight, null, Geometry.same(3), ActivationKind.NONE);
        assertSame("conv2d", alone, y.slice(0, 1, 2));
        Tensor wide = arena.allocate(DType.BF16, 2, 2 * h, 2 * w, c);
        Tensor one = arena.allocate(DType.BF16, 1, 2 * h, 2 * w, c);
        Image.upsampleNearest(stream, wide, x);
        Image.upsampleNearest(stream, one, second);
        assertSame("upsample_nearest", one, wide.slice(0, 1, 2));
        Tensor mean = random(DType.BF16, c);
        Tensor variance = arena.allocate(DType.BF16, c);
        Elementwise.fill(stream, variance, 0.5f);
        normalise(y, tokens(x), mean, variance);
        normalise(alone, tokens(second), mean, variance);
        assertSame("groupnorm and batchnorm", alone, y.slice(0, 1, 2));
        Elementwise.modulate(stream, y, x, x, x);
        Elementwise.modulate(stream, alone, second, second, second);
        assertSame("modulate", alone, y.slice(0, 1, 2));
        Elementwise.addGated(stream, y, x, x, x);
        Elementwise.addGated(stream, alone, second, second, second);
        assertSame("add_gated", alone, y.slice(0, 1, 2));
    }

    /// Images [B, H, W, C] as [B, H W, C].
    private static Tensor tokens(Tensor x) {
        long[] shape = {x.size(0), x.size(1) * x.size(2), x.size(3)};
        return x.strided(shape, new long[] {FAR, x.size(3), 1});
    }

    /// y = the group norm of x, then its batch norm.
    private void normalise(Tensor y, Tensor x, Tensor mean, Tensor variance) {
        long bytes = Norm.groupNormWorkspaceBytes(stream, x, 4);
        Tensor out = y.reshape(x.size(0), x.size(1), x.size(2));
        Norm.groupNorm(stream, out, null, null, x, null, null, null, null, 4, 1e-5f, ActivationKind.SILU,
                bytes == 0 ? null : arena.allocate(DType.U8, bytes));
        Norm.batchNorm(stream, out, out, mean, variance, null, null, 1e-5f, ActivationKind.NONE);
    }

    @Test
    void noisyImages_behind2G() {
        Tensor x = farImages(DType.F32, 9, 7, 4);
        Tensor second = x.slice(0, 1, 2);
        Tensor y = arena.allocate(DType.F32, 2, 9, 7, 4);
        Tensor alone = arena.allocate(DType.F32, 1, 9, 7, 4);
        Tensor seeds = arena.allocate(DType.I64, 2, 2);
        seeds.copyFrom(stream, 1, 2, 3, 4);
        Tensor kept = random(DType.F32, 5);
        Elementwise.fill(stream, kept, 0.3f);
        Noise.addNoise(stream, y, x, null, seeds, 5, kept, ints(1, 2));
        Noise.addNoise(stream, alone, second, null, seeds.slice(0, 1, 2), 5, kept, ints(2));
        assertSame("add_noise", alone, y.slice(0, 1, 2));
        Tensor table = random(DType.F32, 2, Diffusion.FIELDS);
        Tensor output = arena.allocate(DType.F32, 2, 9, 7, 4);
        Elementwise.copy(stream, output, y);
        Elementwise.copy(stream, alone, second);
        step(alone, output.slice(0, 1, 2), seeds.slice(0, 1, 2), table);
        step(x, output, seeds, table);
        Elementwise.copy(stream, y, x);
        assertSame("diffusion_step", alone, y.slice(0, 1, 2));
    }

    private void step(Tensor sample, Tensor output, Tensor seeds, Tensor table) {
        Diffusion.step(stream, new Diffusion.Operands(sample, null, null, ints(0, 0), output, null, null, table, null,
                seeds, null, null, null, Diffusion.LearnedVariance.NONE));
    }

    private void attend(Tensor y, Tensor x, Mask mask) {
        long bytes = Attention.workspaceBytes(stream, x, x);
        Attention.attention(stream, y, null, x, x, x, null, null, 0.125f, mask,
                bytes == 0 ? null : arena.allocate(DType.U8, bytes));
    }

    @Test
    void pages_behind2G() {
        int g = 4;
        int d = 128;
        int p = Attention.PAGE_SIZE;
        long pages = (1L << 31) / (g * p * d) + 2;
        Tensor k = random(DType.BF16, 5, g, d);
        Tensor v = random(DType.BF16, 5, g, d);
        Tensor q = random(DType.BF16, 5, 2 * g, d);
        Tensor near = attendPaged(q, k, v, 1, 0);
        Tensor far = attendPaged(q, k, v, pages, pages - 1);
        assertSame("attention_paged after kv_append", near, far);
    }

    /// Five positions in one page of a cache of `pages`.
    private Tensor attendPaged(Tensor q, Tensor k, Tensor v, long pages, long page) {
        Tensor kPages = arena.allocate(DType.BF16, pages, k.size(1), Attention.PAGE_SIZE, k.size(2));
        Tensor vPages = arena.allocate(DType.BF16, pages, k.size(1), Attention.PAGE_SIZE, k.size(2));
        Tensor table = ints(page).reshape(1, 1);
        Tensor start = ints(0, 5);
        Tensor positions = ints(0, 1, 2, 3, 4);
        Attention.appendKv(stream, kPages, vPages, k, v, table, start, positions);
        Tensor y = arena.allocate(DType.BF16, q.shape());
        long bytes = Attention.pagedWorkspaceBytes(stream, q, table);
        Attention.attentionPaged(stream, y, null, q, kPages, vPages, table, start, positions, 0.1f,
                bytes == 0 ? null : arena.allocate(DType.U8, bytes));
        return y;
    }
}
