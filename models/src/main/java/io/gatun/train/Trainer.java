package io.gatun.train;

import io.gatun.ops.Elementwise;
import io.gatun.ops.Optimizer;
import io.gatun.runtime.DType;
import io.gatun.runtime.Device;
import io.gatun.runtime.DeviceArena;
import io.gatun.runtime.GatunException;
import io.gatun.runtime.Graph;
import io.gatun.runtime.Plan;
import io.gatun.runtime.Stream;
import io.gatun.runtime.Tensor;
import java.util.ArrayList;
import java.util.Collections;
import java.util.LinkedHashMap;
import java.util.List;
import java.util.Map;
import java.util.function.Function;
import org.jspecify.annotations.Nullable;

/// Trains parameters: forward, backward and update are written down once and run as one plan per step, on a device that
/// prefers graphs as one graph.
///
/// ```java
/// List<Shape> shapes = List.of(new Shape("w", new long[] {1, 3}, true), new Shape("b", new long[] {1}, false));
/// try (Device device = Device.open("auto"); Trainer trainer = new Trainer(device, shapes, Adam.decoupled(0), 0.1f)) {
///     Map<String, Tensor> p = trainer.parameters().weights();
///     Tensor x = trainer.input(DType.F32, 64, 3);
///     Tensor t = trainer.input(DType.F32, 64, 1);
///     trainer.loss(net -> net.meanSquaredError(net.linear(x, p.get("w"), p.get("b")), t));
///     for (...) {
///         x.copyFrom(trainer.stream(), ...);
///         t.copyFrom(trainer.stream(), ...);
///         trainer.step();
///     }
///     System.out.println(trainer.result().loss());
/// }
/// ```
///
/// One thread at a time. `close()` twice is fine.
public final class Trainer implements AutoCloseable {
    private static final float INITIAL_SCALE = 65536; // torch's GradScaler
    private static final int GROWTH_INTERVAL = 2000;  // steps, likewise

    private final Device device;
    private final long freeBytes;
    private final Stream stream;
    private final boolean ownsStream;
    private final DeviceArena arena;
    private final Options options;
    private final UpdateRule rule;
    private final Parameters parameters;
    private final List<Tensor> state = new ArrayList<>();
    private final Tensor rates;
    private final Tensor step;
    /// Passes so far, which tell the draws of dropout apart.
    private final Tensor draws;
    private final Tensor figures;
    private final Tensor loss;
    private final Tensor norm;
    private final @Nullable Tensor lossScale;
    private final @Nullable Tensor goodSteps;
    private final @Nullable Tensor average;
    /// Views are made once: each keeps a descriptor until the trainer is closed.
    private final Map<String, Tensor> stateViews = new LinkedHashMap<>();
    private final Map<String, Tensor> averageViews = new LinkedHashMap<>();
    private @Nullable Step pass;
    private @Nullable Step update;
    private int passes;

    /// @param dtype         what the model computes in; f16 with a loss scale that adapts itself
    /// @param maxNorm       gradients are scaled down to this norm; 0: they are not
    /// @param accumulation  passes whose mean gradient makes one step
    /// @param averageDecay  of an exponential moving average of the parameters; 0: none is kept
    /// @param recomputes    whether values inside blocks are computed again for the gradients rather than kept
    /// @param dropout       probability of each element, where the network has dropouts
    /// @param seed          of dropout
    public record Options(DType dtype, float maxNorm, int accumulation, float averageDecay, boolean recomputes,
            float dropout, long seed) {
        public Options {
            if (!(dropout >= 0 && dropout < 1)) {
                throw GatunException.invalid("dropout is %s, expected 0 to less than 1", dropout);
            }
            if (!dtype.isFloat() || !(maxNorm >= 0) || accumulation < 1 || !(averageDecay >= 0 && averageDecay < 1)) {
                throw GatunException.invalid("dtype %s, max_grad_norm %s, gradient_accumulation %d,"
                        + " ema_decay %s: expected"
                        + " a float dtype, 0 or more, 1 or more, 0 to less than 1", dtype, maxNorm, accumulation,
                        averageDecay);
            }
        }

        /// f32, no clipping, one pass a step, no average.
        public static Options defaults() {
            return new Options(DType.F32, 0, 1, 0, false, 0, 0);
        }
    }

    /// What a step found.
    ///
    /// @param loss mean over the step's passes
    /// @param norm of all gradients, before they were scaled down
    public record Result(float loss, float norm) {}

    /// A trainer with [Options#defaults].
    ///
    /// @param rate learning rate of all steps
    public Trainer(Device device, List<Parameters.Shape> shapes, UpdateRule rule, float rate) {
        this(device, shapes, rule, new float[] {rate}, Options.defaults());
    }

    /// @param rates learning rate of each step; beyond its end the last holds
    public Trainer(Device device, List<Parameters.Shape> shapes, UpdateRule rule, float[] rates, Options options) {
        this(device, null, shapes, rule, rates, options);
    }

