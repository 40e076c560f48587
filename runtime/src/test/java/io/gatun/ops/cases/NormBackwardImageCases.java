package io.gatun.ops.cases;

import static io.gatun.ops.cases.Operand.Strides.CONTIGUOUS;
import static io.gatun.ops.cases.Operand.Strides.OUTER;

import io.gatun.ops.ActivationKind;
import io.gatun.ops.Norm;
import io.gatun.ops.cases.NormCases.Channels;
import io.gatun.ops.cases.NormCases.Groups;
import io.gatun.ops.cases.NormCases.Part;
import io.gatun.runtime.DType;
import java.util.Arrays;
import java.util.Map;
import java.util.Set;
import java.util.stream.IntStream;

/// Cases of the gradients of group and batch norm. [Part#WEIGHT] and [Part#BIAS] stand for the parameter and its
/// gradient, [Part#MODULATION] for scale, shift and theirs.
public final class NormBackwardImageCases {
    private NormBackwardImageCases() {}

    /// Gradients of group norm.
    public static OpCase groupNorm(DType dtype, Groups size, ActivationKind activation, Set<Part> parts) {
        Channels layout = size.channels();
        OpCaseBuilder builder = images("groupnorm_backward", dtype, size, activation, parts, size.b(), size.groups());
        if (parts.contains(Part.MODULATION)) {
            for (String name : new String[] {"scale", "shift"}) {
                builder.in(name, dtype, OUTER, Fill.normal(0.5), size.b(), size.c())
                        .out("d" + name, dtype, OUTER, size.b(), size.c());
            }
        }
        return builder
                .workspace((s, t) -> Norm.groupNormBackwardWorkspaceBytes(s, layout.image(t.get("x")), size.groups()))
                .build((s, t) -> Norm.groupNormBackward(s, layout.image(t.get("dx")), t.get("dweight"), t.get("dbias"),
                        t.get("dscale"), t.get("dshift"), layout.image(t.get("dy")), layout.image(t.get("x")),
                        t.get("mean"), t.get("rstd"), t.get("weight"), t.get("bias"), t.get("scale"), t.get("shift"),
                        size.groups(), activation, t.get("workspace")), (in, out, round) -> {
                            begin(out);
                            for (int i = 0; i < size.b() * size.groups(); i++) {
                                group(in, out, round, dtype, elements(size, i), i, activation);
                            }
                            store(out, "dscale", dtype, round);
                            store(out, "dshift", dtype, round);
                        });
    }

    /// Gradients of batch norm.
    public static OpCase batchNorm(DType dtype, Channels layout, int b, int s, int c, ActivationKind activation,
            Set<Part> parts) {
        Groups size = new Groups(layout, b, s, c, c);
        return images("batchnorm_backward", dtype, size, activation, parts, c)
                .workspace((stream, t) -> Norm.batchNormBackwardWorkspaceBytes(stream, layout.image(t.get("x"))))
                .build((stream, t) -> Norm.batchNormBackward(stream, layout.image(t.get("dx")), t.get("dweight"),
                        t.get("dbias"), layout.image(t.get("dy")), layout.image(t.get("x")), t.get("mean"),
                        t.get("rstd"), t.get("weight"), t.get("bias"), activation, t.get("workspace")),
                        (in, out, round) -> {
                            begin(out);
                            for (int k = 0; k < c; k++) {
                                group(in, out, round, dtype, channel(size, k), k, activation);
                            }
                        });
    }

    /// Gradients of the gradient of group norm.
    public static OpCase groupNormDouble(DType dtype, Groups size, Set<Part> parts) {
        Channels layout = size.channels();
        int[] shape = layout.shape(size.b(), size.s(), size.c());
        OpCaseBuilder builder = images("groupnorm_double_backward", dtype, size, ActivationKind.NONE, parts, size.b(),
                size.groups()).out("ddy", dtype, OUTER, shape).in("u", dtype, OUTER, Fill.normal(1), shape)
                .aliasing("ddy", "u");
        return builder
                .workspace((s, t) -> Norm.groupNormDoubleBackwardWorkspaceBytes(s, layout.image(t.get("x")),
                        size.groups()))
                .build((s, t) -> Norm.groupNormDoubleBackward(s, layout.image(t.get("ddy")), layout.image(t.get("dx")),
                        t.get("dweight"), layout.image(t.get("u")), layout.image(t.get("dy")),
                        layout.image(t.get("x")), t.get("mean"), t.get("rstd"), t.get("weight"), size.groups(),
                        t.get("workspace")), (in, out, round) -> {
                            begin(out);
                            for (int i = 0; i < size.b() * size.groups(); i++) {
                                secondOrder(in, out, round, dtype, elements(size, i), i);
                            }
                        });
    }

