package io.gatun.cli;

import static org.junit.jupiter.api.Assertions.assertEquals;
import static org.junit.jupiter.api.Assertions.assertTrue;

import java.io.ByteArrayInputStream;
import java.io.ByteArrayOutputStream;
import java.io.InputStream;
import java.io.PrintStream;
import java.nio.charset.StandardCharsets;
import java.util.function.IntSupplier;

/// What a command line printed, and how it ended.
public record Captured(int code, String out, String err) {
    public static Captured run(String... args) {
        return run(new byte[0], args);
    }

    /// As [#run(String...)], with bytes on standard input.
    static Captured run(byte[] input, String... args) {
        return run(input, () -> Main.execute(args));
    }

    /// What a command printed and returned.
    static Captured run(IntSupplier command) {
        return run(new byte[0], command);
    }

    private static Captured run(byte[] input, IntSupplier command) {
        InputStream in = System.in;
        PrintStream out = System.out;
        PrintStream err = System.err;
        ByteArrayOutputStream outBytes = new ByteArrayOutputStream();
        ByteArrayOutputStream errBytes = new ByteArrayOutputStream();
        try (PrintStream capturedOut = new PrintStream(outBytes, false, StandardCharsets.UTF_8);
                PrintStream capturedErr = new PrintStream(errBytes, true, StandardCharsets.UTF_8)) {
            System.setIn(new ByteArrayInputStream(input));
            System.setOut(capturedOut);
            System.setErr(capturedErr);
            int code = command.getAsInt();
            capturedOut.flush();
            return new Captured(code, outBytes.toString(StandardCharsets.UTF_8),
                    errBytes.toString(StandardCharsets.UTF_8));
        } finally {
            System.setIn(in);
            System.setOut(out);
            System.setErr(err);
        }
    }

    /// One clear line on standard error that says all of `parts`, nothing on standard output.
    public Captured assertFailed(int expectedCode, String... parts) {
        assertEquals(expectedCode, code, this::toString);
        assertEquals("", out, this::toString);
        assertTrue(err.startsWith("gatun: ") && err.endsWith("\n"), this::toString);
        assertEquals(1, err.lines().count(), this::toString);
        for (String part : parts) {
            assertTrue(err.contains(part), () -> "no '" + part + "' in " + this);
        }
        return this;
    }

    Captured assertPrinted(String expected) {
        assertEquals("", err, this::toString);
        assertEquals(expected, out, this::toString);
        assertEquals(0, code, this::toString);
        return this;
    }
}
