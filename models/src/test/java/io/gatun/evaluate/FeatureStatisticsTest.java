package io.gatun.evaluate;

import static org.junit.jupiter.api.Assertions.assertEquals;
import static org.junit.jupiter.api.Assertions.assertThrows;

import io.gatun.runtime.GatunException;
import java.util.Random;
import org.junit.jupiter.api.Test;

/// Is the distance of two sets of features that of their Gaussians?
class FeatureStatisticsTest {
    private static FeatureStatistics of(int size, float... features) {
        FeatureStatistics statistics = new FeatureStatistics(size);
        statistics.add(features);
        return statistics;
    }

    /// Of one feature: `(m1 - m2)^2 + (s1 - s2)^2`. Variances 2 and 8.
    @Test
    void frechetDistance_ofOneFeature() {
        FeatureStatistics a = of(1, 0, 2);
        FeatureStatistics b = of(1, 5, 9);
        double deviations = Math.sqrt(2) - Math.sqrt(8);
        assertEquals(36 + deviations * deviations, a.frechetDistance(b), 1e-9);
        assertEquals(a.frechetDistance(b), b.frechetDistance(a), 1e-9);
        assertEquals(2, a.count());
    }

    /// Of two: `tr (S1 S2)^(1/2) = (tr S1 S2 + 2 (det S1 S2)^(1/2))^(1/2)`.
    @Test
    void frechetDistance_ofTwoFeatures() {
        FeatureStatistics a = of(2, 1, 0, -1, 0, 0, 1, 0, -1, 1, 1, -1, -1);
        FeatureStatistics b = of(2, 3, 0, 1, 0, 2, 2, 2, -2, 3, -1, 1, 1);
        double[] s = {4 / 5.0, 2 / 5.0, 4 / 5.0};   // xx, xy, yy
        double[] t = {4 / 5.0, -2 / 5.0, 10 / 5.0};
        double trace = s[0] * t[0] + 2 * s[1] * t[1] + s[2] * t[2];
        double determinant = (s[0] * s[2] - s[1] * s[1]) * (t[0] * t[2] - t[1] * t[1]);
        double expected = 4 + s[0] + s[2] + t[0] + t[2] - 2 * Math.sqrt(trace + 2 * Math.sqrt(determinant));
        assertEquals(expected, a.frechetDistance(b), 1e-9);
    }

    /// Many features, some of them always the same: 0 from themselves, and the shift of a shifted copy.
    @Test
    void frechetDistance_ofShiftedCopies() {
        int d = 40;
        Random random = new Random(1);
        float[] features = new float[100 * d];
        float[] shifted = new float[100 * d];
        for (int i = 0; i < features.length; i++) {
            features[i] = i % d < 30 ? (float) random.nextGaussian() + (i % d > 0 ? features[i - 1] : 0) : 1;
            shifted[i] = features[i] + 0.5f;
        }
        FeatureStatistics a = of(d, features);
        assertEquals(0, a.frechetDistance(of(d, features)), 1e-4);
        assertEquals(d * 0.25, a.frechetDistance(of(d, shifted)), 1e-3);
    }

    @Test
    void frechetDistance_refusesTooFew() {
        assertThrows(GatunException.class, () -> of(2, 1, 2).frechetDistance(of(2, 1, 2, 3, 4)));
        assertThrows(GatunException.class, () -> of(1, 1, 2).frechetDistance(of(2, 1, 2, 3, 4)));
    }
}
