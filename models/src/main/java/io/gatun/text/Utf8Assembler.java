package io.gatun.text;

/// UTF-8 bytes, in pieces that may end anywhere, to text. A malformed sequence becomes one U+FFFD per maximal subpart,
/// as the WHATWG Encoding Standard and Rust's `from_utf8_lossy` do it; `java.nio`'s decoder counts surrogates
/// differently.
final class Utf8Assembler {
    private int needed;
    private int codePoint;
    private int lowest = 0x80;
    private int highest = 0xBF;

    /// The characters that these bytes complete.
    String append(byte[] bytes) {
        StringBuilder text = new StringBuilder(bytes.length);
        for (byte b : bytes) {
            append(b & 0xFF, text);
        }
        return text.toString();
    }

    /// Ends the text: U+FFFD when a character is incomplete, else nothing.
    String finish() {
        String rest = needed > 0 ? "\uFFFD" : "";
        needed = 0;
        lowest = 0x80;
        highest = 0xBF;
        return rest;
    }

    private void append(int b, StringBuilder text) {
        if (needed > 0) {
            if (b >= lowest && b <= highest) {
                lowest = 0x80;
                highest = 0xBF;
                codePoint = codePoint << 6 | b & 0x3F;
                if (--needed == 0) {
                    text.appendCodePoint(codePoint);
                }
                return;
            }
            text.append(finish());
        }
        if (b < 0x80) {
            text.append((char) b);
        } else if (b >= 0xC2 && b <= 0xDF) {
            needed = 1;
            codePoint = b & 0x1F;
        } else if (b >= 0xE0 && b <= 0xEF) {
            needed = 2;
            codePoint = b & 0x0F;
            lowest = b == 0xE0 ? 0xA0 : 0x80;
            highest = b == 0xED ? 0x9F : 0xBF;
        } else if (b >= 0xF0 && b <= 0xF4) {
            needed = 3;
            codePoint = b & 0x07;
            lowest = b == 0xF0 ? 0x90 : 0x80;
            highest = b == 0xF4 ? 0x8F : 0xBF;
        } else {
            text.append('\uFFFD');
        }
    }
}
