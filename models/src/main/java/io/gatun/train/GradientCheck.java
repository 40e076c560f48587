package io.gatun.train;

import io.gatun.ops.Elementwise;
import io.gatun.ops.LossKind;
import io.gatun.runtime.DType;
import io.gatun.runtime.Device;
import io.gatun.runtime.DeviceArena;
import io.gatun.runtime.GatunException;
import io.gatun.runtime.Plan;
import io.gatun.runtime.Stream;
import io.gatun.runtime.Tensor;
import java.util.ArrayList;
import java.util.Arrays;
import java.util.LinkedHashSet;
import java.util.List;
import java.util.Locale;
import java.util.Random;
import java.util.Set;
import java.util.function.Function;

/// Are gradients those that central differences give? For a loss of one's own, or any other computation of a trainer's
/// parameters: `sum_i r[i] y[i]` of what it returns, with random r, stands for the loss then.
///
/// ```java
/// GradientCheck.of(trainer, net -> net.silu(net.linear(x, w, null))).requireCorrect();
/// ```
///
/// `(f(v + h) - f(v - h)) / 2h` is computed in f32, but for the sum over the result and the difference, which are f64.
/// A result of many elements is therefore checked more sharply than a loss, of which one f32 is known. Where a
/// difference is off, h is made smaller, as long as rounding stays small: the computation may have kinks, as ReLU has.
public final class GradientCheck {
    /// By what h shrinks, and how often: 64 times in all.
    private static final float SHRINKAGE = 0.25f;
    private static final int SHRINKAGES = 3;
    /// Errors of the computation, in roundings of each element of the result.
    private static final double ROUNDINGS = 8;
    private static final double ROUNDING = 0x1p-24;

    private final Trainer trainer;
    private final Options options;
    private final Plan forward;
    private final Tensor result;
    private final float[] weights;

    /// @param step      h
    /// @param tolerance allowed error, as a share of the largest gradient of the parameter
    /// @param elements  of each parameter that are checked: the one with the largest gradient, others at random
    /// @param seed      of those, and of r
    public record Options(float step, double tolerance, int elements, long seed) {
        public Options {
            if (!(step > 0) || !(tolerance > 0) || elements < 1) {
                throw GatunException.invalid("step %s, tolerance %s, %d elements: expected more than 0 of each", step,
                        tolerance, elements);
            }
        }

        /// 0.01, 0.01, 8 elements.
        public static Options defaults() {
            return new Options(0.01f, 0.01, 8, 0);
        }
    }

    /// A gradient that was checked.
    ///
    /// @param index    in the parameter
    /// @param expected central difference; of several the nearest
    /// @param found    what the backward ops gave
    /// @param allowed  error
    public record Element(String parameter, List<Long> index, double expected, double found, double allowed) {
        /// Also where one of them is no number.
        public boolean isCorrect() {
            return error() <= allowed;
        }

        private double error() {
            return Math.abs(expected - found);
        }

        @Override
        public String toString() {
            return String.format(Locale.ROOT, "%s%s: expected %.6g, found %.6g, allowed error %.2g", parameter, index,
                    expected, found, allowed);
        }
    }

    /// What was checked.
    public record Report(List<Element> elements) {
        public Report {
            elements = List.copyOf(elements);
        }

        public List<Element> wrong() {
            return elements.stream().filter(element -> !element.isCorrect()).toList();
        }

        /// Parameters whose gradient is 0 wherever it was checked, the largest of all included: nothing trains them.
        public List<String> withoutGradient() {
            Set<String> names = new LinkedHashSet<>();
            elements.forEach(element -> names.add(element.parameter));
            elements.stream().filter(element -> element.found != 0).forEach(element -> names.remove(element.parameter));
            return List.copyOf(names);
        }

        /// @throws IllegalStateException when a gradient is wrong; it names parameter, index, expected and found
        public void requireCorrect() {
            if (!wrong().isEmpty()) {
                throw new IllegalStateException(toString());
            }
        }

        @Override
        public String toString() {
            StringBuilder text = new StringBuilder("%d of %d gradients are wrong".formatted(wrong().size(),
                    elements.size()));
            wrong().forEach(element -> text.append(System.lineSeparator()).append("  ").append(element));
            return text.toString();
        }
    }

    private GradientCheck(Trainer trainer, Options options, Plan forward, Tensor result, float[] weights) {
        this.trainer = trainer;
        this.options = options;
        this.forward = forward;
        this.result = result;
        this.weights = weights;
    }

    /// As below, with [Options#defaults].
    public static Report of(Trainer trainer, Function<TapedLayers, Tensor> computation) {
        return of(trainer, computation, Options.defaults());
    }

