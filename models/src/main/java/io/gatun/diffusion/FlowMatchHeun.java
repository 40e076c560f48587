package io.gatun.diffusion;

import static io.gatun.diffusion.Combination.E;
import static io.gatun.diffusion.Combination.X;

/// `FlowMatchHeunDiscreteScheduler`: [Heun]'s two calls a step, one in the last, along a flow's velocity.
final class FlowMatchHeun implements Sampler {
    /// Slots: the sample at the beginning of a step and the velocity there.
    private static final int BEGINNING = 0;
    private static final int VELOCITY = 1;

    private final FlowMatchSigmas flowSigmas;

    FlowMatchHeun(SchedulerConfig config) {
        flowSigmas = new FlowMatchSigmas(config);
    }

    @Override
    public Trajectory trajectory(SamplingOptions options) {
        return flowSigmas.trajectory(options, FlowMatchHeun::step);
    }

    private static void step(Trajectory.Builder builder, Sigmas sigmas, int i) {
        double from = sigmas.at(i);
        double to = sigmas.at(i + 1);
        var call = builder.flowCall(sigmas.timesteps()[i], from);
        call.next(X.plus(E.times(to - from)));
        if (i + 1 < sigmas.steps()) {
            call.keep(BEGINNING, X);
            call.keep(VELOCITY, E);

            var second = builder.flowCall(sigmas.timesteps()[i + 1], to);
            Combination mean = Combination.state(VELOCITY).plus(E).over(2);
            second.next(Combination.state(BEGINNING).plus(mean.times(to - from)));
        }
    }
}
