package io.gatun.diffusion;

/// The last few values of something, each kept in a slot of state until it is overwritten in turn.
///
/// @param first the first slot
/// @param size  how many are kept
record History(int first, int size) {
    /// The slot that the n-th value is kept in.
    int slot(int n) {
        return first + n % size;
    }

    /// The value that came `back` before the n-th; back is at most `size`.
    Combination before(int n, int back) {
        return Combination.state(slot(n - back));
    }
}
