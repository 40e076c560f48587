package io.gatun.bench;

import java.util.Arrays;
import java.util.Collection;
import java.util.Map;

/// What repeats of a measurement gave: the median, and where the middle four fifths lie.
///
/// @param low  a tenth of the repeats are at most this
/// @param high a tenth of the repeats are at least this
record Spread(double median, double low, double high) {
    /// Of at least one value.
    static Spread of(double... values) {
        double[] sorted = values.clone();
        Arrays.sort(sorted);
        int n = sorted.length;
        int tenth = n / 10;
        double middle = n % 2 == 1 ? sorted[n / 2] : (sorted[n / 2 - 1] + sorted[n / 2]) / 2;
        return new Spread(middle, sorted[tenth], sorted[n - 1 - tenth]);
    }

    static Spread of(Collection<Double> values) {
        return of(values.stream().mapToDouble(Double::doubleValue).toArray());
    }

    /// Of `a[i] / b[i]`: pairs were measured one after the other.
    static Spread ofRatios(double[] a, double[] b) {
        double[] ratios = new double[a.length];
        Arrays.setAll(ratios, i -> a[i] / b[i]);
        return of(ratios);
    }

    Spread times(double factor) {
        return new Spread(median * factor, low * factor, high * factor);
    }

    void putInto(Map<String, Object> row) {
        row.put("median", median);
        row.put("low", low);
        row.put("high", high);
    }
}
