package io.gatun.ops;

import static org.junit.jupiter.api.Assertions.assertArrayEquals;
import static org.junit.jupiter.api.Assertions.assertEquals;
import static org.junit.jupiter.api.Assertions.assertThrows;
import static org.junit.jupiter.api.Assertions.assertTrue;

import io.gatun.ops.Linear.InputNorm;
import io.gatun.ops.Linear.InputNormKind;
import io.gatun.ops.Linear.MlpActivation;
import io.gatun.ops.Linear.Product;
import io.gatun.ops.Linear.WeightLayout;
import io.gatun.ops.cases.HostValues;
import io.gatun.ops.cases.NormLinearCases;
import io.gatun.ops.cases.NormLinearCases.Choice;
import io.gatun.ops.cases.NormLinearCases.Form;
import io.gatun.ops.cases.OpCase;
import io.gatun.ops.cases.Placement;
import io.gatun.ops.cases.TestDevice;
import io.gatun.runtime.DType;
import io.gatun.runtime.Device;
import io.gatun.runtime.DeviceArena;
import io.gatun.runtime.GatunException;
import io.gatun.runtime.Stream;
import io.gatun.runtime.Tensor;
import java.util.ArrayList;
import java.util.List;
import java.util.Map;
import java.util.function.UnaryOperator;
import org.jspecify.annotations.Nullable;
import org.junit.jupiter.api.Tag;
import org.junit.jupiter.api.Test;
import org.junit.jupiter.params.ParameterizedTest;
import org.junit.jupiter.params.provider.EnumSource;

@Tag("device")
class NormLinearTest {
    private static final Choice GPT = new Choice(InputNormKind.LAYER, Form.ONE, WeightLayout.IN_OUT,
            MlpActivation.NONE, DType.BF16, true);
    private static final Choice LLAMA = new Choice(InputNormKind.RMS, Form.GATED, WeightLayout.OUT_IN,
            MlpActivation.SILU, DType.BF16, true);
    private static final Choice QKV = new Choice(InputNormKind.RMS, Form.QKV, WeightLayout.OUT_IN,
            MlpActivation.NONE, DType.BF16, true);

    private static List<Choice> choices(DType yType) {
        List<Choice> all = new ArrayList<>();
        List<MlpActivation> gates = List.of(MlpActivation.SILU, MlpActivation.GELU_ERF, MlpActivation.GELU_TANH,
                MlpActivation.NONE);
        for (InputNormKind norm : InputNormKind.values()) {
            for (Form form : Form.values()) {
                for (WeightLayout layout : WeightLayout.values()) {
                    MlpActivation activation = switch (form) {
                        case ONE -> MlpActivation.values()[norm.ordinal() * 2 + layout.ordinal()];
                        case GATED -> gates.get((norm.ordinal() * 2 + layout.ordinal()) % 4);
                        case QKV -> MlpActivation.NONE;
                    };
                    all.add(new Choice(norm, form, layout, activation, yType, all.size() % 4 != 3));
                }
            }
        }
        return all;
    }

    private static List<Choice> choicesFor(DType dtype, DType yType) {
        List<Choice> all = choices(yType);
        if (dtype != DType.F32) {
            choices(yType).stream().filter(c -> c.layout() == WeightLayout.OUT_IN).map(Choice::f8).forEach(all::add);
        }
        return all;
    }

    /// What lets a decode step take either form: to the bit, aligned and not.
    @ParameterizedTest
    @EnumSource(names = {"F32", "BF16", "F16"})
    void normLinear_sameBitsAsTheOpsOneByOne(DType dtype) {
        for (DType yType : dtype == DType.F32 ? List.of(dtype) : List.of(dtype, DType.F32)) {
            for (Choice choice : choicesFor(dtype, yType)) {
                for (int[] size : new int[][] {{1, 128, 32}, {3, 257, 19}, {2, 1280, 33}, {17, 96, 48}}) {
                    OpCase fused = NormLinearCases.fused(dtype, choice, size[0], size[1], size[2]);
                    OpCase oneByOne = NormLinearCases.oneByOne(dtype, choice, size[0], size[1], size[2]);
                    HostValues actual = OpCheck.run(fused, fused.values(1));
                    HostValues expected = OpCheck.run(oneByOne, oneByOne.values(1));
                    for (String y : choice.form() == Form.QKV ? List.of("q", "k", "v") : List.of("y")) {
                        assertArrayEquals(expected.floats(y), actual.floats(y), fused + ": " + y);
                    }
                    if (actual.has("residual_out")) {
                        assertArrayEquals(expected.floats("residual_out"), actual.floats("residual_out"),
                                fused + ": residual_out");
                    }
                }
            }
        }
    }

