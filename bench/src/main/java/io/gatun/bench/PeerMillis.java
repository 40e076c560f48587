package io.gatun.bench;

import java.util.ArrayList;
import java.util.LinkedHashMap;
import java.util.List;
import java.util.Map;

/// What each variant of the peer took, round by round, beside what we took in the same round.
final class PeerMillis {
    private final double[] ours;
    private final Map<String, double[]> theirs = new LinkedHashMap<>();

    /// @param ours filled as the rounds go
    PeerMillis(double[] ours) {
        this.ours = ours;
    }

    /// A negative round warms up.
    void add(int round, Map<String, Double> millis) {
        millis.forEach((name, value) -> {
            double[] all = theirs.computeIfAbsent(name, n -> new double[ours.length]);
            if (round >= 0) {
                all[round] = value;
            }
        });
    }

    /// Leaves no row of what is not whole.
    void forget() {
        theirs.clear();
    }

    /// A row for each variant.
    ///
    /// @param named the columns that say what was measured
    List<Map<String, Object>> rows(Map<String, Object> named) {
        List<Map<String, Object>> rows = new ArrayList<>();
        theirs.forEach((name, all) -> {
            Spread ratio = Spread.ofRatios(all, ours);
            Map<String, Object> row = new LinkedHashMap<>(named);
            row.put("peer", name);
            row.put("theirs", Spread.of(all).median());
            row.put("ours", Spread.of(ours).median());
            row.put("faster_by", ratio.median());
            row.put("faster_low", ratio.low());
            row.put("faster_high", ratio.high());
            rows.add(row);
        });
        return rows;
    }
}