    private static OpCaseBuilder images(String op, DType dtype, Groups size, ActivationKind activation,
            Set<Part> parts, int... statistics) {
        int[] shape = size.channels().shape(size.b(), size.s(), size.c());
        OpCaseBuilder builder = OpCase.of(op, dtype, "%s %s %s", size, activation, parts)
                .accuracy(Accuracy.GRADIENT)
                .out("dx", dtype, OUTER, shape)
                .in("dy", dtype, OUTER, Fill.normal(1), shape)
                .in("x", dtype, OUTER, Fill.uniform(-1, 4), shape)
                .in("mean", DType.F32, CONTIGUOUS, Fill.uniform(1, 2), statistics)
                .in("rstd", DType.F32, CONTIGUOUS, Fill.uniform(0.3, 1), statistics)
                .aliasing("dx", "dy");
        DType parameters = parts.contains(Part.F32_PARAMETERS) ? DType.F32 : dtype;
        if (parts.contains(Part.WEIGHT)) {
            builder.in("weight", parameters, CONTIGUOUS, Fill.uniform(0.5, 1.5), size.c())
                    .out("dweight", DType.F32, CONTIGUOUS, size.c());
        }
        if (parts.contains(Part.BIAS)) {
            builder.in("bias", parameters, CONTIGUOUS, Fill.normal(1), size.c())
                    .out("dbias", DType.F32, CONTIGUOUS, size.c());
        }
        return builder;
    }

    /// An element of a group: where it lies, its channel, and its place in [B, C].
    private record Element(int at, int channel, int modulation) {}

    /// Of group `i` of all images' groups.
    private static Element[] elements(Groups size, int i) {
        int width = size.c() / size.groups();
        int b = i / size.groups();
        return IntStream.range(0, size.s() * width).mapToObj(k -> {
            int c = i % size.groups() * width + k % width;
            return new Element(size.channels().index(b, k / width, c, size.s(), size.c()), c, b * size.c() + c);
        }).toArray(Element[]::new);
    }

    private static Element[] channel(Groups size, int c) {
        return IntStream.range(0, size.b() * size.s()).mapToObj(k -> new Element(
                size.channels().index(k / size.s(), k % size.s(), c, size.s(), size.c()), c, c))
                .toArray(Element[]::new);
    }

    /// The elements that share statistics number `i`. Sums of f32 for dweight and the like go on where another group
    /// left off.
    private static void group(HostValues in, Map<String, double[]> out, Rounding round, DType dtype, Element[] elements,
            int i, ActivationKind activation) {
        double rstd = in.floats("rstd")[i];
        int n = elements.length;
        double[] g = new double[n];
        double[] h = new double[n];
        double sum = 0;
        double product = 0;
        for (int k = 0; k < n; k++) {
            Element e = elements[k];
            double weight = in.has("weight") ? in.floats("weight")[e.channel] : 1;
            double bias = in.has("bias") ? in.floats("bias")[e.channel] : 0;
            double scale = in.has("scale") ? round.f32(1 + in.floats("scale")[e.modulation]) : 1;
            double shift = in.has("shift") ? in.floats("shift")[e.modulation] : 0;
            h[k] = round.f32(round.f32(in.floats("x")[e.at] - in.floats("mean")[i]) * rstd);
            double affine = round.f32(round.f32(h[k] * weight) + bias);
            double z = round.f32(round.f32(affine * scale) + shift);
            double d = round.f32(in.floats("dy")[e.at] * derivative(z, activation, round));
            double scaled = round.f32(d * scale);
            g[k] = round.f32(scaled * weight);
            sum = round.f32(sum + g[k]);
            product = round.f32(product + round.f32(g[k] * h[k]));
            add(out, "dweight", e.channel, round.f32(scaled * h[k]), round);
            add(out, "dbias", e.channel, scaled, round);
            add(out, "dscale", e.modulation, round.f32(d * affine), round);
            add(out, "dshift", e.modulation, d, round);
        }
        double mean = round.f32(sum / n);
        double meanProduct = round.f32(product / n);
        for (int k = 0; k < n; k++) {
            double centred = round.f32(round.f32(g[k] - mean) - round.f32(h[k] * meanProduct));
            out.get("dx")[elements[k].at] = round.store(dtype, round.f32(centred * rstd));
        }
    }