    @ParameterizedTest
    @EnumSource(names = {"F32", "BF16", "F16"})
    void normLinear_againstTheReference(DType dtype) {
        for (InputNormKind norm : InputNormKind.values()) {
            for (WeightLayout layout : WeightLayout.values()) {
                MlpActivation activation = layout == WeightLayout.IN_OUT ? MlpActivation.GELU_TANH : MlpActivation.RELU;
                OpCheck.check(NormLinearCases.fused(dtype, new Choice(norm, Form.ONE, layout, activation, dtype, true),
                        3, 127, 33));
                OpCheck.check(NormLinearCases.fused(dtype, new Choice(norm, Form.GATED, layout, MlpActivation.SILU,
                        DType.F32, false), 2, 33, 31));
                OpCheck.check(NormLinearCases.fused(dtype, new Choice(norm, Form.QKV, layout, MlpActivation.NONE, dtype,
                        true), 1, 31, 7));
            }
        }
        OpCheck.check(NormLinearCases.fused(dtype, new Choice(InputNormKind.LAYER, Form.ONE, WeightLayout.OUT_IN,
                MlpActivation.NONE, dtype, true), 0, 5, 7));
        if (dtype != DType.F32) {
            OpCheck.check(NormLinearCases.fused(dtype, GPT.f8().to(dtype), 3, 127, 33));
            OpCheck.check(NormLinearCases.fused(dtype, LLAMA.f8().to(dtype), 2, 128, 31));
            OpCheck.check(NormLinearCases.fused(dtype, QKV.f8().to(DType.F32), 1, 31, 7));
        }
    }

    @Test
    void normLinear_rowAlone() {
        for (Choice choice : List.of(GPT, LLAMA, LLAMA.f8())) {
            OpCheck.rowAlone(NormLinearCases.fused(DType.BF16, choice, 17, 127, 31), "y", "x",
                    "residual", "residual_out");
        }
    }

    /// What [Linear] says of the channels is what the op takes.
    @Test
    void normLinear_mostChannels() {
        for (InputNormKind norm : InputNormKind.values()) {
            int most = norm == InputNormKind.NONE ? Linear.MOST_CHANNELS : Linear.MOST_NORMED_CHANNELS;
            for (Form form : List.of(Form.ONE, Form.QKV)) {
                Choice choice = new Choice(norm, form, WeightLayout.OUT_IN, MlpActivation.NONE, DType.BF16, false);
                OpCase widest = NormLinearCases.fused(DType.BF16, choice, 1, most, 1);
                OpCheck.run(widest, widest.values(1));
                OpCase wider = NormLinearCases.fused(DType.BF16, choice, 1, most + 1, 1);
                GatunException e = assertThrows(GatunException.class, () -> OpCheck.run(wider, wider.values(1)),
                        wider.toString());
                assertEquals(GatunException.Status.INVALID_ARGUMENT, e.status(), wider.toString());
                assertTrue(e.getMessage().contains("x has " + (most + 1) + " columns, expected at most " + most),
                        e.getMessage());
            }
        }
    }

    @Test
    void normLinear_normsOperandsWithoutOne() {
        Choice full = new Choice(InputNormKind.LAYER, Form.ONE, WeightLayout.OUT_IN, MlpActivation.NONE, DType.F32,
                true);
        OpCase opCase = NormLinearCases.fused(DType.F32, full, 2, 5, 3);
        try (Device device = TestDevice.open(2);
                Stream stream = device.newStream();
                DeviceArena arena = device.newArena("NormLinearTest")) {
            Map<String, Tensor> t = new Placement(opCase, arena, stream, 1).tensors();
            Product product = new Product(t.get("y"), t.get("weight"), t.get("bias"));
            for (String name : List.of("residual", "residual_out", "norm_weight", "norm_bias")) {
                UnaryOperator<@Nullable Tensor> only = v -> v == t.get(name) ? v : null;
                InputNorm norm = new InputNorm(InputNormKind.NONE, only.apply(t.get("residual")),
                        only.apply(t.get("residual_out")), only.apply(t.get("norm_weight")),
                        only.apply(t.get("norm_bias")), 0);
                GatunException e = assertThrows(GatunException.class, () -> Linear.normLinear(stream, t.get("x"), norm,
                        product, WeightLayout.OUT_IN, MlpActivation.NONE), name);
                assertTrue(e.getMessage().contains(name + " without a norm, expected NULL"), e.getMessage());
            }
        }
    }

    @Test
    void normLinear_badArguments() {
        for (Choice choice : List.of(GPT, LLAMA, QKV, GPT.f8(), LLAMA.f8(), QKV.f8())) {
            OpCase opCase = NormLinearCases.fused(DType.BF16, choice, 3, 5, 7);
            BadArguments.check(opCase);
            String weight = choice.form() == Form.QKV ? "v_weight" : "weight";
            BadArguments.refuses(opCase, weight, choice.isF8() ? DType.F8_E4M3 : DType.BF16, new int[] {6, 6}, weight);
            BadArguments.refuses(opCase, "norm_weight", DType.F32, new int[] {6}, "norm_weight");
            BadArguments.refuses(opCase, "residual", DType.BF16, new int[] {3, 6}, "residual");
        }
    }
}
