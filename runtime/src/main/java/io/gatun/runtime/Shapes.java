package io.gatun.runtime;

/// Tensors without memory: a dtype, a shape and views, to count parameters and to measure memory before anything is
/// loaded. Using one in an op throws. `close()` twice is fine.
public final class Shapes implements AutoCloseable {
    private final Lifetime lifetime;

    public Shapes(Device device) {
        this.lifetime = Lifetime.measuring(device);
    }

    public Tensor of(DType dtype, long... shape) {
        Tensor.bytes(dtype, shape);
        return Tensor.contiguous(lifetime, 0, dtype, shape);
    }

    @Override
    public void close() {
        lifetime.closeInOrder();
    }
}
