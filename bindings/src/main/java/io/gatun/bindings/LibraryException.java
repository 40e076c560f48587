package io.gatun.bindings;

/// A native library could not be found, extracted or opened. The message says what was tried and what to do.
public final class LibraryException extends RuntimeException {
    private static final long serialVersionUID = 1;

    LibraryException(String message) {
        super(message);
    }

    LibraryException(String message, Throwable cause) {
        super(message, cause);
    }
}