    /// A trainer whose work goes to a stream of the caller's, in order with that of others.
    ///
    /// @param given to be closed after the trainer; null: the trainer has its own
    Trainer(Device device, @Nullable Stream given, List<Parameters.Shape> shapes, UpdateRule rule, float[] rates,
            Options options) {
        if (rates.length == 0) {
            throw GatunException.invalid("no learning rates: expected one per step");
        }
        this.device = device;
        this.freeBytes = device.memoryFree() + device.counters().snapshot().allocatedBytes();
        this.options = options;
        this.rule = rule;
        this.stream = given == null ? device.newStream() : given;
        this.ownsStream = given == null;
        this.arena = device.newArena("trainer");
        try {
            this.parameters = new Parameters(arena, stream, options.dtype, shapes);
            parameters.accumulates(options.accumulation > 1);
            long n = parameters.master().elements();
            for (int i = 0; i < rule.state().size(); i++) {
                state.add(cleared(DType.F32, n));
            }
            this.rates = arena.allocate(DType.F32, rates.length);
            this.rates.copyFrom(stream, rates);
            this.step = cleared(DType.I32, 1);
            this.draws = cleared(DType.I32, 1);
            this.figures = cleared(DType.F32, 2);
            this.loss = figures.slice(0, 0, 1);
            this.norm = figures.slice(0, 1, 2);
            boolean scales = options.dtype == DType.F16;
            this.lossScale = scales ? arena.allocate(DType.F32, 1) : null;
            this.goodSteps = scales ? cleared(DType.I32, 1) : null;
            if (lossScale != null) {
                lossScale.copyFrom(stream, INITIAL_SCALE);
            }
            this.average = options.averageDecay > 0 ? cleared(DType.F32, n) : null;
        } catch (RuntimeException e) {
            close();
            throw e;
        }
    }

    private Tensor cleared(DType dtype, long n) {
        Tensor tensor = arena.allocate(dtype, n);
        Elementwise.fill(stream, tensor, 0);
        return tensor;
    }

    public Stream stream() {
        return stream;
    }

    /// Memory that ends with the trainer, for tables of the model.
    public DeviceArena arena() {
        return arena;
    }

    public Parameters parameters() {
        return parameters;
    }

    /// A tensor for a part of the batch, to be filled before each pass.
    public Tensor input(DType dtype, long... shape) {
        return arena.allocate(dtype, shape);
    }

    /// Sets values by name; parameters that are not named stay as they are.
    public void set(Map<String, float[]> values) {
        values.forEach((name, v) -> parameters.get(name).master().copyFrom(stream, v));
        refresh();
    }

    /// To be called when f32 values of parameters were changed from outside: rewrites what is derived from them.
    public void refresh() {
        parameters.refresh(stream);
        if (average != null) {
            Elementwise.copy(stream, average, parameters.master());
        }
    }

    /// Sets the state of a checkpoint.
    ///
    /// @param values writes the f32 values of the parameters and the tensors of [#state]
    public void restore(Runnable values) {
        values.run();
        parameters.refresh(stream);
        passes = 0;
    }

    /// What a pass computes. The function is called when the plan is made, twice.
    ///
    /// @param forward writes the forward computation down and returns the loss, f32 [1]
    public void loss(Function<TapedLayers, Tensor> forward) {
        boolean several = options.accumulation > 1;
        closeSteps();
        pass = new Step(Plan.of(device, recorder -> {
            Tensor scale = gradientScale(recorder);
            TapedLayers net = new TapedLayers(device, stream, recorder, parameters, options.recomputes, scale);
            net.dropOut(new TapedLayers.Dropout(options.dropout, options.seed, draws));
            Tensor value = forward.apply(net);
            if (!net.isLoss(value)) {
                throw GatunException.invalid("the trained function returned %s, expected a loss of its layers", value);
            }
            net.backward();
            float share = 1f / options.accumulation;
            Tensor part = recorder.allocate(DType.F32, 1);
            recorder.op(() -> Elementwise.scale(stream, part, value, share), part, value);
            recorder.op(() -> {
                if (several) {
                    Elementwise.add(stream, loss, loss, part);
                } else {
                    Elementwise.copy(stream, loss, part);
                }
            }, part);
            recorder.op(() -> Optimizer.advance(stream, draws, null, null, null, GROWTH_INTERVAL, 1, 1));
            if (!several) {
                recordUpdate(recorder);
            }
        }));
        if (several) {
            update = new Step(Plan.of(device, this::recordUpdate));
        }
    }

    /// What the loss's gradient is multiplied by; null: 1.
    private @Nullable Tensor gradientScale(Plan.Recorder recorder) {
        if (options.accumulation == 1) {
            return lossScale;
        }
        Tensor scale = recorder.allocate(DType.F32, 1);
        float share = 1f / options.accumulation;
        recorder.op(() -> {
            if (lossScale == null) {
                Elementwise.fill(stream, scale, share);
            } else {
                Elementwise.scale(stream, scale, lossScale, share);
            }
        }, scale);
        return scale;
    }