    private static void secondOrder(HostValues in, Map<String, double[]> out, Rounding round, DType dtype,
            Element[] elements, int i) {
        double rstd = in.floats("rstd")[i];
        int n = elements.length;
        double[] u = new double[n];
        double[] g = new double[n];
        double[] h = new double[n];
        double[] sums = new double[5];
        for (int k = 0; k < n; k++) {
            Element e = elements[k];
            u[k] = in.floats("u")[e.at];
            g[k] = round.f32(in.floats("dy")[e.at] * (in.has("weight") ? in.floats("weight")[e.channel] : 1));
            h[k] = round.f32(round.f32(in.floats("x")[e.at] - in.floats("mean")[i]) * rstd);
            double[] addends = {u[k], u[k] * h[k], g[k], g[k] * h[k], u[k] * g[k]};
            for (int s = 0; s < sums.length; s++) {
                sums[s] = round.f32(sums[s] + round.f32(addends[s]));
            }
        }
        double meanU = round.f32(sums[0] / n);
        double meanUh = round.f32(sums[1] / n);
        double meanG = round.f32(sums[2] / n);
        double meanGh = round.f32(sums[3] / n);
        double factor = round.f32(round.f32(round.f32(sums[4] / n) - round.f32(meanU * meanG))
                - round.f32(meanUh * meanGh));
        for (int k = 0; k < n; k++) {
            Element e = elements[k];
            double projected = round.f32(round.f32(u[k] - meanU) - round.f32(h[k] * meanUh));
            double projectedG = round.f32(round.f32(g[k] - meanG) - round.f32(h[k] * meanGh));
            double j = round.f32(rstd * projected);
            out.get("ddy")[e.at] = round.store(dtype,
                    round.f32(j * (in.has("weight") ? in.floats("weight")[e.channel] : 1)));
            add(out, "dweight", e.channel, round.f32(in.floats("dy")[e.at] * j), round);
            double sum = round.f32(round.f32(round.f32(h[k] * factor) + round.f32(meanGh * projected))
                    + round.f32(meanUh * projectedG));
            out.get("dx")[e.at] = round.store(dtype, round.f32(-round.f32(rstd * rstd) * sum));
        }
    }

    private static double derivative(double z, ActivationKind activation, Rounding round) {
        return switch (activation) {
            case NONE -> 1;
            case SILU -> {
                double s = round.f32(1 / round.f32(1 + round.f32(Math.exp(-z))));
                yield round.f32(s * round.f32(1 + round.f32(z * round.f32(1 - s))));
            }
            case RELU -> z <= 0 ? 0 : 1;
            case TANH -> {
                double t = round.f32(Math.tanh(z));
                yield round.f32(1 - round.f32(t * t));
            }
        };
    }

    private static void add(Map<String, double[]> out, String name, int at, double value, Rounding round) {
        double[] sums = out.get(name);
        if (sums != null) {
            sums[at] = round.f32(sums[at] + value);
        }
    }

    /// Sums begin at 0.
    private static void begin(Map<String, double[]> out) {
        for (String name : new String[] {"dweight", "dbias", "dscale", "dshift"}) {
            if (out.containsKey(name)) {
                Arrays.fill(out.get(name), 0);
            }
        }
    }

    private static void store(Map<String, double[]> out, String name, DType dtype, Rounding round) {
        if (out.containsKey(name)) {
            Arrays.setAll(out.get(name), i -> round.store(dtype, out.get(name)[i]));
        }
    }
}
