package io.gatun.runtime;

import static org.junit.jupiter.api.Assertions.assertArrayEquals;
import static org.junit.jupiter.api.Assertions.assertEquals;
import static org.junit.jupiter.api.Assertions.assertFalse;
import static org.junit.jupiter.api.Assertions.assertThrows;
import static org.junit.jupiter.api.Assertions.assertTrue;

import io.gatun.ops.Elementwise;
import java.lang.foreign.MemorySegment;
import java.lang.foreign.ValueLayout;
import java.util.Arrays;
import org.junit.jupiter.api.Test;
import org.junit.jupiter.api.function.Executable;
import org.junit.jupiter.params.ParameterizedTest;
import org.junit.jupiter.params.provider.EnumSource;

class TensorTest extends DeviceFixture {
    private float[] elements(Tensor view) {
        Tensor copy = arena.allocate(view.dtype(), view.shape());
        Elementwise.copy(stream, copy, view);
        return copy.toFloats(stream);
    }

    private static GatunException assertInvalid(Executable call, String... words) {
        GatunException e = assertThrows(GatunException.class, call);
        assertEquals(GatunException.Status.INVALID_ARGUMENT, e.status());
        for (String word : words) {
            assertTrue(e.getMessage().contains(word), "expected '" + word + "' in: " + e.getMessage());
        }
        return e;
    }

    @Test
    void size_negativeDimensionsCountFromTheEnd() {
        Tensor x = counting(2, 3, 5);
        assertEquals(5, x.size(-1));
        assertEquals(2, x.size(-3));
        assertEquals(15, x.stride(0));
        assertEquals(1, x.stride(-1));
        assertEquals(30, x.elements());
        assertEquals("f32[2, 3, 5]", x.toString());
        assertInvalid(() -> x.size(3), "dimension 3", "f32[2, 3, 5]", "-3 to 2");
        assertInvalid(() -> x.stride(-4), "dimension -4");
        assertInvalid(() -> arena.allocate(DType.F32).size(0), "dimension 0");
    }

    @Test
    void shape_isACopy() {
        Tensor x = counting(2, 3);
        x.shape()[0] = 100;
        assertEquals(2, x.size(0));
    }

    @Test
    void slice_takesAPartOfADimension() {
        Tensor x = counting(3, 4);
        assertArrayEquals(new float[] {4, 5, 6, 7, 8, 9, 10, 11}, elements(x.slice(0, 1, 3)));
        assertTrue(x.slice(0, 1, 3).isContiguous());
        assertArrayEquals(new float[] {1, 2, 5, 6, 9, 10}, elements(x.slice(1, 1, 3)));
        assertFalse(x.slice(1, 1, 3).isContiguous());
        assertArrayEquals(new float[] {6}, elements(x.slice(1, 1, 3).slice(0, 1, 2).slice(-1, 1, 2)));
    }

    @Test
    void slice_outside() {
        Tensor x = counting(3, 4);
        assertInvalid(() -> x.slice(0, -1, 2), "slice -1..2", "f32[3, 4]");
        assertInvalid(() -> x.slice(0, 2, 1));
        assertInvalid(() -> x.slice(1, 0, 5), "to <= 4");
        assertInvalid(() -> x.slice(2, 0, 1), "dimension 2");
        assertInvalid(() -> x.slice(0, Long.MAX_VALUE, Long.MIN_VALUE));
    }

    @Test
    void slice_empty() {
        Tensor none = counting(3, 4).slice(1, 2, 2);
        assertEquals(0, none.elements());
        assertTrue(none.isContiguous(), "no element is out of place");
        assertArrayEquals(new float[0], none.toFloats(stream));
        assertArrayEquals(new long[] {0, 7}, none.reshape(0, 7).shape());
    }

    @Test
    void select_dropsTheDimension() {
        Tensor x = counting(2, 3, 2);
        assertArrayEquals(new long[] {2, 2}, x.select(1, 2).shape());
        assertArrayEquals(new float[] {4, 5, 10, 11}, elements(x.select(1, 2)));
        assertArrayEquals(new float[] {11}, x.select(0, 1).select(0, 2).select(0, 1).toFloats(stream));
        assertInvalid(() -> x.select(0, 2));
        assertInvalid(() -> x.select(0, -1));
        assertInvalid(() -> x.select(0, Long.MAX_VALUE));
    }

