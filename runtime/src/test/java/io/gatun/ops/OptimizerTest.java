package io.gatun.ops;

import static org.junit.jupiter.api.Assertions.assertArrayEquals;
import static org.junit.jupiter.api.Assertions.assertEquals;

import io.gatun.ops.cases.Fill;
import io.gatun.ops.cases.HostValues;
import io.gatun.ops.cases.OpCase;
import io.gatun.ops.cases.OptimizerCases;
import io.gatun.ops.cases.OptimizerCases.Part;
import io.gatun.ops.cases.TestDevice;
import io.gatun.runtime.DType;
import io.gatun.runtime.Device;
import io.gatun.runtime.DeviceArena;
import io.gatun.runtime.Stream;
import io.gatun.runtime.Tensor;
import java.util.EnumSet;
import java.util.List;
import java.util.Set;
import org.junit.jupiter.api.Tag;
import org.junit.jupiter.api.Test;
import org.junit.jupiter.params.ParameterizedTest;
import org.junit.jupiter.params.provider.CsvSource;
import org.junit.jupiter.params.provider.EnumSource;
import org.junit.jupiter.params.provider.ValueSource;

@Tag("device")
class OptimizerTest {
    private static final int[] SIZES = {1, 3, 31, 33, 127, 257, 1000, 0};
    /// Work for two threads.
    private static final int LARGE = 5003;
    private static final float NO_CLIPPING = Float.POSITIVE_INFINITY;
    private static final Set<Part> ALL = EnumSet.of(Part.LOW, Part.SCALED);
    private static final Set<Part> WITH_MOMENTUM = EnumSet.of(Part.LOW, Part.SCALED, Part.MOMENTUM);
    private static final Set<Part> NESTEROV = EnumSet.of(Part.MOMENTUM, Part.NESTEROV);

    @Test
    void adamw_oddSizes() {
        for (int n : SIZES) {
            OpCheck.check(OptimizerCases.adamw(DType.BF16, n, EnumSet.of(Part.LOW, Part.SCALED, Part.DECOUPLED)));
            OpCheck.check(OptimizerCases.adamw(DType.F16, n, ALL));
            OpCheck.check(OptimizerCases.adamw(DType.F32, n, EnumSet.of(Part.DECOUPLED)));
        }
        OpCheck.check(OptimizerCases.adamw(DType.BF16, LARGE, EnumSet.allOf(Part.class)));
    }

    @Test
    void sgd_oddSizes() {
        for (int n : SIZES) {
            OpCheck.check(OptimizerCases.sgd(DType.BF16, n, WITH_MOMENTUM));
            OpCheck.check(OptimizerCases.sgd(DType.F16, n, NESTEROV));
            OpCheck.check(OptimizerCases.sgd(DType.F16, n, ALL));
        }
        OpCheck.check(OptimizerCases.sgd(DType.BF16, LARGE, EnumSet.allOf(Part.class)));
    }

    @Test
    void rmsprop_oddSizes() {
        for (int n : SIZES) {
            OpCheck.check(OptimizerCases.rmsprop(DType.BF16, n, ALL));
            OpCheck.check(OptimizerCases.rmsprop(DType.F16, n, WITH_MOMENTUM));
        }
        OpCheck.check(OptimizerCases.rmsprop(DType.BF16, LARGE, WITH_MOMENTUM));
    }

    @Test
    void gradientNorm_oddSizes() {
        for (int n : SIZES) {
            OpCheck.check(OptimizerCases.gradientNorm(n, n % 2 == 0));
        }
        for (int chunks : new int[] {4096, 4097, 40003}) {
            OpCheck.check(OptimizerCases.gradientNorm(chunks, true));
        }
        OpCheck.check(OptimizerCases.gradientNorm(257, true).with("grad", Fill.normal(1).withSpecials(), "specials"));
    }

    /// Squares that f32 cannot hold.
    @ParameterizedTest
    @ValueSource(doubles = {0x1p-100, 0x1p100})
    void gradientNorm_largeAndSmall(double value) {
        OpCase opCase = OptimizerCases.gradientNorm(64, false).with("grad", Fill.constant(value), "of " + value);
        OpCheck.assertValues(opCase, "norm", OpCheck.run(opCase, opCase.values(1)), 8 * value);
    }

