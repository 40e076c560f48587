package io.gatun.text;

import static org.junit.jupiter.api.Assertions.assertEquals;
import static org.junit.jupiter.api.Assertions.assertFalse;
import static org.junit.jupiter.api.Assertions.assertThrows;
import static org.junit.jupiter.api.Assertions.assertTrue;

import io.gatun.runtime.GatunException;
import java.util.ArrayList;
import java.util.List;
import java.util.Random;
import org.junit.jupiter.api.Test;

class StopStringsTest {
    @Test
    void accept_holdsBeginningBack() {
        StopStrings stops = new StopStrings(List.of("###", "\n\nUser:"));
        assertEquals("Hello", stops.accept("Hello#"));
        assertEquals("", stops.accept("#"));
        assertEquals("## then", stops.accept(" then"));
        assertEquals("", stops.accept("\n"));
        assertEquals("", stops.accept("\nUse"));
        assertFalse(stops.finished());
        assertEquals("", stops.accept("r: more"));
        assertTrue(stops.finished());
        assertEquals("", stops.accept("and more"));
        assertEquals("", stops.flush());
    }

    @Test
    void flush_givesHeldText() {
        StopStrings stops = new StopStrings(List.of("stop"));
        assertEquals("a ", stops.accept("a sto"));
        assertEquals("sto", stops.flush());
        assertFalse(stops.finished());
    }

    @Test
    void accept_overlappingStops() {
        assertEquals("xa", all(List.of("abcd", "bc"), "xabcd", 1), "the one that completes first");
        assertEquals("xa", all(List.of("abcd", "bc"), "xabcd", 5));
        assertEquals("x", all(List.of("bc", "abc"), "xabc", 2), "the longest of those that complete together");
        assertEquals("aab", all(List.of("aabaac"), "aabaabaac", 1));
    }

    @Test
    void accept_withoutStops() {
        StopStrings stops = new StopStrings(List.of());
        assertEquals("text", stops.accept("text"));
        assertEquals("", stops.flush());
    }

    @Test
    void constructor_emptyStop() {
        assertThrows(GatunException.class, () -> new StopStrings(List.of("a", "")));
    }

    /// Against the definition: the text before the stop string that ends first.
    @Test
    void accept_randomTexts() {
        Random random = new Random(3);
        for (int round = 0; round < 5000; round++) {
            List<String> stops = new ArrayList<>();
            for (int s = random.nextInt(4); s > 0; s--) {
                stops.add(letters(random, 1 + random.nextInt(4)));
            }
            String text = letters(random, random.nextInt(30));
            String expected = text;
            for (int end = 1, found = 0; end <= text.length() && found == 0; end++) {
                for (String stop : stops) {
                    if (text.substring(0, end).endsWith(stop) && stop.length() > found) {
                        found = stop.length();
                        expected = text.substring(0, end - found);
                    }
                }
            }
            assertEquals(expected, all(stops, text, 1 + random.nextInt(4)), () -> stops + " in " + text);
        }
    }

    private static String letters(Random random, int length) {
        return random.ints(length, 'a', 'c' + 1).collect(StringBuilder::new, StringBuilder::appendCodePoint,
                StringBuilder::append).toString();
    }

    private static String all(List<String> stops, String text, int piece) {
        StopStrings matcher = new StopStrings(stops);
        StringBuilder shown = new StringBuilder();
        for (int at = 0; at < text.length(); at += piece) {
            shown.append(matcher.accept(text.substring(at, Math.min(text.length(), at + piece))));
        }
        return shown.append(matcher.flush()).toString();
    }
}
