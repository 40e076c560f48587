package io.gatun.bench;

import java.util.List;
import java.util.Map;

/// How fast can this device read its memory? The ceiling of everything that touches each byte once, measured again and
/// again between the other measurements, since other work on the machine slows both.
interface MemoryRate extends AutoCloseable {
    static MemoryRate of(Setup setup) {
        return setup.isCpu() ? new HostMemoryRate(setup) : new DeviceMemoryRate(setup);
    }

    /// Of the memory that [#sample] goes over.
    long bytes();

    /// Takes another sample, in bytes per second.
    double sample();

    /// Bytes per second over the first `bytes` of that memory: what repeated reading of so many bytes can reach, caches
    /// included.
    double read(long bytes);

    /// What the samples were, for the report.
    List<Map<String, Object>> rows();

    @Override
    void close();
}
