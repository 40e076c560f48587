package io.gatun.models;

import io.gatun.ops.Attention;
import io.gatun.ops.Elementwise;
import io.gatun.runtime.Device;
import io.gatun.runtime.DeviceArena;
import io.gatun.runtime.GatunException;
import io.gatun.runtime.Stream;
import io.gatun.runtime.Tensor;
import org.jspecify.annotations.Nullable;

/// Keys and values of all sequences, in pages of [Attention#PAGE_SIZE] positions. A page may be shared by several
/// sequences (beams) and counts its users. Driven by the engine thread alone.
public final class KvCache implements AutoCloseable {
    private final DeviceArena arena;
    private final Tensor[] keys;
    private final Tensor[] values;
    private final Tensor pool;
    private final @Nullable Tensor[] pageViews;
    private final int[] users;
    private final int[] free;
    private int numFree;

    /// @param numPages pages per layer
    public KvCache(Device device, ModelConfig config, int numPages) {
        this.arena = device.newArena("key/value cache");
        this.keys = new Tensor[config.layers()];
        this.values = new Tensor[config.layers()];
        this.pageViews = new Tensor[numPages];
        this.users = new int[numPages];
        this.free = new int[numPages];
        try {
            pool = arena.allocate(config.dtype(), 2L * config.layers(), numPages,
                    (long) config.kvHeads() * Attention.PAGE_SIZE * config.headDim());
        } catch (RuntimeException e) {
            arena.close();
            throw e;
        }
        for (int i = 0; i < config.layers(); i++) {
            keys[i] = pool.select(0, 2L * i).reshape(numPages, config.kvHeads(), Attention.PAGE_SIZE, config.headDim());
            values[i] = pool.select(0, 2L * i + 1).reshape(numPages, config.kvHeads(), Attention.PAGE_SIZE,
                    config.headDim());
        }
        for (int page = 0; page < numPages; page++) {
            free[page] = numPages - 1 - page;
        }
        numFree = numPages;
    }

    /// Bytes of one page over all layers.
    public static long pageBytes(ModelConfig config) {
        long elements = 2L * config.layers() * config.kvHeads() * Attention.PAGE_SIZE * config.headDim();
        return elements * config.dtype().bytes();
    }

    /// Pages that hold so many positions.
    public static int pagesFor(int positions) {
        return (positions + Attention.PAGE_SIZE - 1) / Attention.PAGE_SIZE;
    }

    /// [pages, G, P, D] of a layer.
    public Tensor keys(int layer) {
        return keys[layer];
    }

    /// [pages, G, P, D] of a layer.
    public Tensor values(int layer) {
        return values[layer];
    }

    public int freePages() {
        return numFree;
    }

    /// Takes pages for one user.
    public int[] allocate(int count) {
        if (count > numFree) {
            throw new GatunException(GatunException.Status.OUT_OF_MEMORY,
                    ("the key/value cache has %d of %d pages free, %d needed (%d positions a page): ask for"
                            + " fewer tokens or sequences, or load the model with more cache tokens")
                            .formatted(numFree, users.length, count, Attention.PAGE_SIZE));
        }
        int[] pages = new int[count];
        for (int i = 0; i < count; i++) {
            pages[i] = free[--numFree];
            users[pages[i]] = 1;
        }
        return pages;
    }

    /// Adds a user to a page.
    public void share(int page) {
        users[page]++;
    }

    public boolean isShared(int page) {
        return users[page] > 1;
    }

    /// Ends one user's use of pages.
    public void release(int... pages) {
        for (int page : pages) {
            if (--users[page] == 0) {
                free[numFree++] = page;
            }
        }
    }

    /// Copies a page of all layers, on the device.
    public void copyPage(Stream stream, int from, int to) {
        Elementwise.copy(stream, pageView(to), pageView(from));
    }

    /// [2 L, G P D], made once per page.
    private Tensor pageView(int page) {
        Tensor view = pageViews[page];
        if (view == null) {
            view = pool.select(1, page);
            pageViews[page] = view;
        }
        return view;
    }

    @Override
    public void close() {
        arena.close();
    }
}
