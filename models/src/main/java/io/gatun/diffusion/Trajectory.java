package io.gatun.diffusion;

import io.gatun.ops.Diffusion;
import io.gatun.ops.Diffusion.Field;
import io.gatun.ops.Diffusion.LearnedVariance;
import io.gatun.runtime.GatunException;
import java.util.ArrayList;
import java.util.List;
import java.util.function.IntToDoubleFunction;

/// One loop of a sampler: for each call of the model the time step, the scale of its input, and the coefficients of
/// [Diffusion#step]. Made by a [Sampler], immutable.
public final class Trajectory {
    private final List<Call> calls;
    private final double initialDeviation;
    private final double finalSigma;
    private final Limit limit;
    private final LearnedVariance learnedVariance;

    private Trajectory(Builder builder) {
        this.calls = List.copyOf(builder.calls);
        this.initialDeviation = builder.initialDeviation;
        this.finalSigma = builder.finalSigma;
        this.limit = builder.limit;
        this.learnedVariance = builder.learnedVariance;
    }

    /// Calls of the model.
    public int calls() {
        return calls.size();
    }

    /// What the model is told in each call.
    public float[] timesteps() {
        float[] timesteps = new float[calls()];
        for (int i = 0; i < timesteps.length; i++) {
            timesteps[i] = (float) calls.get(i).timestep;
        }
        return timesteps;
    }

    /// The deviation of the noise that a loop begins with (`init_noise_sigma`).
    public double initialDeviation() {
        return initialDeviation;
    }

    /// The model's input is this times the sample.
    public double inputScale(int call) {
        return calls.get(call).inputScale;
    }

    /// Of an image in the sample before a call; with its [#noiseLevel] it says what an image with noise looks like
    /// there.
    public double signalLevel(int call) {
        return calls.get(call).signal;
    }

    /// Of standard normal noise in the sample before a call.
    public double noiseLevel(int call) {
        return calls.get(call).noise;
    }

    /// How noisy the sample is before a call, and, at [#calls], where the loop ends: the ratio of noise to signal; of a
    /// flow the share of noise.
    public double sigma(int call) {
        return call == calls() ? finalSigma : calls.get(call).sigma;
    }

    /// The square of the signal's share before a call, where squares of signal and noise add up to 1
    /// (`alphas_cumprod`).
    public double alphaCumprod(int call) {
        double sigma = sigma(call);
        boolean isFlow = call < calls() && calls.get(call).isFlow;
        return isFlow ? (1 - sigma) * (1 - sigma) : 1 / (1 + sigma * sigma);
    }

    /// Whether a call's step adds fresh noise.
    public boolean drawsNoise(int call) {
        return calls.get(call).next.hasNoise();
    }

    /// Recorded noise in the form of [SamplingLoop#noise]: a set for each call, zeros where it draws none.
    ///
    /// @param recorded a set of `size` numbers for each call, or for each that draws noise, in their order
    /// @throws GatunException when there are fewer sets than the calls draw
    public float[] noiseOfCalls(float[] recorded, int size) {
        int sets = recorded.length / size;
        int calls = calls();
        float[] ofCalls = new float[calls * size];
        int next = 0;
        for (int i = 0; i < calls; i++) {
            if (drawsNoise(i)) {
                int set = sets == calls ? i : next++;
                if (set >= sets) {
                    throw GatunException.invalid("noise for %d draws, expected one for each of the %d calls or for"
                            + " those that draw", sets, calls);
                }
                System.arraycopy(recorded, set * size, ofCalls, i * size, size);
            }
        }
        return ofCalls;
    }

    /// Whether any step adds fresh noise.
    public boolean drawsNoise() {
        return calls.stream().anyMatch(call -> call.next.hasNoise());
    }

    /// Slots of state that the steps need.
    public int slots() {
        int slots = 0;
        for (Call call : calls) {
            slots = Math.max(slots, call.next.slots());
            for (int j = 0; j < Diffusion.SLOTS; j++) {
                Combination kept = call.kept[j];
                slots = Math.max(slots, kept == null ? 0 : Math.max(j + 1, kept.slots()));
            }
        }
        return slots;
    }

    /// The ratio of [Diffusion#statistics]; 0: no threshold.
    public float thresholdRatio() {
        return (float) limit.ratio();
    }

    /// The largest threshold.
    public float largestThreshold() {
        return (float) limit.largest();
    }

    /// What the model's second half of channels is used for.
    public LearnedVariance learnedVariance() {
        return learnedVariance;
    }

