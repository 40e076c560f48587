package io.gatun.evaluate;

import io.gatun.runtime.GatunException;
import org.jspecify.annotations.Nullable;

/// Mean and covariance of feature vectors, and how far apart two such Gaussians are. One thread at a time.
public final class FeatureStatistics {
    private static final int SWEEPS = 100;
    private static final double SMALL = 1e-15;

    private final int size;
    private final double[] sum;
    private final double[] products;
    private long count;

    /// @param size D of the vectors
    public FeatureStatistics(int size) {
        this.size = size;
        this.sum = new double[size];
        this.products = new double[size * size];
    }

    /// @param features [n, D]
    public void add(float[] features) {
        for (int at = 0; at < features.length; at += size) {
            for (int i = 0; i < size; i++) {
                sum[i] += features[at + i];
                for (int j = 0; j <= i; j++) {
                    products[i * size + j] += (double) features[at + i] * features[at + j];
                }
            }
            count++;
        }
    }

    /// Vectors so far.
    public long count() {
        return count;
    }

    private double mean(int i) {
        return sum[i] / count;
    }

    /// Unbiased, [D, D].
    private double[][] covariance() {
        double[][] covariance = new double[size][size];
        for (int i = 0; i < size; i++) {
            for (int j = 0; j <= i; j++) {
                covariance[i][j] = (products[i * size + j] - sum[i] * mean(j)) / (count - 1);
                covariance[j][i] = covariance[i][j];
            }
        }
        return covariance;
    }

    /// The squared Frechet distance `|m1 - m2|^2 + tr(S1 + S2 - 2 (S1 S2)^(1/2))`; with the features of an Inception
    /// network it is called FID. Dowson and Landau 1982; Heusel et al. 2017, arXiv 1706.08500.
    ///
    /// @throws GatunException when there are fewer than two vectors
    public double frechetDistance(FeatureStatistics other) {
        if (size != other.size || count < 2 || other.count < 2) {
            throw GatunException.invalid("%d vectors of %d and %d of %d, expected two or more of one size", count, size,
                    other.count, other.size);
        }
        double[][] mine = covariance();
        double[][] others = other.covariance();
        double distance = 0;
        for (int i = 0; i < size; i++) {
            double difference = mean(i) - other.mean(i);
            distance += difference * difference + mine[i][i] + others[i][i];
        }
        double[][] root = squareRoot(mine);
        for (double value : eigenvalues(times(times(root, others), root), null)) {
            distance -= 2 * Math.sqrt(Math.max(0, value));
        }
        return Math.max(0, distance);
    }

    /// Of a symmetric matrix whose negative eigenvalues are rounding.
    private static double[][] squareRoot(double[][] matrix) {
        int n = matrix.length;
        double[][] vectors = new double[n][n];
        double[] values = eigenvalues(matrix, vectors);
        double[][] root = new double[n][n];
        for (int k = 0; k < n; k++) {
            double value = Math.sqrt(Math.max(0, values[k]));
            for (int i = 0; i < n; i++) {
                for (int j = 0; j < n; j++) {
                    root[i][j] += vectors[i][k] * value * vectors[j][k];
                }
            }
        }
        return root;
    }

    private static double[][] times(double[][] a, double[][] b) {
        int n = a.length;
        double[][] product = new double[n][n];
        for (int i = 0; i < n; i++) {
            for (int k = 0; k < n; k++) {
                for (int j = 0; j < n; j++) {
                    product[i][j] += a[i][k] * b[k][j];
                }
            }
        }
        return product;
    }

    /// Of a symmetric matrix, by Jacobi's rotations.
    ///
    /// @param vectors receives them as columns; null: not wanted
    private static double[] eigenvalues(double[][] symmetric, double @Nullable [][] vectors) {
        int n = symmetric.length;
        double[][] a = new double[n][];
        for (int i = 0; i < n; i++) {
            a[i] = symmetric[i].clone();
            if (vectors != null) {
                vectors[i][i] = 1;
            }
        }
        for (int sweep = 0; sweep < SWEEPS && offDiagonal(a) > SMALL * SMALL; sweep++) {
            for (int p = 0; p < n; p++) {
                for (int q = p + 1; q < n; q++) {
                    if (a[p][q] != 0) {
                        rotate(a, vectors, p, q);
                    }
                }
            }
        }
        double[] values = new double[n];
        for (int i = 0; i < n; i++) {
            values[i] = a[i][i];
        }
        return values;
    }

    /// The squares beside the diagonal, as a share of all.
    private static double offDiagonal(double[][] a) {
        double off = 0;
        double all = Double.MIN_NORMAL;
        for (int i = 0; i < a.length; i++) {
            for (int j = 0; j < a.length; j++) {
                off += i == j ? 0 : a[i][j] * a[i][j];
                all += a[i][j] * a[i][j];
            }
        }
        return off / all;
    }

    /// Makes a[p][q] zero. Golub and Van Loan, Matrix Computations, 8.5.
    private static void rotate(double[][] a, double @Nullable [][] vectors, int p, int q) {
        double ratio = (a[q][q] - a[p][p]) / (2 * a[p][q]);
        double t = Math.copySign(1 / (Math.abs(ratio) + Math.hypot(ratio, 1)), ratio);
        double c = 1 / Math.hypot(t, 1);
        double s = t * c;
        for (double[] row : a) {
            turn(row, p, q, c, s);
        }
        for (int k = 0; k < a.length; k++) {
            double x = a[p][k];
            double y = a[q][k];
            a[p][k] = c * x - s * y;
            a[q][k] = s * x + c * y;
        }
        if (vectors != null) {
            for (double[] row : vectors) {
                turn(row, p, q, c, s);
            }
        }
    }

    private static void turn(double[] row, int p, int q, double c, double s) {
        double x = row[p];
        double y = row[q];
        row[p] = c * x - s * y;
        row[q] = s * x + c * y;
    }
}