    @Test
    void reshape_keepsOrder() {
        Tensor x = counting(2, 6);
        assertArrayEquals(x.toFloats(stream), x.reshape(3, 2, 2).toFloats(stream));
        assertEquals(4, x.reshape(3, 2, 2).stride(0));
        assertEquals(0, counting(1).reshape().rank());
        assertInvalid(() -> x.reshape(5), "f32[2, 6]", "[5]");
        assertInvalid(() -> x.reshape(-3, -4));
        assertInvalid(() -> x.reshape(1L << 62, 1L << 62));
        assertInvalid(() -> x.slice(1, 0, 2).reshape(4), "contiguous");
        assertInvalid(() -> x.reshape(1, 1, 1, 1, 1, 12), "rank 6", "at most 5");
    }

    @Test
    void permute_ordersDimensions() {
        Tensor x = counting(2, 3, 2);
        Tensor y = x.permute(2, 0, 1);
        assertArrayEquals(new long[] {2, 2, 3}, y.shape());
        assertArrayEquals(new float[] {0, 2, 4, 6, 8, 10, 1, 3, 5, 7, 9, 11}, elements(y));
        assertArrayEquals(x.toFloats(stream), elements(y.permute(1, 2, 0)));
        assertInvalid(() -> x.permute(0, 1), "each of 0..2 once");
        assertInvalid(() -> x.permute(0, 1, 1));
        assertInvalid(() -> x.permute(0, 1, 3));
        assertInvalid(() -> x.permute(-1, 0, 1));
    }

    @Test
    void strided_staysInside() {
        Tensor x = counting(4, 3);
        assertArrayEquals(new float[] {0, 1, 1, 2, 2, 3}, elements(x.strided(new long[] {3, 2}, new long[] {1, 1})));
        assertArrayEquals(new float[] {0, 0, 0}, elements(x.strided(new long[] {3}, new long[] {0})));
        assertArrayEquals(new float[] {0, 11}, elements(x.strided(new long[] {2}, new long[] {11})));
        assertArrayEquals(new float[] {5, 8}, elements(x.slice(0, 1, 3).slice(1, 2, 3)
                .strided(new long[] {2}, new long[] {3})));
        assertEquals(0, x.strided(new long[] {0, 100}, new long[] {100, 1}).elements());
    }

    @Test
    void strided_leavesTheTensor() {
        Tensor x = counting(4, 3);
        assertInvalid(() -> x.strided(new long[] {2}, new long[] {12}), "leaves f32[4, 3]");
        assertInvalid(() -> x.slice(0, 0, 2).strided(new long[] {7}, new long[] {1}));
        assertInvalid(() -> x.strided(new long[] {2, 2}, new long[] {1}), "leaves");
        assertInvalid(() -> x.strided(new long[] {2}, new long[] {1, 1}), "leaves");
        // The last element lies inside, others do not.
        assertInvalid(() -> x.strided(new long[] {3, 3}, new long[] {-1, 2}));
        assertInvalid(() -> x.strided(new long[] {-1, 3}, new long[] {1, 1}));
        assertInvalid(() -> x.strided(new long[] {5, 5}, new long[] {1L << 62, 1L << 62}));
        assertInvalid(() -> x.strided(new long[] {3, 3}, new long[] {Long.MAX_VALUE, Long.MAX_VALUE}));
        assertInvalid(() -> x.slice(0, 0, 0).strided(new long[] {1}, new long[] {1}));
    }

    @Test
    void frozen_holdsForViews() {
        Tensor x = counting(2, 6);
        assertFalse(x.isFrozen());
        Tensor frozen = x.frozen();
        assertTrue(frozen.slice(0, 0, 1).isFrozen() && frozen.select(0, 0).isFrozen() && frozen.reshape(12).isFrozen()
                && frozen.permute(1, 0).isFrozen() && frozen.strided(new long[] {1}, new long[] {1}).isFrozen());
        assertFalse(x.slice(0, 0, 1).isFrozen());
    }