    /// [calls, FIELDS]: the table of [Diffusion#step].
    ///
    /// @param guidance w of each call; used where the model runs on 2 B images
    /// @param rescale  phi of each call, 0: the guided output keeps its deviation
    public float[] table(IntToDoubleFunction guidance, IntToDoubleFunction rescale) {
        float[] table = new float[calls() * Diffusion.FIELDS];
        for (int i = 0; i < calls(); i++) {
            int at = i * Diffusion.FIELDS;
            Call call = calls.get(i);
            table[at + Field.GUIDANCE] = (float) guidance.applyAsDouble(i);
            table[at + Field.RESCALE] = (float) rescale.applyAsDouble(i);
            table[at + Field.DENOISED_X] = (float) call.denoised.of(0);
            table[at + Field.DENOISED_OUTPUT] = (float) call.denoised.of(1);
            table[at + Field.CLIP] = (float) limit.clip();
            table[at + Field.INPUT] = (float) call.inputScale;
            table[at + Field.MIN_LOG] = (float) call.minLog;
            table[at + Field.MAX_LOG] = (float) call.maxLog;
            boolean isLast = i == calls() - 1;
            table[at + Field.KNOWN] = isLast ? 1 : (float) calls.get(i + 1).signal;
            table[at + Field.KNOWN_NOISE] = isLast ? 0 : (float) calls.get(i + 1).noise;
            put(table, at + Field.UPDATE, call.next);
            for (int j = 0; j < Diffusion.SLOTS; j++) {
                Combination kept = call.kept[j];
                put(table, at + Field.UPDATE + (1 + j) * Diffusion.SOURCES, kept == null ? Combination.ZERO : kept);
            }
        }
        return table;
    }

    private static void put(float[] table, int at, Combination combination) {
        for (int s = 0; s < Diffusion.SOURCES; s++) {
            table[at + s] = (float) combination.of(s);
        }
    }

    /// One call of the model and what becomes of the sample.
    static final class Call {
        private final double timestep;
        private final double inputScale;
        private final double signal;
        private final double noise;
        private final double sigma;
        private final boolean isFlow;
        private final Limit limit;
        private final Combination[] kept = new Combination[Diffusion.SLOTS];
        private Combination denoised = Combination.ZERO;
        private Combination next = Combination.X;
        private double minLog;
        private double maxLog;

        private Call(double timestep, double inputScale, double signal, double noise, boolean isFlow, Limit limit) {
            this.timestep = timestep;
            this.inputScale = inputScale;
            this.signal = signal;
            this.noise = noise;
            this.sigma = isFlow ? noise : noise / signal;
            this.isFlow = isFlow;
            this.limit = limit;
        }

        /// The denoised sample kept in range: the source d where there is a limit; else the combination itself, in
        /// which terms that cancel on paper cancel exactly.
        Combination limited(Combination denoisedSample) {
            denoised = denoisedSample;
            return limit.isNone() ? denoisedSample : Combination.D;
        }

        /// The sample after this call.
        void next(Combination sample) {
            next = sample;
        }

        /// What slot j holds after this call; all targets see the slots as they were before.
        void keep(int j, Combination value) {
            kept[j] = value;
        }

        /// Logarithms of the smallest and the largest variance, for [LearnedVariance#RANGE].
        void variances(double min, double max) {
            minLog = Math.log(min);
            maxLog = Math.log(max);
        }
    }

    /// Collects calls in their order.
    static final class Builder {
        private final List<Call> calls = new ArrayList<>();
        private final Limit limit;
        private double initialDeviation = 1;
        private double finalSigma;
        private LearnedVariance learnedVariance = LearnedVariance.NONE;

        Builder(Limit limit) {
            this.limit = limit;
        }

        Builder initialDeviation(double value) {
            initialDeviation = value;
            return this;
        }

        /// Where the loop ends, if not at an image without noise.
        Builder endsAt(double sigma) {
            finalSigma = sigma;
            return this;
        }

        Builder learnedVariance(LearnedVariance value) {
            learnedVariance = value;
            return this;
        }

        /// A call where `x = signal x0 + noise n`, and the model sees x itself.
        Call call(double timestep, double signal, double noise) {
            return add(new Call(timestep, 1, signal, noise, false, limit));
        }

        /// A call where `x = (1 - sigma) x0 + sigma n`, and the model sees x itself.
        Call flowCall(double timestep, double sigma) {
            return add(new Call(timestep, 1, 1 - sigma, sigma, true, limit));
        }

        /// A call where `x = x0 + sigma n`, and the model sees `x / sqrt(sigma^2 + 1)`.
        Call scaledCall(double timestep, double sigma) {
            return scaledCall(timestep, sigma, 1);
        }

        /// A call where `x = x0 + sigma n`, and the model sees `x / sqrt(sigma^2 + data^2)`.
        Call scaledCall(double timestep, double sigma, double data) {
            return add(new Call(timestep, 1 / Math.sqrt(sigma * sigma + data * data), 1, sigma, false, limit));
        }

        private Call add(Call call) {
            calls.add(call);
            return call;
        }

        Trajectory build() {
            return new Trajectory(this);
        }
    }
}
