package io.gatun.train;

import io.gatun.runtime.DType;
import io.gatun.runtime.GatunException;
import io.gatun.train.LearningRates.Schedule;

/// What the recipes of all tasks have in common, under the names of Hugging Face's Trainer and of diffusers' scripts.
///
/// @param seed                      of weights, data order, dropout and noise
/// @param maxSteps                  updates of the weights; 0 where epochs are given
/// @param numTrainEpochs            times the data are gone through; 0 where steps are given
/// @param trainBatchSize            examples of one forward and backward pass
/// @param gradientAccumulationSteps passes of one update
/// @param optimizer                 how weights are updated
/// @param lrScheduler               how the learning rate goes
/// @param maxGradNorm               gradients are scaled down to this norm; 0: not at all
/// @param emaDecay                  of the average of the weights that is saved beside them; 0: none
/// @param dtype                     of activations; weights are kept in f32
/// @param exportDtype               of the weights that a model directory is written with
/// @param dropout                   share of activations that are dropped
/// @param gradientCheckpointing     whether blocks are computed again in the backward pass instead of kept
/// @param loggingSteps              steps between two lines of the log
/// @param evalSteps                 steps between two evaluations; 0: at the end alone
/// @param saveSteps                 steps between two checkpoints; 0: at the end alone
/// @param sampleSteps               steps between two samples; 0: none
/// @param saveTotalLimit            checkpoints that are kept
public record TrainingSettings(long seed, int maxSteps, int numTrainEpochs, int trainBatchSize,
        int gradientAccumulationSteps, Optimizer optimizer, LrScheduler lrScheduler, double maxGradNorm,
        double emaDecay, DType dtype, DType exportDtype, double dropout, boolean gradientCheckpointing,
        int loggingSteps, int evalSteps, int saveSteps, int sampleSteps, int saveTotalLimit) {
    /// Which update.
    public enum OptimizerName {
        ADAMW, ADAM, SGD, RMSPROP
    }

    /// Hyperparameters as in torch.optim; those that an optimizer does not have are 0.
    ///
    /// @param beta1       of Adam's mean of gradients
    /// @param beta2       of Adam's mean of squared gradients
    /// @param eps         of Adam and RMSProp
    /// @param weightDecay of AdamW decoupled, of the others added to the gradient
    /// @param momentum    of SGD and RMSProp
    /// @param nesterov    whether SGD looks ahead
    /// @param alpha       of RMSProp's mean of squared gradients
    public record Optimizer(OptimizerName name, double learningRate, double beta1, double beta2, double eps,
            double weightDecay, double momentum, boolean nesterov, double alpha) {}

    /// @param warmupSteps of a rate that rises from 0
    /// @param minLr where a cosine ends
    public record LrScheduler(Schedule name, int warmupSteps, double minLr) {}

    /// Updates of the whole run.
    ///
    /// @param batchesPerEpoch full batches of `trainBatchSize` in the data
    /// @throws GatunException when they do not make one update
    public int steps(int batchesPerEpoch) {
        if (maxSteps > 0) {
            return maxSteps;
        }
        long steps = (long) numTrainEpochs * batchesPerEpoch / gradientAccumulationSteps;
        if (steps < 1 || steps > Integer.MAX_VALUE) {
            throw GatunException.invalid("%d epochs of %d batches make %d updates of %d batches, expected 1 to"
                    + " 2^31 - 1", numTrainEpochs, batchesPerEpoch, steps, gradientAccumulationSteps);
        }
        return (int) steps;
    }

    /// The rate of each of so many steps.
    public float[] learningRates(int steps) {
        return LearningRates.table(lrScheduler.name, optimizer.learningRate, lrScheduler.warmupSteps,
                lrScheduler.minLr, steps);
    }
}
