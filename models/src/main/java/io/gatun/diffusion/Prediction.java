package io.gatun.diffusion;

import java.util.Collections;
import java.util.EnumSet;
import java.util.Set;

/// What a model predicts, as a combination of x and its output e. With `x = alpha x0 + sigma noise`:
enum Prediction {
    /// The noise. Ho, Jain and Abbeel 2020, arXiv 2006.11239.
    EPSILON {
        @Override
        Combination denoised(double alpha, double sigma) {
            return Combination.X.minus(Combination.E.times(sigma)).over(alpha);
        }

        @Override
        Combination noise(double alpha, double sigma) {
            return Combination.E;
        }
    },
    /// The denoised sample itself.
    SAMPLE {
        @Override
        Combination denoised(double alpha, double sigma) {
            return Combination.E;
        }

        @Override
        Combination noise(double alpha, double sigma) {
            return Combination.X.minus(Combination.E.times(alpha)).over(sigma);
        }
    },
    /// `v = alpha noise - sigma x0`. Salimans and Ho 2022, arXiv 2202.00512.
    V_PREDICTION {
        @Override
        Combination denoised(double alpha, double sigma) {
            return Combination.X.times(alpha).minus(Combination.E.times(sigma));
        }

        @Override
        Combination noise(double alpha, double sigma) {
            return Combination.E.times(alpha).plus(Combination.X.times(sigma));
        }
    },
    /// The velocity `noise - x0` of a straight path, `alpha = 1 - sigma`. Lipman et al. 2022, arXiv 2210.02747.
    FLOW_PREDICTION {
        @Override
        Combination denoised(double alpha, double sigma) {
            return Combination.X.minus(Combination.E.times(sigma));
        }

        @Override
        Combination noise(double alpha, double sigma) {
            return Combination.X.plus(Combination.E.times(alpha));
        }
    };

    /// What models of diffusion, not of flow, predict.
    static final Set<Prediction> OF_NOISE = Collections.unmodifiableSet(EnumSet.range(EPSILON, V_PREDICTION));

    /// The predicted x0.
    abstract Combination denoised(double alpha, double sigma);

    /// The predicted noise.
    abstract Combination noise(double alpha, double sigma);

    /// The predicted x0 where `x = x0 + sigma noise`; the model sees `x / sqrt(sigma^2 + 1)`.
    Combination denoisedAt(double sigma) {
        return switch (this) {
            case EPSILON -> Combination.X.minus(Combination.E.times(sigma));
            case SAMPLE -> Combination.E;
            case V_PREDICTION -> Combination.X.over(sigma * sigma + 1)
                    .minus(Combination.E.times(sigma / Math.sqrt(sigma * sigma + 1)));
            case FLOW_PREDICTION -> throw new IllegalArgumentException("a flow has no scaled input");
        };
    }
}