    @ParameterizedTest
    @ValueSource(strings = {"F32", "BF16", "F16"})
    void ema_oddSizes(DType dtype) {
        for (int n : SIZES) {
            OpCheck.check(OptimizerCases.ema(dtype, n, 0.999, 7));
            OpCheck.check(OptimizerCases.ema(dtype, n, 0.999, null));
        }
        OpCheck.check(OptimizerCases.ema(dtype, LARGE, 0.999, 1_000_000));
    }

    /// Four steps of torch 2.13 in f32: clipping to a norm of 2, a rate that stays after the third step, and weight
    /// decay of 0.1 on three of five parameters.
    @ParameterizedTest
    @CsvSource({"adamw, 1.32279754 -0.137133226 -0.122183755 1.96794963 -1.09772217",
        "adam, 1.32215619 -0.16270636 -0.0112134404 1.96410275 -1.08008289",
        "sgd, 1.42901504 -0.118141688 0.00287482841 1.98865604 -1.16089022",
        "nesterov, 1.39595878 -0.0592271984 0.00281390711 1.98049128 -1.22410166",
        "rmsprop, -0.748639464 0.90815717 -0.455897957 1.37817621 -2.25062656"})
    void update_likeTorch(String optimizer, String expected) {
        float[][] gradients = {{0.1f, -2, 1e-4f, 0, 3}, {0.3f, 1, -1e-4f, 0.5f, -3}, {-0.2f, 0.5f, 2e-4f, -0.5f, 1},
            {0.05f, -0.125f, 3e-4f, 0.25f, -0.75f}};
        try (Device device = TestDevice.open(2);
                Stream stream = device.newStream();
                DeviceArena arena = device.newArena("optimizer")) {
            State state = new State(arena, stream, 1.5f, -0.25f, 0.003f, 2, -1);
            state.rates.copyFrom(stream, 0.1f, 0.05f, 0.025f);
            for (float[] gradient : gradients) {
                state.grad.copyFrom(stream, gradient);
                Optimizer.gradientNorm(stream, state.norm, state.grad, null, null);
                state.update(optimizer, 2);
                Optimizer.advance(stream, state.step, state.norm, null, null, 0, 0, 0);
            }
            String[] wanted = expected.split(" ");
            float[] found = state.param.toFloats(stream);
            for (int i = 0; i < found.length; i++) {
                assertEquals(Float.parseFloat(wanted[i]), found[i], 1e-6f * Math.max(1, Math.abs(found[i])),
                        "%s on %s: param[%d]".formatted(optimizer, TestDevice.name(), i));
            }
            assertArrayEquals(new long[] {4}, state.step.toLongs(stream));
        }
    }

    @ParameterizedTest
    @CsvSource({"adamw, NaN", "adam, Infinity", "sgd, NaN", "nesterov, Infinity", "rmsprop, NaN"})
    void update_normNotFinite(String optimizer, float norm) {
        try (Device device = TestDevice.open(2);
                Stream stream = device.newStream();
                DeviceArena arena = device.newArena("optimizer")) {
            State state = new State(arena, stream, 1, 2, 3, 4, 5);
            state.rates.copyFrom(stream, 1f, 1, 1);
            state.grad.copyFrom(stream, 1f, 2, norm, 4, 5);
            state.norm.copyFrom(stream, norm);
            state.update(optimizer, NO_CLIPPING);
            for (Tensor unchanged : List.of(state.m, state.v)) {
                assertArrayEquals(new float[5], unchanged.toFloats(stream), optimizer);
            }
            assertArrayEquals(new float[] {1, 2, 3, 4, 5}, state.param.toFloats(stream), optimizer);
            Optimizer.advance(stream, state.step, state.norm, null, null, 0, 0, 0);
            assertArrayEquals(new long[] {0}, state.step.toLongs(stream), "a step that is skipped does not count");
        }
    }

