package io.gatun.text;

/// The 256 visible characters in which byte-level vocabularies spell bytes: a byte that prints in Latin-1 is itself,
/// the others follow in order from U+0100. Source: `bytes_to_unicode` of GPT-2.
final class ByteAlphabet {
    private static final short[] VALUES = values();

    private ByteAlphabet() {}

    /// The byte a character stands for, 0 to 255, or -1 for a character outside the alphabet.
    static int valueOf(char c) {
        return c < VALUES.length ? VALUES[c] : -1;
    }

    /// The character that stands for a byte, 0 to 255.
    static char charOf(int value) {
        for (char c = 0; c < VALUES.length; c++) {
            if (VALUES[c] == value) {
                return c;
            }
        }
        throw new IllegalArgumentException("byte " + value + ", expected 0 to 255");
    }

    private static short[] values() {
        short[] values = new short[512];
        java.util.Arrays.fill(values, (short) -1);
        int next = 256;
        for (short b = 0; b < 256; b++) {
            boolean prints = b >= '!' && b <= '~' || b >= 0xA1 && b <= 0xAC || b >= 0xAE;
            values[prints ? b : next++] = b;
        }
        return values;
    }
}
