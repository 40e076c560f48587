package io.gatun.runtime;

/// Something Gatun was asked to do failed. The message says what was expected, what was found and what to do.
///
/// Subclasses exist where a caller would act differently; everything else is this class with a [Status].
public class GatunException extends RuntimeException {
    private static final long serialVersionUID = 1;

    /// Why it failed.
    public enum Status {
        /// An argument, a file or a setting is wrong; the same call will fail again.
        INVALID_ARGUMENT,
        /// Valid, but this build or device cannot do it.
        UNSUPPORTED,
        OUT_OF_MEMORY,
        /// Too much is waiting; the same call may succeed later.
        BUSY,
        /// The device or its driver reported a fault.
        DEVICE_ERROR,
        /// The work was cancelled, or its deadline passed, or the object it used was closed.
        CANCELLED,
        /// A defect of Gatun.
        INTERNAL
    }

    private final Status status;

    public GatunException(Status status, String message) {
        super(message);
        this.status = status;
    }

    public GatunException(Status status, String message, Throwable cause) {
        super(message, cause);
        this.status = status;
    }

    public Status status() {
        return status;
    }

    /// Shorthand for an [Status#INVALID_ARGUMENT] with a formatted message.
    public static GatunException invalid(String format, Object... args) {
        return new GatunException(Status.INVALID_ARGUMENT, format.formatted(args));
    }
}