    /// Checks the gradients by all parameters of a trainer, at their values and those of its inputs. Between steps: the
    /// parameters keep their values, the gradients that were there are lost.
    ///
    /// @param computation as for [Trainer#loss], or one that returns any other float tensor. It is written down several
    ///     times, without dropout
    /// @throws GatunException when the parameters are not f32
    public static Report of(Trainer trainer, Function<TapedLayers, Tensor> computation, Options options) {
        Parameters parameters = trainer.parameters();
        if (parameters.low() != null) {
            throw GatunException.invalid("gradient check of a trainer in %s, expected f32: differences of values that"
                    + " are rounded to so few bits say nothing", parameters.all().getFirst().value().dtype());
        }
        Stream stream = trainer.stream();
        Device device = stream.device();
        Tensor[] result = new Tensor[1];
        try (DeviceArena arena = device.newArena("gradient check"); Plan forward = Plan.of(device, recorder -> {
            TapedLayers net = new TapedLayers(device, stream, recorder, parameters);
            result[0] = net.keep(value(net, computation));
        })) {
            float[] weights = weights(result[0], options.seed);
            Tensor r = arena.allocate(DType.F32, result[0].shape());
            r.copyFrom(stream, weights);
            Elementwise.fill(stream, parameters.gradients(), 0);
            try (Plan backward = Plan.of(device, recorder -> {
                TapedLayers net = new TapedLayers(device, stream, recorder, parameters);
                Tensor value = value(net, computation);
                if (!net.isLoss(value) && !net.isLoss(net.loss(LossKind.LINEAR, value, r, null, 1))) {
                    throw GatunException.invalid("gradient check of %s: no parameter goes into it", value);
                }
                net.backward();
            })) {
                backward.run();
            }
            return new GradientCheck(trainer, options, forward, result[0], weights).run();
        }
    }

    /// A loss, or a contiguous tensor.
    private static Tensor value(TapedLayers net, Function<TapedLayers, Tensor> computation) {
        Tensor value = computation.apply(net);
        return net.isLoss(value) ? value : net.copy(value);
    }

    /// r; 1 for a single number.
    private static float[] weights(Tensor result, long seed) {
        float[] weights = new float[Math.toIntExact(result.elements())];
        Random random = new Random(seed);
        for (int i = 0; i < weights.length; i++) {
            weights[i] = weights.length == 1 ? 1 : (float) random.nextGaussian();
        }
        return weights;
    }

    private Report run() {
        List<Element> elements = new ArrayList<>();
        Random random = new Random(options.seed);
        for (Parameters.Parameter parameter : trainer.parameters().all()) {
            float[] gradient = parameter.gradient().toFloats(trainer.stream());
            float[] values = parameter.master().toFloats(trainer.stream());
            try {
                for (int at : chosen(gradient, random)) {
                    elements.add(checked(parameter, values, gradient, at));
                }
            } finally {
                parameter.master().copyFrom(trainer.stream(), values);
            }
        }
        return new Report(elements);
    }

    private Set<Integer> chosen(float[] gradient, Random random) {
        Set<Integer> chosen = new LinkedHashSet<>();
        chosen.add(largest(gradient));
        while (chosen.size() < Math.min(options.elements, gradient.length)) {
            chosen.add(random.nextInt(gradient.length));
        }
        return chosen;
    }

    /// Where the gradient is largest, or no number.
    private static int largest(float[] gradient) {
        int at = 0;
        for (int i = 1; i < gradient.length; i++) {
            at = Math.abs(gradient[i]) > Math.abs(gradient[at]) || Float.isNaN(gradient[i]) ? i : at;
        }
        return at;
    }

    private Element checked(Parameters.Parameter parameter, float[] values, float[] gradient, int at) {
        double tolerance = options.tolerance * Math.abs(gradient[largest(gradient)]);
        Element nearest = null;
        float step = options.step;
        for (int i = 0; i <= SHRINKAGES; i++) {
            Difference difference = difference(parameter, values, at, step);
            if (nearest != null && difference.rounding > Math.max(tolerance, options.tolerance * nearest.error())) {
                return nearest;
            }
            Element element = new Element(parameter.name(), index(parameter.master().shape(), at), difference.value,
                    gradient[at], tolerance + difference.rounding);
            if (element.isCorrect()) {
                return element;
            }
            nearest = nearest == null || element.error() < nearest.error() ? element : nearest;
            step *= SHRINKAGE;
        }
        return nearest;
    }

    /// @param rounding error that it may have
    private record Difference(double value, double rounding) {}

    private Difference difference(Parameters.Parameter parameter, float[] values, int at, float step) {
        float above = values[at] + step;
        float below = values[at] - step;
        float[] after = computed(parameter, values, at, above);
        float[] before = computed(parameter, values, at, below);
        double sum = 0;
        double squares = 0;
        for (int i = 0; i < weights.length; i++) {
            sum += weights[i] * ((double) after[i] - before[i]);
            squares += Math.pow((double) weights[i] * after[i], 2);
        }
        double width = (double) above - below;
        return new Difference(sum / width, ROUNDINGS * ROUNDING * Math.sqrt(squares) / width);
    }

    private float[] computed(Parameters.Parameter parameter, float[] values, int at, float value) {
        float[] changed = values.clone();
        changed[at] = value;
        parameter.master().copyFrom(trainer.stream(), changed);
        forward.run();
        return result.toFloats(trainer.stream());
    }

    private static List<Long> index(long[] shape, int at) {
        Long[] index = new Long[shape.length];
        long rest = at;
        for (int d = shape.length - 1; d >= 0; d--) {
            index[d] = rest % shape[d];
            rest /= shape[d];
        }
        return Arrays.asList(index);
    }
}
