package io.gatun.text;

import io.gatun.runtime.GatunException;
import java.util.List;

/// Ends a streamed text before the first stop string that completes in it, also one that spans several pieces. Text
/// that may turn out to begin a stop string is held back. The result does not depend on how the text is cut into
/// pieces: where several stop strings complete at the same character the longest counts.
///
/// Every stop string is followed by its own Knuth-Morris-Pratt automaton, so a character costs the number of stop
/// strings (Knuth, Morris, Pratt: Fast pattern matching in strings, 1977). Not for several threads at once.
public final class StopStrings {
    private final String[] stops;
    /// Per stop string: `failure[i]` is the longest proper border of its first `i + 1` characters.
    private final int[][] failures;
    private final int[] matched;
    private final StringBuilder held = new StringBuilder();
    private boolean finished;

    /// @throws GatunException for an empty stop string
    public StopStrings(List<String> stops) {
        this.stops = stops.toArray(String[]::new);
        this.failures = new int[this.stops.length][];
        this.matched = new int[this.stops.length];
        for (int s = 0; s < this.stops.length; s++) {
            if (this.stops[s].isEmpty()) {
                throw GatunException.invalid("stop string %d of %d is empty", s + 1, this.stops.length);
            }
            failures[s] = failureOf(this.stops[s]);
        }
    }

    /// Takes the next piece and returns the text that may be shown; nothing more after a stop string.
    public String accept(String delta) {
        if (finished) {
            return "";
        }
        for (int i = 0; i < delta.length(); i++) {
            held.append(delta.charAt(i));
            int longestStop = advance(delta.charAt(i));
            if (longestStop > 0) {
                finished = true;
                held.setLength(held.length() - longestStop);
                return take(held.length());
            }
        }
        int longest = 0;
        for (int length : matched) {
            longest = Math.max(longest, length);
        }
        return take(held.length() - longest);
    }

    /// Whether a stop string was found.
    public boolean finished() {
        return finished;
    }

    /// Ends the text and returns what was held back for a stop string that did not come.
    public String flush() {
        java.util.Arrays.fill(matched, 0);
        return take(held.length());
    }

    /// Moves every automaton by one character; the length of the longest stop string that is now complete, else 0.
    private int advance(char c) {
        int complete = 0;
        for (int s = 0; s < stops.length; s++) {
            int length = matched[s];
            while (length > 0 && stops[s].charAt(length) != c) {
                length = failures[s][length - 1];
            }
            if (stops[s].charAt(length) == c) {
                length++;
            }
            matched[s] = length;
            if (length == stops[s].length()) {
                complete = Math.max(complete, length);
            }
        }
        return complete;
    }

    private String take(int length) {
        String text = held.substring(0, length);
        held.delete(0, length);
        return text;
    }

    private static int[] failureOf(String stop) {
        int[] failure = new int[stop.length()];
        for (int i = 1, length = 0; i < failure.length; i++) {
            while (length > 0 && stop.charAt(i) != stop.charAt(length)) {
                length = failure[length - 1];
            }
            if (stop.charAt(i) == stop.charAt(length)) {
                length++;
            }
            failure[i] = length;
        }
        return failure;
    }
}
