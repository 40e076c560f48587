package io.gatun.train;

import io.gatun.runtime.Tensor;
import java.util.ArrayList;
import java.util.Comparator;
import java.util.List;
import java.util.stream.IntStream;
import org.jspecify.annotations.Nullable;

/// Which elements of a value a view of it sees, and so which of the value's gradient: counted in elements from its
/// first.
///
/// @param offset of the view's first element
record GradientView(long offset, List<Long> shape, List<Long> stride) {
    static GradientView of(Tensor x, Tensor value) {
        List<Long> shape = new ArrayList<>();
        List<Long> stride = new ArrayList<>();
        for (int d = 0; d < x.rank(); d++) {
            shape.add(x.size(d));
            stride.add(x.stride(d));
        }
        return new GradientView(x.offset() - value.offset(), shape, stride);
    }

    long elements() {
        return shape.stream().reduce(1L, (a, b) -> a * b);
    }

    /// No element is named twice, so as many elements are all of them.
    boolean covers(long elements) {
        return offset == 0 && elements() == elements && isInjective();
    }

    /// Whether it is plain to see that no element is named twice.
    private boolean isInjective() {
        Columns columns = columns();
        return columns != null && columns.seen <= columns.width;
    }

    /// Whether a dimension names the same elements again and again.
    boolean repeats() {
        return IntStream.range(0, shape.size()).anyMatch(d -> shape.get(d) > 1 && stride.get(d) == 0);
    }

    Tensor in(Tensor memory) {
        Tensor flat = memory.reshape(memory.elements());
        return flat.slice(0, offset, flat.elements()).strided(shape.stream().mapToLong(n -> n).toArray(),
                stride.stream().mapToLong(n -> n).toArray());
    }

    /// Whether no two different views of these have an element in common, as far as that is plain to see: all are
    /// columns of rows of one width, and different ones are different columns.
    static boolean areDisjoint(List<GradientView> views) {
        List<GradientView> distinct = views.stream().distinct().toList();
        for (int i = 0; i < distinct.size(); i++) {
            for (int k = 0; k < i; k++) {
                if (!distinct.get(i).isBeside(distinct.get(k))) {
                    return false;
                }
            }
        }
        return distinct.stream().allMatch(GradientView::isInjective);
    }

    private boolean isBeside(GradientView other) {
        Columns mine = columns();
        Columns others = other.columns();
        if (mine == null || others == null || mine.width != others.width) {
            return false;
        }
        long a = offset % mine.width;
        long b = other.offset % mine.width;
        return a + mine.seen <= mine.width && b + others.seen <= mine.width
                && (a + mine.seen <= b || b + others.seen <= a);
    }

    /// @param width of a row: the step from row to row
    /// @param seen  elements of each row, side by side
    private record Columns(long width, long seen) {}

    /// What is seen as columns of rows; a contiguous view is one row of all. Null where it is no such thing. The order
    /// of the dimensions does not matter.
    private @Nullable Columns columns() {
        List<Integer> dims = IntStream.range(0, shape.size()).filter(d -> shape.get(d) != 1).boxed()
                .sorted(Comparator.comparing(stride::get)).toList();
        if (repeats()) {
            return null;
        }
        long seen = 1;
        long width = Long.MAX_VALUE;
        for (int d : dims) {
            if (width == Long.MAX_VALUE && stride.get(d) == seen) {
                seen *= shape.get(d);
            } else if (width == Long.MAX_VALUE) {
                width = stride.get(d);
            } else if (stride.get(d) % width != 0) {
                return null;
            }
        }
        return new Columns(width, seen);
    }
}
