package io.gatun.runtime;

import io.gatun.bindings.HostMemory;
import io.gatun.bindings.LibraryException;
import io.gatun.bindings.gatun.Gatun;
import io.gatun.bindings.gatun.gt_stream;
import io.gatun.bindings.gatun.gt_tensor;
import java.lang.foreign.Arena;
import java.lang.foreign.MemorySegment;
import java.lang.foreign.ValueLayout;

/// Turns status codes of libgatun into exceptions, and checks at load that bindings and library belong together.
final class NativeErrors {
    private NativeErrors() {}

    static GatunException translate(int status) {
        String text = HostMemory.string(Gatun.gt_last_error());
        if (status == Gatun.GT_OUT_OF_MEMORY()) {
            return new OutOfDeviceMemoryException(text, 0);
        }
        return new GatunException(
                status == Gatun.GT_INVALID_ARGUMENT() ? GatunException.Status.INVALID_ARGUMENT
                        : status == Gatun.GT_UNSUPPORTED() ? GatunException.Status.UNSUPPORTED
                        : status == Gatun.GT_DEVICE_ERROR() ? GatunException.Status.DEVICE_ERROR
                        : GatunException.Status.INTERNAL,
                text);
    }

    /// Opens libgatun and compares ABI version and struct sizes; returns its build line.
    static String loadLibrary() {
        try {
            io.gatun.bindings.Libraries.gatun();
            int version = Gatun.gt_abi_version();
            if (version != Gatun.GT_ABI_VERSION()) {
                throw new GatunException(GatunException.Status.UNSUPPORTED,
                        "libgatun has ABI version %d, these Java classes need %d: use jars and library of one version"
                                .formatted(version, Gatun.GT_ABI_VERSION()));
            }
            try (Arena arena = Arena.ofConfined()) {
                MemorySegment sizes = arena.allocate(ValueLayout.JAVA_LONG, 2);
                int status = Gatun.gt_abi_sizes(sizes, sizes.asSlice(8));
                long tensor = sizes.getAtIndex(ValueLayout.JAVA_LONG, 0);
                long stream = sizes.getAtIndex(ValueLayout.JAVA_LONG, 1);
                if (status != 0 || tensor != gt_tensor.sizeof() || stream != gt_stream.sizeof()) {
                    throw new GatunException(GatunException.Status.UNSUPPORTED,
                            "libgatun has structs of %d and %d bytes, these Java classes expect %d and %d".formatted(
                                    tensor, stream, gt_tensor.sizeof(), gt_stream.sizeof()));
                }
            }
            return HostMemory.string(Gatun.gt_build_info());
        } catch (LibraryException e) {
            throw new GatunException(GatunException.Status.UNSUPPORTED, e.getMessage(), e);
        }
    }
}
