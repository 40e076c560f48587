package io.gatun.diffusion;

import java.util.function.IntToLongFunction;

/// What drawing will need of a device's memory, known before anything is loaded. On the CPU the weights are the mapped
/// files, whose place copies that are packed for oneDNN take.
///
/// @param parameters      of all networks
/// @param weightBytes     of all networks
/// @param activationBytes what the widest moment of the drawing needs beside them
/// @param count           images that are drawn together
/// @param maxCount        as many would fit
/// @param freeBytes       what the device has left
public record MemoryEstimate(long parameters, long weightBytes, long activationBytes, int count, long maxCount,
        long freeBytes) {
    /// @param activations of so many images: a straight line, but for what is the same for all
    static MemoryEstimate of(long parameters, long weightBytes, IntToLongFunction activations, int count,
            long freeBytes) {
        long one = activations.applyAsLong(1);
        long each = activations.applyAsLong(2) - one;
        long left = freeBytes - weightBytes - one;
        return new MemoryEstimate(parameters, weightBytes, count == 1 ? one : activations.applyAsLong(count), count,
                left < 0 ? 0 : 1 + left / Math.max(1, each), freeBytes);
    }

    /// Weights and activations together.
    public long peakBytes() {
        return weightBytes + activationBytes;
    }

    public boolean fits() {
        return peakBytes() <= freeBytes;
    }

    /// One line for people.
    @Override
    public String toString() {
        return ("memory: weights %,d MiB (%,d parameters), activations %,d MiB for %d image%s, peak %,d MiB of %,d MiB"
                + " free; %,d would fit").formatted(weightBytes >> 20, parameters, activationBytes >> 20, count,
                        count == 1 ? "" : "s", peakBytes() >> 20, freeBytes >> 20, maxCount);
    }
}
