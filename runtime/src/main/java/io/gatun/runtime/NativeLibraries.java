package io.gatun.runtime;

import io.gatun.bindings.Libraries;
import io.gatun.bindings.LibraryException;
import java.util.ArrayList;
import java.util.List;

/// What native libraries this process uses, for people.
public final class NativeLibraries {
    private NativeLibraries() {}

    /// One line per library: name, file, and where it came from; or why it is not there and what to do.
    public static List<String> report() {
        List<String> lines = new ArrayList<>();
        try {
            Libraries.gatun();
            if (Libraries.hasOneDnn()) {
                Libraries.oneDnn();
            } else {
                lines.add("oneDNN: not on the class path, our own kernel does all matrix products (slower prompts):"
                        + " add org.bytedeco:dnnl:3.11-1.5.13 with classifier " + Libraries.platform());
            }
        } catch (LibraryException e) {
            lines.add(e.getMessage());
        }
        for (Libraries.Opened library : Libraries.opened()) {
            lines.add("%s: %s (%s)".formatted(library.name(), library.file(), library.origin()));
        }
        return lines;
    }
}
