package io.gatun.train;

import io.gatun.ops.Elementwise;
import io.gatun.ops.Optimizer;
import io.gatun.runtime.GatunException;
import io.gatun.runtime.Stream;
import io.gatun.runtime.Tensor;
import java.util.List;
import org.jspecify.annotations.Nullable;

/// How gradients change parameters: torch's formulas, in f32.
public sealed interface UpdateRule {
    /// Names of the tensors that the rule keeps per parameter, as torch calls them.
    List<String> state();

    /// Starts the kernel that updates all parameters.
    void update(Stream stream, Operands o);

    /// What a rule works on.
    ///
    /// @param low       copy of the values in the model's dtype, [n]; null: the model reads the values
    /// @param state     as [#state] names them, f32 [n] each
    /// @param rates     learning rate of each step, f32 [steps]
    /// @param step      steps done, i32 [1]
    /// @param norm      of all gradients, f32 [1]
    /// @param maxNorm   gradients are scaled down to this norm; infinity: they are not
    /// @param lossScale what the gradients were multiplied by, f32 [1]; null: 1
    record Operands(Parameters parameters, @Nullable Tensor low, List<Tensor> state, Tensor rates, Tensor step,
            Tensor norm, float maxNorm, @Nullable Tensor lossScale) {}

    /// Loshchilov and Hutter 2019, arXiv 1711.05101; with `decoupled` false Adam with L2 regularisation, Kingma and Ba
    /// 2015, arXiv 1412.6980.
    record Adam(float beta1, float beta2, float eps, float weightDecay, boolean decoupled) implements UpdateRule {
        public Adam {
            require("beta1", beta1, 0, 1);
            require("beta2", beta2, 0, 1);
            require("eps", eps, 0, 1);
            require("weight_decay", weightDecay, 0, 1);
        }

        /// AdamW with torch's defaults.
        public static Adam decoupled(float weightDecay) {
            return new Adam(0.9f, 0.999f, 1e-8f, weightDecay, true);
        }

        @Override
        public List<String> state() {
            return List.of("exp_avg", "exp_avg_sq");
        }

        @Override
        public void update(Stream stream, Operands o) {
            Parameters p = o.parameters;
            Optimizer.adamw(stream, p.master(), o.low, p.gradients(), o.state.get(0), o.state.get(1), o.rates, o.step,
                    o.norm, o.maxNorm, o.lossScale, beta1, beta2, eps, weightDecay, p.decayed(), decoupled);
        }
    }

    /// Stochastic gradient descent, with momentum where that is not 0.
    record Sgd(float momentum, boolean nesterov, float weightDecay) implements UpdateRule {
        public Sgd {
            require("momentum", momentum, 0, 1);
            require("weight_decay", weightDecay, 0, 1);
        }

        @Override
        public List<String> state() {
            return momentum == 0 ? List.of() : List.of("momentum_buffer");
        }

        @Override
        public void update(Stream stream, Operands o) {
            Parameters p = o.parameters;
            Optimizer.sgd(stream, p.master(), o.low, p.gradients(), o.state.isEmpty() ? null : o.state.get(0), o.rates,
                    o.step, o.norm, o.maxNorm, o.lossScale, momentum, nesterov, weightDecay, p.decayed());
        }
    }

    /// RMSProp without centring; Hinton 2012.
    record RmsProp(float alpha, float eps, float momentum, float weightDecay) implements UpdateRule {
        public RmsProp {
            require("alpha", alpha, 0, 1);
            require("eps", eps, 0, 1);
            require("momentum", momentum, 0, 1);
            require("weight_decay", weightDecay, 0, 1);
        }

        @Override
        public List<String> state() {
            return momentum == 0 ? List.of("square_avg") : List.of("square_avg", "momentum_buffer");
        }

        @Override
        public void update(Stream stream, Operands o) {
            Parameters p = o.parameters;
            Optimizer.rmsprop(stream, p.master(), o.low, p.gradients(), o.state.get(0),
                    o.state.size() > 1 ? o.state.get(1) : null, o.rates, o.step, o.norm, o.maxNorm, o.lossScale,
                    alpha, eps,
                    momentum, weightDecay, p.decayed());
        }
    }

    /// A rule after which the parameters are cut to `-limit .. limit`: of a WGAN's critic. Arjovsky, Chintala and
    /// Bottou 2017, arXiv 1701.07875.
    record Clipped(UpdateRule rule, float limit) implements UpdateRule {
        public Clipped {
            require("limit", limit, Float.MIN_VALUE, Float.MAX_VALUE);
        }

        @Override
        public List<String> state() {
            return rule.state();
        }

        @Override
        public void update(Stream stream, Operands o) {
            rule.update(stream, o);
            Tensor values = o.parameters.master();
            Elementwise.clamp(stream, values, values, -limit, limit);
            o.parameters.refresh(stream);
        }
    }

    private static void require(String what, float value, float low, float high) {
        if (!(value >= low && value <= high)) {
            throw GatunException.invalid("%s is %s, expected %s to %s", what, value, low, high);
        }
    }
}
