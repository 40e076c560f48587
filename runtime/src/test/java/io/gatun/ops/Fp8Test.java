package io.gatun.ops;

import static org.junit.jupiter.api.Assertions.assertEquals;

import io.gatun.ops.cases.Fill;
import io.gatun.ops.cases.Fp8Cases;
import io.gatun.ops.cases.HostValues;
import io.gatun.ops.cases.OpCase;
import io.gatun.ops.cases.Placement;
import io.gatun.ops.cases.TestDevice;
import io.gatun.runtime.DType;
import io.gatun.runtime.Device;
import io.gatun.runtime.DeviceArena;
import io.gatun.runtime.Stream;
import io.gatun.runtime.Tensor;
import java.lang.foreign.MemorySegment;
import org.junit.jupiter.api.Tag;
import org.junit.jupiter.api.Test;
import org.junit.jupiter.params.ParameterizedTest;
import org.junit.jupiter.params.provider.EnumSource;

@Tag("device")
class Fp8Test {
    private static final int[] SIZES = {1, 3, 31, 33, 127, 257, 1000};

    @ParameterizedTest
    @EnumSource(names = {"F32", "BF16", "F16"})
    void quantizeRows_oddSizes(DType dtype) {
        for (int size : SIZES) {
            OpCheck.check(Fp8Cases.quantizeRows(dtype, 3, size));
            OpCheck.check(Fp8Cases.quantizeRows(dtype, size, 33));
        }
        OpCheck.check(Fp8Cases.quantizeRows(dtype, 0, 5));
        OpCheck.check(Fp8Cases.quantizeRows(dtype, 2, 0));
        OpCheck.check(Fp8Cases.quantizeRows(dtype, 2, 2000));
        OpCheck.check(Fp8Cases.quantizeRows(dtype, 2, 17001));
    }

    /// With 448 in front, a row's scale is 1, and each number meets its nearest: all codes, the middles between
    /// neighbours, and the floats around them.
    @Test
    void quantizeRows_everyBoundary() {
        double[] row = new double[1 + 6 * 126];
        row[0] = 448;
        for (int code = 0; code < 126; code++) {
            double middle = (valueOf(code) + valueOf(code + 1)) / 2;
            int at = 1 + 6 * code;
            double sign = code % 2 == 0 ? 1 : -1;
            row[at] = sign * valueOf(code);
            row[at + 1] = sign * middle;
            row[at + 2] = sign * Math.nextUp((float) middle);
            row[at + 3] = sign * Math.nextDown((float) middle);
            row[at + 4] = -sign * middle;
            row[at + 5] = sign * Float.MIN_VALUE;
        }
        OpCase opCase = Fp8Cases.quantizeRows(DType.F32, 1, row.length).with("x", Fill.values(row), "boundaries");
        OpCheck.check(opCase);
        OpCheck.assertValues(opCase, "scale", OpCheck.run(opCase, opCase.values(1)), 1);
    }

    /// The largest magnitude becomes 448 or -448, also where the quotient is rounded up; rows of zeros, of subnormals
    /// and of the largest floats have a scale, too.
    @Test
    void quantizeRows_extremes() {
        for (double size : new double[] {0, 1e-45, 1e-37, 1e-30, 1e-28, 1e-25, 1, 1e30, Float.MAX_VALUE}) {
            OpCheck.check(Fp8Cases.quantizeRows(DType.F32, 33, 65).with("x",
                    (random, i) -> Math.clamp(random.nextGaussian() / 3, -1, 1) * size, "of " + size));
        }
        OpCheck.check(Fp8Cases.quantizeRows(DType.F32, 257, 3).with("x",
                (random, i) -> Math.exp(random.nextGaussian() * 20), "of many sizes"));
    }

    @ParameterizedTest
    @EnumSource(names = {"F32", "BF16", "F16"})
    void quantizeRows_nanAndInf(DType dtype) {
        for (int c : new int[] {33, 1500}) {
            OpCheck.check(Fp8Cases.quantizeRows(dtype, 5, c).with("x", Fill.normal(1).with(c, 2 * c - 1, Double.NaN,
                    Double.NEGATIVE_INFINITY), "a NaN, an inf"));
        }
    }

    @Test
    void quantizeRows_badArguments() {
        OpCase opCase = Fp8Cases.quantizeRows(DType.BF16, 3, 5);
        BadArguments.check(opCase);
        BadArguments.refuses(opCase, "y", DType.F8_E4M3, new int[] {3, 6}, "y");
        BadArguments.refuses(opCase, "scale", DType.F32, new int[] {4}, "scale");
        BadArguments.refuses(opCase, "x", DType.F8_E4M3, new int[] {3, 5}, "x");
    }

    @ParameterizedTest
    @EnumSource(names = {"BF16", "F16", "F8_E4M3"})
    void linear_oddSizes(DType dtype) {
        DType own = dtype == DType.F8_E4M3 ? DType.BF16 : dtype;
        for (int size : SIZES) {
            OpCheck.check(Fp8Cases.linear(dtype, own, null, 1, size, 33));
            OpCheck.check(Fp8Cases.linear(dtype, DType.F32, DType.F32, 3, 33, size));
        }
        for (int n : new int[] {2, 5, 16, 17, 33}) {
            OpCheck.check(Fp8Cases.linear(dtype, own, own, n, 127, 31));
        }
        OpCheck.check(Fp8Cases.linear(dtype, own, DType.F32, 5, 257, 65));
        OpCheck.check(Fp8Cases.linear(dtype, own, null, 7, 2080, 5));
        OpCheck.check(Fp8Cases.linear(dtype, own, own, 0, 5, 7));
        OpCheck.check(Fp8Cases.linear(dtype, own, own, 3, 0, 7));
    }

