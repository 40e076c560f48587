package io.gatun.cli;

/// Standard output for people and for programs: on a terminal the last line is ended, in a pipe or file the bytes are
/// exactly the result.
final class Terminal {
    private static final boolean INTERACTIVE = System.console() != null && System.console().isTerminal();

    private Terminal() {}

    static void print(String text) {
        System.out.print(text);
        if (INTERACTIVE) {
            System.out.flush();
        }
    }

    static void endLine() {
        if (INTERACTIVE) {
            System.out.println();
        }
        System.out.flush();
    }
}
