package io.gatun.diffusion;

import static io.gatun.diffusion.Combination.E;
import static io.gatun.diffusion.Combination.NOISE;
import static io.gatun.diffusion.Combination.X;

/// `FlowMatchEulerDiscreteScheduler`: a step along the velocity `noise - x0` that the model predicts. Lipman et al.
/// 2022, arXiv 2210.02747.
final class FlowMatchEuler implements Sampler {
    private final FlowMatchSigmas flowSigmas;
    private final boolean isStochastic;

    FlowMatchEuler(SchedulerConfig config) {
        flowSigmas = new FlowMatchSigmas(config);
        isStochastic = config.flag("stochastic_sampling", false);
    }

    @Override
    public Trajectory trajectory(SamplingOptions options) {
        return flowSigmas.trajectory(options, this::step);
    }

    private void step(Trajectory.Builder builder, Sigmas sigmas, int i) {
        double from = sigmas.at(i);
        double to = sigmas.at(i + 1);
        var call = builder.flowCall(sigmas.timesteps()[i], from);
        Combination denoised = call.limited(Prediction.FLOW_PREDICTION.denoised(1 - from, from));
        call.next(isStochastic ? denoised.times(1 - to).plus(NOISE.times(to)) : X.plus(E.times(to - from)));
    }
}
