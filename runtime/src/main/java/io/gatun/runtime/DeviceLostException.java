package io.gatun.runtime;

/// The device has stopped working: a kernel faulted, or the driver took the device away. Every later call on the device
/// throws this with the same message, and nothing brings the device back within this process. Close what was opened,
/// and start a new process or use another device.
public final class DeviceLostException extends GatunException {
    private static final long serialVersionUID = 1;

    DeviceLostException(String message) {
        super(Status.DEVICE_ERROR, message);
    }
}