    @ParameterizedTest
    @EnumSource(names = {"F32", "BF16", "F16"})
    void copyFrom_floatsRoundToNearestEven(DType dtype) {
        Tensor x = arena.allocate(dtype, 6);
        x.copyFrom(stream, 1, -2.5f, Float.NaN, Float.POSITIVE_INFINITY, 0x1.01p0f, 0x1.0010p0f);
        float[] back = x.toFloats(stream);
        assertArrayEquals(new float[] {1, -2.5f, Float.NaN, Float.POSITIVE_INFINITY}, Arrays.copyOf(back, 4));
        // halfway cases of bf16 (8 bits) and f16 (11 bits), ties to even
        assertEquals(dtype == DType.BF16 ? 1f : 0x1.01p0f, back[4]);
        assertEquals(dtype == DType.F32 ? 0x1.0010p0f : 1f, back[5]);
    }

    /// Halfway between 1 and 1.125, and 1.125 and 1.25; between 0 and 2^-9, and 2^-9 and 2^-8; beyond 448.
    @Test
    void copyFrom_floatsBecomeE4m3() {
        Tensor x = arena.allocate(DType.F8_E4M3, 10);
        x.copyFrom(stream, 1, -2.5f, Float.NaN, Float.NEGATIVE_INFINITY, 1.0625f, 1.1875f, 0x1p-10f, 0x3p-10f, 465,
                -0.0f);
        assertArrayEquals(new float[] {1, -2.5f, Float.NaN, -448, 1, 1.25f, 0, 0x1p-8f, 448, -0.0f},
                x.toFloats(stream));
        assertArrayEquals(new byte[] {0x38, (byte) 0xc2, 0x7f, (byte) 0xfe, 0x38, 0x3a, 0, 2, 0x7e, (byte) 0x80},
                x.toBytes(stream).toArray(ValueLayout.JAVA_BYTE));
    }

    @Test
    void copyFrom_integersAndBytes() {
        Tensor ids = arena.allocate(DType.I64, 3);
        ids.copyFrom(stream, 1L << 40, -1L, 0L);
        assertArrayEquals(new long[] {1L << 40, -1, 0}, ids.toLongs(stream));
        Tensor small = arena.allocate(DType.I32, 2);
        small.copyFrom(stream, 7L, -7L);
        assertArrayEquals(new long[] {7, -7}, small.toLongs(stream));
        Tensor bytes = arena.allocate(DType.U8, 2);
        bytes.copyFrom(stream, MemorySegment.ofArray(new byte[] {1, -1}));
        assertArrayEquals(new long[] {1, 255}, bytes.toLongs(stream));
        assertArrayEquals(new byte[] {1, -1}, bytes.toBytes(stream).toArray(ValueLayout.JAVA_BYTE));
    }

    @Test
    void copyFrom_wrongKindOrSize() {
        Tensor x = arena.allocate(DType.F32, 2);
        assertInvalid(() -> x.copyFrom(stream, 1f, 2f, 3f), "12 bytes", "f32[2]", "8 bytes");
        assertInvalid(() -> x.copyFrom(stream, 1L, 2L), "f32");
        assertInvalid(() -> x.toLongs(stream), "f32");
        assertInvalid(() -> arena.allocate(DType.I32, 2).copyFrom(stream, 1f, 2f), "i32");
        assertInvalid(() -> arena.allocate(DType.I32, 2).toFloats(stream), "i32");
        assertThrows(ArithmeticException.class, () -> arena.allocate(DType.I32, 1).copyFrom(stream, 1L << 40));
        Tensor strided = arena.allocate(DType.F32, 2, 2).slice(1, 0, 1);
        assertInvalid(() -> strided.copyFrom(stream, 1f, 2f), "strided", "contiguous");
        assertInvalid(() -> strided.toFloats(stream), "strided", "contiguous");
    }

    @Test
    void on_anotherDevice() {
        Tensor x = counting(2);
        try (Device other = Device.open(device.name()); Stream foreign = other.newStream()) {
            assertInvalid(() -> Elementwise.fill(foreign, x, 1), "f32[2]", "expected operands of one Device");
        }
    }
}
