package io.gatun.text;

import io.gatun.runtime.GatunException.Status;

/// A template that cannot be parsed or rendered; [ChatTemplate] adds whose template it is.
final class JinjaException extends RuntimeException {
    private static final long serialVersionUID = 1;

    private final Status status;
    private int line;

    private JinjaException(Status status, String message) {
        super(message);
        this.status = status;
    }

    static JinjaException invalid(String format, Object... args) {
        return new JinjaException(Status.INVALID_ARGUMENT, format.formatted(args));
    }

    static JinjaException unsupported(String format, Object... args) {
        return new JinjaException(Status.UNSUPPORTED, format.formatted(args) + " is not supported");
    }

    Status status() {
        return status;
    }

    /// The line it happened on, 0 when it is not known yet. The innermost statement names it.
    int line() {
        return line;
    }

    JinjaException at(int number) {
        if (line == 0) {
            line = number;
        }
        return this;
    }
}
