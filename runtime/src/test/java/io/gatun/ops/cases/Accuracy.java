package io.gatun.ops.cases;

import io.gatun.runtime.DType;
import org.jspecify.annotations.Nullable;

/// How close a result must come. The rule: error <= 2 x the error of the obvious same-dtype computation (see
/// [Rounding]; 3 x for gradients), both against the oracle in double, plus a floor for the last rounding. NaN and
/// infinities must be where the oracle has them. Integers must be equal, and e4m3 numbers those nearest to the
/// oracle's.
public enum Accuracy {
    /// The oracle's value, rounded once.
    EXACT,
    /// The rule for each element, with the largest error of the obvious computation.
    ROUNDED,
    /// As ROUNDED, with three times that error: of gradients.
    GRADIENT,
    /// As ROUNDED, and one unit of the typical size: where products cancel, what a tensor core cut off when it aligned
    /// a step's products to the largest of them stays.
    PRODUCT,
    /// As PRODUCT, of 16-bit operands that many steps sum in f32, with four units: an H200 needed 3 for 257 products.
    NARROW_PRODUCT,
    /// As NARROW_PRODUCT, of a thousand products and more, with 64 units: an H200 needed 33 for 4096.
    LONG_NARROW_PRODUCT,
    /// As PRODUCT, of e4m3 operands, whose sums in f32 have 13 bits behind the point while they are in Hopper's tensor
    /// cores: Zhang et al. 2024 (arXiv 2411.10958).
    E4M3_PRODUCT,
    /// For f32 as ROUNDED, but with a floor of four units: a log-sum-exp inherits the rounding of its largest score,
    /// and kernels compute in powers of two. For 16-bit floats the rule holds for the root mean square, and each
    /// element may be off by twice the largest error of the obvious computation plus half a unit of its own and of the
    /// typical size: relative errors near zero mean nothing.
    ROOT_MEAN_SQUARE,
    /// As ROOT_MEAN_SQUARE, with three times the error: of gradients.
    GRADIENT_ROOT_MEAN_SQUARE;

    private static final double FACTOR = 2;
    private static final double GRADIENT_FACTOR = 3;
    private static final double LOG_DOMAIN_FLOOR = 0x1p-21;
    private static final double E4M3_FLOOR = 0x1p-12;
    /// Below this f32 results may be flushed to zero.
    private static final double TINY = Float.MIN_NORMAL;

    /// What is wrong with `actual`, or null.
    ///
    /// @param naive what the obvious same-dtype computation gives
    public @Nullable String violation(Operand operand, double[] expected, double[] naive, HostArray actual) {
        DType dtype = operand.dtype();
        boolean rounds = dtype.isFloat() && this != EXACT;
        boolean rms = isInLogDomain() && dtype != DType.F32;
        double factor = this == GRADIENT || this == GRADIENT_ROOT_MEAN_SQUARE ? GRADIENT_FACTOR : FACTOR;
        double naiveError = 0;
        double naiveSquares = 0;
        double squares = 0;
        double expectedSquares = 0;
        int finite = 0;
        for (int i = 0; i < expected.length; i++) {
            if (Double.isFinite(expected[i]) && Double.isFinite(naive[i])) {
                double error = Math.abs(naive[i] - expected[i]);
                double ours = actual.at(i) - expected[i];
                naiveError = Math.max(naiveError, error);
                naiveSquares += error * error;
                squares += ours * ours;
                expectedSquares += expected[i] * expected[i];
                finite++;
            }
        }
        double typical = finite > 0 ? Math.sqrt(expectedSquares / finite) : 0;
        double size = switch (this) {
            case PRODUCT, E4M3_PRODUCT -> typical;
            case NARROW_PRODUCT -> 4 * typical;
            case LONG_NARROW_PRODUCT -> 64 * typical;
            default -> rms ? typical : 0;
        };
        for (int i = 0; i < expected.length; i++) {
            double found = actual.at(i);
            double limit = rounds ? factor * naiveError + floor(dtype) * (Math.abs(expected[i]) + size) + TINY : 0;
            double wanted = HostArray.areFloats(dtype) && !rounds ? Rounding.nearest(dtype, expected[i]) : expected[i];
            if (!within(dtype, wanted, found, limit)) {
                return "%s expected %s, actual %s, error %.3g, limit %.3g (the obvious computation has %.3g)".formatted(
                        operand.indexOf(i), wanted, found, Math.abs(found - wanted), limit, naiveError);
            }
        }
        double rmsLimit = factor * Math.sqrt(naiveSquares / Math.max(1, finite)) + floor(dtype) * size;
        if (rms && finite > 0 && Math.sqrt(squares / finite) > rmsLimit) {
            return "%s: root mean square error expected at most %.3g, actual %.3g".formatted(operand.name(), rmsLimit,
                    Math.sqrt(squares / finite));
        }
        return null;
    }

    private boolean isInLogDomain() {
        return this == ROOT_MEAN_SQUARE || this == GRADIENT_ROOT_MEAN_SQUARE;
    }

    private static boolean within(DType dtype, double expected, double found, double limit) {
        if (Double.isNaN(expected) || Double.isNaN(found)) {
            return Double.isNaN(expected) && Double.isNaN(found);
        }
        if (Double.isInfinite(expected) || Double.isInfinite(found)) {
            double rounded = dtype.isFloat() ? Rounding.nearest(dtype, expected) : expected;
            return rounded == found;
        }
        return Math.abs(found - expected) <= limit;
    }

    /// Of a value's size: one unit in the last place of an f32 result, as a library function may be off by one; half a
    /// unit of a 16-bit float, whose last rounding alone counts.
    private double floor(DType dtype) {
        return switch (dtype) {
            case F32 -> isInLogDomain() ? LOG_DOMAIN_FLOOR : this == E4M3_PRODUCT ? E4M3_FLOOR : 0x1p-23;
            case BF16 -> 0x1p-9;
            case F16 -> 0x1p-12;
            default -> 0;
        };
    }
}
