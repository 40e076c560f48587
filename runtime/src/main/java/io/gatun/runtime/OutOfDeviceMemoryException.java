package io.gatun.runtime;

/// The device has no memory for an allocation. A caller may free something, ask for less, and try again.
public final class OutOfDeviceMemoryException extends GatunException {
    private static final long serialVersionUID = 1;
    private final long requestedBytes;

    public OutOfDeviceMemoryException(String message, long requestedBytes) {
        super(Status.OUT_OF_MEMORY, message);
        this.requestedBytes = requestedBytes;
    }

    public long requestedBytes() {
        return requestedBytes;
    }
}
