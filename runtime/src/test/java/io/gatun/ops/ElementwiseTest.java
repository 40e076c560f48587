package io.gatun.ops;

import static org.junit.jupiter.api.Assertions.assertArrayEquals;
import static org.junit.jupiter.api.Assertions.assertEquals;
import static org.junit.jupiter.api.Assertions.assertThrows;

import io.gatun.ops.cases.ElementwiseCases;
import io.gatun.ops.cases.ElementwiseCases.Binary;
import io.gatun.ops.cases.ElementwiseCases.Ternary;
import io.gatun.ops.cases.ElementwiseCases.Unary;
import io.gatun.ops.cases.Fill;
import io.gatun.ops.cases.OpCase;
import io.gatun.ops.cases.TestDevice;
import io.gatun.runtime.DType;
import io.gatun.runtime.Device;
import io.gatun.runtime.DeviceArena;
import io.gatun.runtime.GatunException;
import io.gatun.runtime.Stream;
import io.gatun.runtime.Tensor;
import org.junit.jupiter.api.Tag;
import org.junit.jupiter.api.Test;
import org.junit.jupiter.params.ParameterizedTest;
import org.junit.jupiter.params.provider.EnumSource;
import org.junit.jupiter.params.provider.ValueSource;

@Tag("device")
class ElementwiseTest {
    private static final DType[] FLOATS = {DType.F32, DType.BF16, DType.F16};
    private static final int[][] SHAPES = {{1}, {3}, {31}, {33}, {127}, {257}, {1000}, {0}, {3, 5, 7},
        {2, 3, 1, 2, 33}};
    /// Work for two threads.
    private static final int[] LARGE = {37, 1000};

    @ParameterizedTest
    @EnumSource(Unary.class)
    void unary_oddSizes(Unary f) {
        for (DType dtype : FLOATS) {
            for (int[] shape : SHAPES) {
                OpCheck.check(ElementwiseCases.unary(f, dtype, shape));
            }
        }
        OpCheck.check(ElementwiseCases.unary(f, DType.F32, LARGE));
    }

    @ParameterizedTest
    @EnumSource(Binary.class)
    void binary_oddSizes(Binary f) {
        for (DType dtype : FLOATS) {
            for (int[] shape : SHAPES) {
                OpCheck.check(ElementwiseCases.binary(f, dtype, shape));
            }
        }
        OpCheck.check(ElementwiseCases.binary(f, DType.BF16, LARGE));
    }

    @ParameterizedTest
    @EnumSource(Ternary.class)
    void ternary_oddSizes(Ternary f) {
        for (DType dtype : FLOATS) {
            for (int[] shape : SHAPES) {
                OpCheck.check(ElementwiseCases.ternary(f, dtype, shape));
            }
            for (String input : f.inputs()) {
                OpCheck.check(ElementwiseCases.ternary(f, dtype, 3, 33).with(input, Fill.normal(3).withSpecials(),
                        "specials in " + input));
            }
        }
        OpCheck.check(ElementwiseCases.ternary(f, DType.BF16, LARGE));
    }

    @ParameterizedTest
    @EnumSource(Unary.class)
    void unary_specialValues(Unary f) {
        for (DType dtype : FLOATS) {
            OpCheck.check(ElementwiseCases.unary(f, dtype, 3, 33).with("x", Fill.normal(3).withSpecials(), "specials"));
        }
    }

    @ParameterizedTest
    @EnumSource(Binary.class)
    void binary_specialValues(Binary f) {
        for (DType dtype : FLOATS) {
            OpCase opCase = ElementwiseCases.binary(f, dtype, 3, 33);
            OpCheck.check(opCase.with(opCase.operands().get(1).name(), Fill.normal(3).withSpecials(), "specials"));
        }
    }

    @ParameterizedTest
    @EnumSource(names = {"F32", "BF16", "F16"})
    void cast_everyPair(DType from) {
        for (DType to : FLOATS) {
            for (int[] shape : SHAPES) {
                OpCheck.check(ElementwiseCases.cast(from, to, shape));
            }
        }
        OpCheck.check(ElementwiseCases.cast(from, DType.F16, LARGE));
    }

    /// Halfway between two results, just off it, the largest values, the subnormal ones.
    @Test
    void cast_roundsToNearestEven() {
        Fill hard = Fill.values(1 + 0x1p-8, 1 + 0x3p-8, 1 + 0x1p-8 + 0x1p-20, 1 + 0x1p-11, 1 + 0x3p-11, 65519, 65520,
                -65520, 3.3895314e38, 3.4e38, 0x1p-24, 0x1p-25, 0x1.8p-25, 0x1p-14 - 0x1p-26, 1e-40, -1e-45, 0x1p-126);
        OpCheck.check(ElementwiseCases.cast(DType.F32, DType.BF16, 3, 17).with("x", hard, "hard"));
        OpCheck.check(ElementwiseCases.cast(DType.F32, DType.F16, 3, 17).with("x", hard, "hard"));
        OpCheck.check(ElementwiseCases.cast(DType.BF16, DType.F16, 3, 17).with("x", hard, "hard"));
    }

