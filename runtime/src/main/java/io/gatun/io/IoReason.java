package io.gatun.io;

import java.io.EOFException;
import java.io.FileNotFoundException;
import java.io.IOException;
import java.nio.charset.CharacterCodingException;
import java.nio.file.AccessDeniedException;
import java.nio.file.FileAlreadyExistsException;
import java.nio.file.FileSystemException;
import java.nio.file.NoSuchFileException;
import java.nio.file.NotDirectoryException;
import java.util.Locale;

/// Why reading or writing failed, in words for the end of a message that names the file already. The message of Java's
/// own exceptions is often nothing but the path.
public final class IoReason {
    private IoReason() {}

    /// Such as `permission denied`.
    public static String of(IOException e) {
        return switch (e) {
            case AccessDeniedException _ -> "permission denied";
            case NoSuchFileException _ -> "no such file or folder";
            case FileAlreadyExistsException _ -> "there is a file of that name already";
            case NotDirectoryException _ -> "it is no folder";
            case FileSystemException system when system.getReason() != null -> uncapitalized(system.getReason());
            case FileNotFoundException stream -> inParentheses(stream);
            case CharacterCodingException _ -> "not UTF-8 text";
            case EOFException _ -> "it ends too early";
            default -> otherwise(e);
        };
    }

    /// Java's streams say `PATH (Reason)`.
    private static String inParentheses(FileNotFoundException e) {
        String message = String.valueOf(e.getMessage());
        int start = message.lastIndexOf(" (");
        return start > 0 && message.endsWith(")") ? uncapitalized(message.substring(start + 2, message.length() - 1))
                : message;
    }

    private static String otherwise(IOException e) {
        String message = e.getMessage();
        return message == null || message.isBlank() ? e.getClass().getSimpleName() : uncapitalized(message);
    }

    /// The system's words begin with a capital.
    private static String uncapitalized(String text) {
        boolean begins = text.length() > 1 && Character.isLowerCase(text.charAt(1));
        return begins ? text.substring(0, 1).toLowerCase(Locale.ROOT) + text.substring(1) : text;
    }
}
