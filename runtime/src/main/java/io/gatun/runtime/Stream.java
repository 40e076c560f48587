package io.gatun.runtime;

import io.gatun.bindings.HostMemory;
import io.gatun.bindings.gatun.Gatun;
import io.gatun.bindings.gatun.gt_stream;
import java.lang.foreign.MemorySegment;
import java.lang.invoke.MethodHandles;
import java.lang.invoke.VarHandle;
import java.util.LinkedHashSet;
import java.util.Set;
import org.jspecify.annotations.Nullable;

/// Work in order on one device. A stream serves one thread at a time; a second thread that comes while an op runs gets
/// an [IllegalStateException] instead of a race. On the CPU an op has finished when its call returns.
///
/// An op is bracketed by [#enter] and [#exit]. In between the memory of every arena of the device stays where it is:
/// a close that arrives meanwhile waits for [#exit].
public final class Stream implements AutoCloseable {
    private static final VarHandle USER;

    static {
        try {
            USER = MethodHandles.lookup().findVarHandle(Stream.class, "user", Thread.class);
        } catch (ReflectiveOperationException e) {
            throw new ExceptionInInitializerError(e);
        }
    }

    private final Device device;
    private final MemorySegment descriptor;
    private final int numThreads;
    private volatile boolean open = true;
    private boolean freed;
    /// What the operands of a capture depend on; null: no capture.
    private @Nullable Set<Lifetime> captured;
    /// The thread that captures.
    private volatile @Nullable Thread capturing;
    private @Nullable KernelEvent event;

    /// The thread inside an op; set with a full fence, see [Lifetime].
    @SuppressWarnings("unused")
    private volatile @Nullable Thread user;

    Stream(Device device, int deviceKind, int ordinal, MemorySegment handle, int numThreads) {
        this.device = device;
        this.numThreads = numThreads;
        this.descriptor = HostMemory.view(HostMemory.allocate(gt_stream.sizeof()), gt_stream.sizeof());
        gt_stream.device(descriptor, deviceKind);
        gt_stream.ordinal(descriptor, ordinal);
        gt_stream.handle(descriptor, handle);
        gt_stream.num_threads(descriptor, numThreads);
        gt_stream.reserved(descriptor, 0);
    }

    public Device device() {
        return device;
    }

    /// CPU threads that an op of this stream may use. Results do not depend on it.
    public int numThreads() {
        return numThreads;
    }

    /// Waits until all work given to this stream has finished.
    public void synchronize() {
        device.synchronize(this);
    }

    /// What is given to this stream from now on begins after the event, which may be another stream's.
    public void waitFor(Event event) {
        device.waitFor(this, event);
    }

    /// Ends the stream's use; twice is fine. Work given to it finishes first; a capture by another thread ends, for its
    /// next op throws.
    @Override
    public void close() {
        if (capturing == Thread.currentThread()) {
            throw new IllegalStateException("the stream is being captured: close it when the capture has ended");
        }
        if (open) {
            open = false;
            awaitIdle();
            while (capturing != null) {
                Thread.onSpinWait();
            }
            Endings.all(this::synchronizeUnlessLost, () -> device.forget(this), this::freeDescriptor);
        }
    }

    private void synchronizeUnlessLost() {
        try {
            device.synchronize(this);
        } catch (DeviceLostException e) {
            // nothing of its work is left to wait for
        }
    }

    private synchronized void freeDescriptor() {
        if (!freed) {
            freed = true;
            HostMemory.free(descriptor.address());
        }
    }

    /// Begins a native call: claims the stream for this thread. For classes that bind ops.
    public void enter(String op) {
        if (!USER.compareAndSet(this, null, Thread.currentThread())) {
            throw new IllegalStateException(op + ": the stream is in use by thread '" + nameOf(user)
                    + "'; a stream serves one thread at a time");
        }
        if (!open) {
            USER.setRelease(this, null);
            throw new IllegalStateException(op + ": the stream is closed");
        }
        try {
            device.prepareThread();
        } catch (RuntimeException e) {
            USER.setRelease(this, null);
            throw e;
        }
        if (KernelEvent.enabled()) {
            event = KernelEvent.begin(op);
        }
    }

    /// Ends a native call.
    public void exit() {
        KernelEvent running = event;
        if (running != null) {
            event = null;
            running.commit();
        }
        USER.setRelease(this, null);
    }

    /// Throws what a status other than `GT_OK` says, and counts the launch.
    public void check(int status) {
        if (status != Gatun.GT_OK()) {
            throw device.explain(NativeErrors.translate(status), this);
        }
        device.countLaunch(this);
        if (device.synchronizesEachOp()) {
            device.synchronizeEntered(this);
        }
    }

    /// As [#check], for a call that starts nothing.
    public void checkQuery(int status) {
        if (status != Gatun.GT_OK()) {
            throw NativeErrors.translate(status);
        }
    }

    /// The `gt_stream` for a native call. For classes that bind ops.
    public MemorySegment descriptor() {
        return descriptor;
    }

    boolean isCapturing() {
        return captured != null;
    }

    /// From now on work is recorded; the result fills with what its operands depend on. Whoever closes the stream waits
    /// for [#endCapture].
    synchronized Set<Lifetime> beginCapture() {
        if (capturing != null) {
            throw new IllegalStateException("the stream is being captured already");
        }
        capturing = Thread.currentThread();
        if (!open) {
            capturing = null;
            throw new IllegalStateException("capture: the stream is closed");
        }
        Set<Lifetime> operands = new LinkedHashSet<>();
        captured = operands;
        return operands;
    }

    void endCapture() {
        captured = null;
        capturing = null;
    }

    /// An operand of the op that this stream has been entered for.
    void uses(Lifetime operand) {
        Set<Lifetime> operands = captured;
        if (operands != null) {
            operands.add(operand);
        }
    }

    void awaitIdle() {
        while (user != null && user != Thread.currentThread()) {
            Thread.onSpinWait();
        }
    }

    private static String nameOf(@Nullable Thread thread) {
        return thread == null ? "?" : thread.getName();
    }
}
