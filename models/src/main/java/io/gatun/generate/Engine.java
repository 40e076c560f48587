package io.gatun.generate;

import io.gatun.runtime.GatunException;
import io.gatun.runtime.GatunException.Status;
import java.util.ArrayDeque;
import java.util.Deque;
import java.util.concurrent.Callable;
import java.util.concurrent.ExecutionException;
import java.util.concurrent.FutureTask;
import java.util.concurrent.locks.Condition;
import java.util.concurrent.locks.ReentrantLock;
import java.util.function.Consumer;
import java.util.function.Function;
import org.jspecify.annotations.Nullable;

/// The one thread that drives a model's device, with a bounded queue in front. Callers park; they never hold a lock
/// across device work. The thread also loads the model and closes it, so everything on the device has one owner.
final class Engine<M extends AutoCloseable> {
    private final ReentrantLock lock = new ReentrantLock();
    private final Condition changed = lock.newCondition();
    private final Deque<Request> queue = new ArrayDeque<>();
    private final int capacity;
    private final Thread thread;
    private final FutureTask<M> loading;
    private @Nullable Request running;
    private boolean closing;

    /// @param load runs first on the thread; its result is closed last
    /// @param run  carries out a request
    Engine(String name, int capacity, Callable<M> load, Function<M, Consumer<Request>> run) {
        this.capacity = capacity;
        this.loading = new FutureTask<>(load);
        this.thread = new Thread(() -> serve(run), name);
        thread.setDaemon(true);
        thread.start();
    }

    /// Waits for the model; throws what loading threw.
    M awaitLoaded() {
        try {
            return loading.get();
        } catch (ExecutionException e) {
            if (e.getCause() instanceof RuntimeException failure) {
                throw failure;
            }
            if (e.getCause() instanceof Error error) {
                throw error;
            }
            throw new GatunException(Status.INTERNAL, "loading failed: " + e.getCause(), e.getCause());
        } catch (InterruptedException e) {
            Thread.currentThread().interrupt();
            close();
            throw new GatunException(Status.CANCELLED, "interrupted while the model was loading", e);
        }
    }

    /// Queues a request.
    ///
    /// @throws GatunException when the queue is full
    void submit(Request request) {
        lock.lock();
        try {
            if (closing) {
                throw new IllegalStateException("the model is closed");
            }
            if (queue.size() >= capacity) {
                throw new GatunException(Status.BUSY, "the queue of %d requests is full: try again later"
                        .formatted(capacity));
            }
            queue.add(request);
            changed.signal();
        } finally {
            lock.unlock();
        }
    }

    /// Requests that wait or run.
    int pending() {
        lock.lock();
        try {
            return queue.size() + (running == null ? 0 : 1);
        } finally {
            lock.unlock();
        }
    }

    /// Cancels what runs and waits, frees the model and waits for that. Twice is fine.
    void close() {
        lock.lock();
        try {
            closing = true;
            if (running != null) {
                running.cancel();
            }
            changed.signal();
        } finally {
            lock.unlock();
        }
        boolean interrupted = false;
        while (thread.isAlive() && thread != Thread.currentThread()) {
            try {
                thread.join();
            } catch (InterruptedException e) {
                interrupted = true;
            }
        }
        if (interrupted) {
            Thread.currentThread().interrupt();
        }
    }

    private void serve(Function<M, Consumer<Request>> run) {
        loading.run();
        M model;
        try {
            model = loading.get();
        } catch (ExecutionException | InterruptedException e) {
            return; // awaitLoaded reports it
        }
        try (model) {
            Consumer<Request> runner = run.apply(model);
            for (Request request = next(); request != null; request = next()) {
                try {
                    runner.accept(request);
                } catch (RuntimeException | Error e) {
                    request.outcome.completeExceptionally(e);
                }
            }
        } catch (Exception e) {
            System.getLogger("io.gatun.generate").log(System.Logger.Level.WARNING, "the engine thread ended"
                    + " with an error", e);
        } finally {
            failQueued();
        }
    }

    /// The next request, or null when the engine closes.
    private @Nullable Request next() {
        lock.lock();
        try {
            running = null;
            while (queue.isEmpty() && !closing) {
                changed.awaitUninterruptibly();
            }
            if (closing) {
                return null;
            }
            running = queue.remove();
            return running;
        } finally {
            lock.unlock();
        }
    }

    private void failQueued() {
        lock.lock();
        try {
            closing = true;
            queue.forEach(request -> request.outcome.completeExceptionally(
                    new GatunException(Status.CANCELLED, "the model was closed before the request ran")));
            queue.clear();
        } finally {
            lock.unlock();
        }
    }
}