    /// Doubles after three good steps, halves after a bad one, whichever comes.
    @Test
    void advance_lossScale() {
        try (Device device = TestDevice.open(2);
                Stream stream = device.newStream();
                DeviceArena arena = device.newArena("advance")) {
            Tensor step = arena.allocate(DType.I32, 1);
            Tensor good = arena.allocate(DType.I32, 1);
            Tensor norm = arena.allocate(DType.F32, 1);
            Tensor scale = arena.allocate(DType.F32, 1);
            step.copyFrom(stream, 5);
            good.copyFrom(stream, 0);
            scale.copyFrom(stream, 0x1p126f);
            float[] norms = {1, 2, Float.NaN, 1, 1, 1, Float.POSITIVE_INFINITY, 1, 1, 1, 1, 1, 1};
            double[] scales = {0x1p126, 0x1p126, 0x1p125, 0x1p125, 0x1p125, 0x1p126, 0x1p125, 0x1p125, 0x1p125, 0x1p126,
                0x1p126, 0x1p126, 0x1p127};
            int steps = 5;
            for (int i = 0; i < norms.length; i++) {
                norm.copyFrom(stream, norms[i]);
                Optimizer.advance(stream, step, norm, scale, good, 3, 2, 0.5f);
                steps += Float.isFinite(norms[i]) ? 1 : 0;
                assertEquals(scales[i], scale.toFloats(stream)[0], "scale after call " + i);
                assertEquals(steps, step.toLongs(stream)[0], "step after call " + i);
            }
            good.copyFrom(stream, 2);
            Optimizer.advance(stream, step, null, scale, good, 3, 2, 0.5f);
            assertEquals(0x1p127, scale.toFloats(stream)[0], "a scale that would overflow stays");
        }
    }

    @Test
    void gradientNorm_sameBitsThirtyTimes() {
        OpCase opCase = OptimizerCases.gradientNorm(40003, true);
        HostValues in = opCase.values(3);
        float first = OpCheck.run(opCase, in).floats("norm")[0];
        for (int i = 1; i < 30; i++) {
            assertEquals(first, OpCheck.run(opCase, in).floats("norm")[0], "run " + i);
        }
    }

    @Test
    void update_badArguments() {
        BadArguments.check(OptimizerCases.adamw(DType.BF16, 5, ALL));
        BadArguments.check(OptimizerCases.sgd(DType.BF16, 5, WITH_MOMENTUM));
        BadArguments.check(OptimizerCases.rmsprop(DType.BF16, 5, WITH_MOMENTUM));
        BadArguments.check(OptimizerCases.gradientNorm(5, true));
        BadArguments.check(OptimizerCases.ema(DType.BF16, 5, 0.9, 3));
    }

    @ParameterizedTest
    @EnumSource(names = {"F32", "U8"})
    void adamw_lowInWrongDtype(DType dtype) {
        BadArguments.refuses(OptimizerCases.adamw(DType.BF16, 5, ALL), "low", dtype, new int[] {5}, "low");
    }

    /// Five parameters, of which three decay.
    private static final class State {
        final Stream stream;
        final Tensor param;
        final Tensor grad;
        final Tensor m;
        final Tensor v;
        final Tensor rates;
        final Tensor step;
        final Tensor norm;

        State(DeviceArena arena, Stream stream, float... values) {
            this.stream = stream;
            param = arena.allocate(DType.F32, values.length);
            grad = arena.allocate(DType.F32, values.length);
            m = arena.allocate(DType.F32, values.length);
            v = arena.allocate(DType.F32, values.length);
            rates = arena.allocate(DType.F32, 3);
            step = arena.allocate(DType.I32, 1);
            norm = arena.allocate(DType.F32, 1);
            param.copyFrom(stream, values);
            for (Tensor zeros : List.of(m, v)) {
                zeros.copyFrom(stream, new float[values.length]);
            }
            step.copyFrom(stream, 0);
        }

        void update(String optimizer, float maxNorm) {
            switch (optimizer) {
                case "adamw" -> Optimizer.adamw(stream, param, null, grad, m, v, rates, step, norm, maxNorm, null,
                        0.9, 0.95, 1e-8, 0.1, 3, true);
                case "adam" -> Optimizer.adamw(stream, param, null, grad, m, v, rates, step, norm, maxNorm, null,
                        0.5, 0.999, 1e-8, 0.1, 3, false);
                case "rmsprop" -> Optimizer.rmsprop(stream, param, null, grad, v, m, rates, step, norm, maxNorm,
                        null, 0.99, 1e-8, 0.9, 0.1, 3);
                default -> Optimizer.sgd(stream, param, null, grad, m, rates, step, norm, maxNorm, null, 0.9,
                        optimizer.equals("nesterov"), 0.1, 3);
            }
        }
    }
}