    private void recordUpdate(Plan.Recorder recorder) {
        Tensor gradients = parameters.gradients();
        long bytes = Optimizer.gradientNormWorkspaceBytes(stream, gradients);
        Tensor scratch = bytes == 0 ? null : recorder.allocate(DType.U8, bytes);
        recorder.op(() -> Optimizer.gradientNorm(stream, norm, gradients, lossScale, scratch), scratch);
        UpdateRule.Operands operands = new UpdateRule.Operands(parameters, parameters.low(), state, rates, step, norm,
                options.maxNorm == 0 ? Float.POSITIVE_INFINITY : options.maxNorm, lossScale);
        recorder.op(() -> rule.update(stream, operands));
        if (average != null) {
            recorder.op(() -> Optimizer.ema(stream, average, parameters.master(), options.averageDecay, step));
        }
        recorder.op(() -> Optimizer.advance(stream, step, norm, lossScale, goodSteps, GROWTH_INTERVAL, 2, 0.5f));
        if (options.accumulation > 1) {
            recorder.op(() -> Elementwise.fill(stream, gradients, 0));
        }
    }

    /// Bytes of the temporaries of a pass.
    public long passBytes() {
        return require(pass).plan.bytes();
    }

    /// Bytes that the device had for all of us when this trainer was made.
    long freeBytes() {
        return freeBytes;
    }

    /// Bytes of what the update rule keeps, and of the average.
    long stateBytes() {
        return parameters.master().elements() * Float.BYTES * (state.size() + (average == null ? 0 : 1));
    }

    /// One pass over the batch that the inputs hold. Where several make a step, the last of them updates the
    /// parameters.
    ///
    /// @return whether the parameters were updated
    public boolean step() {
        Step first = require(pass);
        if (passes == 0 && options.accumulation > 1) {
            Elementwise.fill(stream, loss, 0);
        }
        first.run();
        passes++;
        if (passes < options.accumulation) {
            return false;
        }
        passes = 0;
        if (update != null) {
            update.run();
        }
        return true;
    }

    private static Step require(@Nullable Step step) {
        if (step == null) {
            throw new IllegalStateException("trainer: no loss was given");
        }
        return step;
    }

    /// What the last step found: waits for it.
    public Result result() {
        float[] values = figures.toFloats(stream);
        return new Result(values[0], values[1]);
    }

    /// Steps that updated the parameters.
    public long steps() {
        return step.toLongs(stream)[0];
    }

    /// What a checkpoint holds beside the parameters, to go on from it bit for bit: the rule's tensors by name and
    /// parameter, the number of steps, the loss scale, the average. Views of the trainer's memory.
    public Map<String, Tensor> state() {
        Map<String, Tensor> all = stateViews;
        if (!all.isEmpty()) {
            return Collections.unmodifiableMap(all);
        }
        for (int i = 0; i < state.size(); i++) {
            addParts(all, rule.state().get(i), state.get(i));
        }
        if (average != null) {
            addParts(all, "average", average);
        }
        all.put("step", step);
        all.put("draws", draws);
        if (lossScale != null && goodSteps != null) {
            all.put("loss_scale", lossScale);
            all.put("good_steps", goodSteps);
        }
        return Collections.unmodifiableMap(all);
    }

    /// The moving average of the parameters by name, f32.
    public Map<String, Tensor> averages() {
        if (average != null && averageViews.isEmpty()) {
            for (Parameters.Parameter p : parameters.all()) {
                averageViews.put(p.name(), p.master().sameViewOf(average));
            }
        }
        return Collections.unmodifiableMap(averageViews);
    }

    private void addParts(Map<String, Tensor> all, String what, Tensor slab) {
        for (Parameters.Parameter p : parameters.all()) {
            all.put(what + "." + p.name(), p.master().sameViewOf(slab));
        }
    }

    /// A plan, and its graph once it has run.
    private final class Step implements AutoCloseable {
        private final Plan plan;
        private @Nullable Graph graph;
        private boolean ran;

        Step(Plan plan) {
            this.plan = plan;
        }

        /// The first run is no graph: a capture must find every kernel loaded and every algorithm chosen.
        void run() {
            if (!device.prefersGraphs() || !ran) {
                plan.run();
                ran = true;
                return;
            }
            Graph captured = graph;
            if (captured == null) {
                captured = device.capture(stream, plan::run);
                graph = captured;
            }
            captured.launch();
        }

        @Override
        public void close() {
            Graph captured = graph;
            try (plan; captured) {
                graph = null;
            }
        }
    }

    private void closeSteps() {
        Step first = pass;
        Step second = update;
        pass = null;
        update = null;
        try (first; second) {
            passes = 0;
        }
    }

    @Override
    public void close() {
        Stream own = ownsStream ? stream : null;
        try (own; arena) {
            closeSteps();
        }
    }
}