    @Test
    void linear_e4m3ToF16() {
        OpCheck.check(Fp8Cases.linear(DType.F8_E4M3, DType.F16, DType.F16, 3, 128, 9));
    }

    /// More channels than x has room for as f32.
    @ParameterizedTest
    @EnumSource(names = {"BF16", "F16", "F8_E4M3"})
    void linear_manyChannels(DType dtype) {
        OpCheck.check(Fp8Cases.linear(dtype, DType.F32, null, 9, 8300, 3));
    }

    /// x picks a weight: y is each code's value, to the last bit.
    @ParameterizedTest
    @EnumSource(names = {"BF16", "F16", "F8_E4M3"})
    void linear_everyCode(DType dtype) {
        int c = 16;
        int f = 256;
        OpCase opCase = Fp8Cases.linear(dtype, DType.F32, null, c, c, f).with("x",
                (random, i) -> i % c == i / c ? 1 : 0, "one").with("weight_scale", Fill.constant(1), "1");
        opCase = dtype == DType.F8_E4M3 ? opCase.with("x_scale", Fill.constant(1), "1") : opCase;
        byte[] codes = new byte[f * c];
        for (int i = 0; i < codes.length; i++) {
            codes[i] = (byte) (i / c + 17 * (i % c));
        }
        float[] y;
        try (Device device = TestDevice.open(2);
                Stream stream = device.newStream();
                DeviceArena arena = device.newArena("everyCode")) {
            var tensors = new Placement(opCase, arena, stream, 1).tensors();
            Tensor weight = arena.allocate(DType.F8_E4M3, f, c);
            weight.copyFrom(stream, MemorySegment.ofArray(codes));
            tensors.put("weight", weight);
            opCase.run(stream, tensors);
            y = tensors.get("y").toFloats(stream);
        }
        for (int i = 0; i < y.length; i++) {
            int code = codes[i % f * c + i / f] & 0xff;
            double value = (code & 0x7f) == 0x7f ? 480 : valueOf(code & 0x7f);
            assertEquals(code < 128 || value == 0 ? value : -value, y[i],
                    "%s on %s: code %d".formatted(opCase, TestDevice.name(), code));
        }
    }

    @Test
    void linear_nanStaysInItsRow() {
        OpCheck.check(Fp8Cases.linear(DType.BF16, DType.BF16, null, 3, 33, 31).with("x",
                Fill.normal(1).with(40, 1000, Double.NaN), "a NaN"));
        OpCheck.check(Fp8Cases.linear(DType.F16, DType.F32, null, 3, 33, 31).with("x",
                Fill.normal(1).with(40, 1000, Double.POSITIVE_INFINITY), "an inf"));
        OpCheck.check(Fp8Cases.linear(DType.F8_E4M3, DType.F32, DType.F32, 3, 33, 31).with("x_scale",
                Fill.constant(1).with(1, 1000, Double.NaN), "a scale of NaN"));
    }

    @ParameterizedTest
    @EnumSource(names = {"BF16", "F16", "F8_E4M3"})
    void linear_rowHasTheSameBitsForAnyN(DType dtype) {
        int c = 1283;
        int f = 37;
        Fill sameRows = (random, i) -> Math.sin(i % c) + i % c % 7;
        OpCase alone = same(Fp8Cases.linear(dtype, DType.F32, DType.F32, 1, c, f), sameRows);
        HostValues one = OpCheck.run(alone, alone.values(1));
        for (int n : new int[] {4, 5, 9, 17}) {
            OpCase opCase = same(Fp8Cases.linear(dtype, DType.F32, DType.F32, n, c, f), sameRows);
            HostValues all = OpCheck.run(opCase, opCase.values(1));
            for (int i = 0; i < n * f; i++) {
                assertEquals(one.floats("y")[i % f], all.floats("y")[i],
                        "%s on %s: y[%d, %d], expected as with N = 1".formatted(opCase, TestDevice.name(), i / f,
                                i % f));
            }
        }
    }

    private static OpCase same(OpCase opCase, Fill rows) {
        return opCase.with("x", rows, "").with("x_scale", Fill.constant(0.3), "");
    }

    @Test
    void linear_badArguments() {
        OpCase opCase = Fp8Cases.linear(DType.F8_E4M3, DType.BF16, DType.F32, 3, 5, 7);
        BadArguments.check(opCase);
        BadArguments.refuses(opCase, "x", DType.F32, new int[] {3, 5}, "x");
        BadArguments.refuses(opCase, "x", DType.BF16, new int[] {3, 5}, "x_scale");
        BadArguments.refuses(opCase, "x_scale", DType.F32, new int[] {4}, "x_scale");
        BadArguments.refuses(opCase, "weight", DType.BF16, new int[] {7, 5}, "weight");
        BadArguments.refuses(opCase, "weight", DType.F8_E4M3, new int[] {7, 6}, "weight");
        BadArguments.refuses(opCase, "weight_scale", DType.F32, new int[] {5}, "weight_scale");
        BadArguments.refuses(opCase, "bias", DType.F16, new int[] {7}, "bias");
        OpCase plain = Fp8Cases.linear(DType.BF16, DType.BF16, null, 3, 5, 7);
        BadArguments.refuses(plain, "x", DType.F8_E4M3, new int[] {3, 5}, "x_scale");
        BadArguments.refuses(plain, "y", DType.F16, new int[] {3, 7}, "y");
    }

    /// Of a code below 127.
    private static double valueOf(int code) {
        return code < 8 ? Math.scalb(code, -9) : Math.scalb(8.0 + code % 8, code / 8 - 10);
    }
}
