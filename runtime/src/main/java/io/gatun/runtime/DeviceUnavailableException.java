package io.gatun.runtime;

/// The device that was asked for is not there. A caller may choose another one; Gatun never does so silently.
public final class DeviceUnavailableException extends GatunException {
    private static final long serialVersionUID = 1;

    DeviceUnavailableException(String message) {
        super(Status.UNSUPPORTED, message);
    }
}
