package io.gatun.cli;

/// Standard output for people and for programs. The last line of a text is ended on a terminal; in a pipe or file the
/// bytes are exactly the text.
final class Terminal {
    private static final boolean INTERACTIVE = System.console() != null && System.console().isTerminal();

    private Terminal() {}

    static void print(String text) {
        System.out.print(text);
        if (INTERACTIVE) {
            System.out.flush();
        }
    }

    /// Data, which end their line everywhere.
    static void printLine(String text) {
        System.out.print(text + "\n");
        System.out.flush();
    }

    static void endLine() {
        if (INTERACTIVE) {
            System.out.println();
        }
        System.out.flush();
    }
}
