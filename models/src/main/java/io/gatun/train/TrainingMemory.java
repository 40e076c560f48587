package io.gatun.train;

/// What a training will need of a device's memory, known before its first step.
///
/// @param parameters      that are trained
/// @param weightBytes     their f32 values, the copy in the dtype that the model computes in, and weights that are not
///     trained, but for those in mapped files
/// @param gradientBytes   f32
/// @param optimizerBytes  moments of the optimizer, and the average of the weights
/// @param activationBytes what is kept between forward and backward pass, at its widest moment
/// @param batch           examples of a pass
/// @param peakBytes       all of it, batches, and what evaluations, samples and libraries work in, at the widest moment
/// @param freeBytes       what the device had left before
public record TrainingMemory(long parameters, long weightBytes, long gradientBytes, long optimizerBytes,
        long activationBytes, int batch, long peakBytes, long freeBytes) {
    public boolean fits() {
        return peakBytes <= freeBytes;
    }

    /// One line for people.
    @Override
    public String toString() {
        return ("memory: weights %,d MiB (%,d trained parameters), gradients %,d MiB, optimizer %,d MiB, activations"
                + " %,d MiB for a batch of %d, peak %,d MiB of %,d MiB free").formatted(weightBytes >> 20, parameters,
                        gradientBytes >> 20, optimizerBytes >> 20, activationBytes >> 20, batch, peakBytes >> 20,
                        freeBytes >> 20);
    }
}