    @ParameterizedTest
    @EnumSource(mode = EnumSource.Mode.EXCLUDE, names = "F8_E4M3")
    void fill_everyDtype(DType dtype) {
        for (int[] shape : SHAPES) {
            OpCheck.check(ElementwiseCases.fill(dtype, dtype == DType.U8 ? 3.7 : -3.7, shape));
        }
        OpCheck.check(ElementwiseCases.fill(dtype, 5, LARGE));
    }

    @ParameterizedTest
    @EnumSource(DType.class)
    void copy_everyDtype(DType dtype) {
        for (int[] shape : SHAPES) {
            OpCheck.check(ElementwiseCases.copy(dtype, shape));
        }
        OpCheck.check(ElementwiseCases.copy(dtype, LARGE));
    }

    @ParameterizedTest
    @EnumSource(names = {"F32", "BF16", "F16"})
    void countNonfinite_oddSizes(DType dtype) {
        for (int[] shape : SHAPES) {
            OpCheck.check(ElementwiseCases.countNonfinite(dtype, shape));
        }
        OpCheck.check(ElementwiseCases.countNonfinite(dtype, LARGE));
    }

    /// An input with stride 0 repeats itself.
    @Test
    void add_broadcastInput() {
        try (Device device = TestDevice.open(2);
                Stream stream = device.newStream();
                DeviceArena arena = device.newArena("broadcast")) {
            Tensor a = arena.allocate(DType.F32, 3, 2);
            Tensor b = arena.allocate(DType.F32, 2);
            a.copyFrom(stream, 1f, 2, 3, 4, 5, 6);
            b.copyFrom(stream, 10f, 20);
            Elementwise.add(stream, a, a, b.strided(new long[] {3, 2}, new long[] {0, 1}));
            assertArrayEquals(new float[] {11, 22, 13, 24, 15, 26}, a.toFloats(stream));
        }
    }

    /// One scale and shift for all tokens of an image.
    @Test
    void modulate_broadcastOverTokens() {
        try (Device device = TestDevice.open(2);
                Stream stream = device.newStream();
                DeviceArena arena = device.newArena("broadcast")) {
            Tensor x = arena.allocate(DType.F32, 2, 2, 3);
            Tensor scale = arena.allocate(DType.F32, 2, 3);
            x.copyFrom(stream, 1f, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12);
            scale.copyFrom(stream, 0f, 1, 2, -1, -2, 3);
            Tensor overTokens = scale.strided(new long[] {2, 2, 3}, new long[] {3, 0, 1});
            Elementwise.modulate(stream, x, x, overTokens, overTokens);
            assertArrayEquals(new float[] {1, 5, 11, 4, 11, 20, -1, -10, 39, -1, -13, 51}, x.toFloats(stream));
        }
    }

    @Test
    void concat_lastDimension() {
        try (Device device = TestDevice.open(2);
                Stream stream = device.newStream();
                DeviceArena arena = device.newArena("concat")) {
            Tensor a = arena.allocate(DType.I32, 2, 1);
            Tensor b = arena.allocate(DType.I32, 2, 2);
            Tensor y = arena.allocate(DType.I32, 2, 3);
            a.copyFrom(stream, 1L, 4);
            b.copyFrom(stream, 2L, 3, 5, 6);
            Elementwise.concat(stream, y, -1, a, b);
            assertArrayEquals(new long[] {1, 2, 3, 4, 5, 6}, y.toLongs(stream));
            GatunException e = assertThrows(GatunException.class, () -> Elementwise.concat(stream, y, -1, b));
            assertEquals(GatunException.Status.INVALID_ARGUMENT, e.status());
        }
    }

    @ParameterizedTest
    @EnumSource(Unary.class)
    void unary_badArguments(Unary f) {
        BadArguments.check(ElementwiseCases.unary(f, DType.BF16, 3, 5));
    }

    @ParameterizedTest
    @EnumSource(Binary.class)
    void binary_badArguments(Binary f) {
        BadArguments.check(ElementwiseCases.binary(f, DType.F32, 3, 5));
    }

    @ParameterizedTest
    @EnumSource(Ternary.class)
    void ternary_badArguments(Ternary f) {
        BadArguments.check(ElementwiseCases.ternary(f, DType.F32, 3, 5));
    }

    @Test
    void cast_badArguments() {
        BadArguments.check(ElementwiseCases.cast(DType.F32, DType.F16, 3, 5));
    }

    @Test
    void copy_badArguments() {
        BadArguments.check(ElementwiseCases.copy(DType.F32, 3, 5));
    }

    @ParameterizedTest
    @ValueSource(strings = {"count", "x"})
    void countNonfinite_badArguments(String operand) {
        OpCase opCase = ElementwiseCases.countNonfinite(DType.F32, 3, 5);
        BadArguments.refuses(opCase, operand, DType.U8, new int[] {1}, operand);
        BadArguments.check(opCase, "x");
    }
}
