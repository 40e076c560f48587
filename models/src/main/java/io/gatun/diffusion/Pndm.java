package io.gatun.diffusion;

import static io.gatun.diffusion.Combination.E;
import static io.gatun.diffusion.Combination.X;

import io.gatun.runtime.GatunException;

/// `PNDMScheduler`: a linear multistep method (PLMS) on the model's outputs, begun with three Runge-Kutta steps of four
/// calls each (PRK), or, where these are skipped, with one step that is taken twice. Liu et al. 2022, arXiv 2202.09778.
final class Pndm implements Sampler {
    private static final int ORDER = 4;
    /// Slots: the last outputs, then the sample that a Runge-Kutta step began with, and its outputs so far.
    private static final History OUTPUTS = new History(0, ORDER - 1);
    private static final int BEGINNING = ORDER - 1;
    private static final int SUM = ORDER;

    private final NoiseSchedule schedule;
    private final Prediction prediction;
    private final Spacing spacing;
    private final boolean skipsRungeKutta;
    private final int stepsOffset;
    private final double lastAlpha;

    Pndm(SchedulerConfig config) {
        schedule = NoiseSchedule.of(config, 1e-4, 0.02, NoiseSchedule.Kind.LINEAR);
        prediction = config.choice("prediction_type", Prediction.EPSILON, Prediction.OF_NOISE);
        if (prediction == Prediction.SAMPLE) {
            throw config.wrong("prediction_type", "one of epsilon, v_prediction");
        }
        spacing = config.choice("timestep_spacing", Spacing.LEADING);
        skipsRungeKutta = config.flag("skip_prk_steps", false);
        stepsOffset = config.integer("steps_offset", 0, schedule.steps(), 0);
        lastAlpha = config.flag("set_alpha_to_one", false) ? 1 : schedule.alphasCumprod()[0];
    }

    @Override
    public Trajectory trajectory(SamplingOptions options) {
        int n = options.steps();
        options.requireAtMost(schedule.steps());
        int[] steps = spacing.wholeSteps(schedule.steps(), n, stepsOffset);
        int stride = schedule.steps() / n;
        var builder = new Trajectory.Builder(Limit.NONE).endsAt(Math.sqrt((1 - lastAlpha) / lastAlpha));
        int first = options.firstStep();
        if (skipsRungeKutta) {
            multistepOnly(builder, steps, stride, first);
            return builder.build();
        }
        if (n < ORDER || first > 0) {
            throw GatunException.invalid("PNDM with Runge-Kutta steps: %s, expected %s",
                    first > 0 ? "a strength below 1" : n + " steps",
                    first > 0 ? "1, or skip_prk_steps" : "at least " + ORDER + ", or skip_prk_steps");
        }
        for (int i = 0; i < ORDER - 1; i++) {
            rungeKutta(builder, steps, i, stride);
        }
        for (int i = ORDER - 1; i < n; i++) {
            multistep(builder, steps[i], steps[i] - stride, i, ORDER);
        }
        return builder.build();
    }

    /// The second time step comes twice: its first output only serves to take the first step again.
    private void multistepOnly(Trajectory.Builder builder, int[] steps, int stride, int first) {
        int[] visited = new int[steps.length == 1 ? 1 : steps.length + 1];
        for (int i = 0; i < visited.length; i++) {
            visited[i] = steps[i < 2 ? i : i - 1];
        }
        for (int call = first; call < visited.length; call++) {
            int done = call - first;
            int t = visited[call];
            if (done != 1) {
                int outputs = done == 0 ? 0 : done - 1;
                Trajectory.Call made = multistep(builder, t, t - stride, outputs, Math.min(outputs + 1, ORDER));
                if (done == 0) {
                    made.keep(BEGINNING, X);
                }
                continue;
            }
            var again = call(builder, t);
            Combination mean = E.plus(OUTPUTS.before(1, 1)).over(2);
            again.next(step(Combination.state(BEGINNING), mean, t + stride, t));
        }
    }

    /// A step of the multistep method of an order, whose output is the n-th that is kept.
    private Trajectory.Call multistep(Trajectory.Builder builder, int t, int next, int n, int order) {
        var call = call(builder, t);
        double[] weights = switch (order) {
            case 1 -> new double[] {1};
            case 2 -> new double[] {3.0 / 2, -1.0 / 2};
            case 3 -> new double[] {23.0 / 12, -16.0 / 12, 5.0 / 12};
            default -> new double[] {55.0 / 24, -59.0 / 24, 37.0 / 24, -9.0 / 24};
        };
        Combination output = E.times(weights[0]);
        for (int k = 1; k < order; k++) {
            output = output.plus(OUTPUTS.before(n, k).times(weights[k]));
        }
        call.next(step(X, output, t, next));
        call.keep(OUTPUTS.slot(n), E);
        return call;
    }

    /// Step i in four calls: at its beginning, twice half a stride further, at its end.
    private void rungeKutta(Trajectory.Builder builder, int[] steps, int i, int stride) {
        int begin = steps[i];
        int middle = begin - stride / 2;
        int end = steps[i + 1];
        Combination beginning = Combination.state(BEGINNING);
        Combination sum = Combination.state(SUM);

        var call = call(builder, begin);
        call.next(step(X, E, begin, middle));
        call.keep(OUTPUTS.slot(i), E);
        call.keep(BEGINNING, X);
        call.keep(SUM, E.over(6));

        call = call(builder, halfway(steps, i, stride));
        call.next(step(beginning, E, begin, halfway(steps, i, stride)));
        call.keep(SUM, sum.plus(E.over(3)));

        call = call(builder, halfway(steps, i, stride));
        call.next(step(beginning, E, begin, halfway(steps, i, stride) - stride / 2));
        call.keep(SUM, sum.plus(E.over(3)));

        call = call(builder, end);
        call.next(step(beginning, sum.plus(E.over(6)), begin, end));
    }

    private static int halfway(int[] steps, int i, int stride) {
        return steps[i + 1] + stride / 2;
    }

    private Trajectory.Call call(Trajectory.Builder builder, int t) {
        double a = schedule.alphaCumprod(t, lastAlpha);
        return builder.call(t, Math.sqrt(a), Math.sqrt(1 - a));
    }

    /// Equation 9 of the paper: from x at t to the sample at `next`.
    private Combination step(Combination x, Combination output, int t, int next) {
        double a = schedule.alphaCumprod(t, lastAlpha);
        double to = schedule.alphaCumprod(next, lastAlpha);
        Combination noise = prediction == Prediction.EPSILON ? output
                : output.times(Math.sqrt(a)).plus(x.times(Math.sqrt(1 - a)));
        double denominator = a * Math.sqrt(1 - to) + Math.sqrt(a * (1 - a) * to);
        return x.times(Math.sqrt(to / a)).minus(noise.times((to - a) / denominator));
    }
}
