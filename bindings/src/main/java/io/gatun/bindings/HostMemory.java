package io.gatun.bindings;

import java.lang.foreign.AddressLayout;
import java.lang.foreign.Arena;
import java.lang.foreign.FunctionDescriptor;
import java.lang.foreign.Linker;
import java.lang.foreign.MemorySegment;
import java.lang.foreign.SymbolLookup;
import java.lang.foreign.ValueLayout;
import java.lang.invoke.MethodHandle;
import java.nio.file.Path;
import org.jspecify.annotations.Nullable;

/// The few functions of the C library that the runtime needs: memory that is not cleared and whose failure is a value,
/// views of foreign addresses, and the reason why a library did not open.
public final class HostMemory {
    private static final Linker LINKER = Linker.nativeLinker();
    private static final AddressLayout POINTER = ValueLayout.ADDRESS;
    private static final long ALIGNMENT = 256;
    private static final MethodHandle ALIGNED_ALLOC = handle("aligned_alloc",
            FunctionDescriptor.of(ValueLayout.JAVA_LONG, ValueLayout.JAVA_LONG, ValueLayout.JAVA_LONG));
    private static final MethodHandle FREE = handle("free", FunctionDescriptor.ofVoid(ValueLayout.JAVA_LONG));

    private HostMemory() {}

    private static MethodHandle handle(String name, FunctionDescriptor descriptor) {
        return LINKER.downcallHandle(LINKER.defaultLookup().findOrThrow(name), descriptor);
    }

    /// The address of `bytes` uncleared bytes at a multiple of 256, or 0 when there is no memory.
    public static long allocate(long bytes) {
        if (bytes > Long.MAX_VALUE - ALIGNMENT) {
            return 0;
        }
        try {
            return (long) ALIGNED_ALLOC.invokeExact(ALIGNMENT, Math.max(ALIGNMENT, bytes + ALIGNMENT - 1 & -ALIGNMENT));
        } catch (Throwable e) {
            throw unexpected(e);
        }
    }

    /// Frees what [#allocate] gave; 0 is ignored.
    public static void free(long address) {
        try {
            FREE.invokeExact(address);
        } catch (Throwable e) {
            throw unexpected(e);
        }
    }

    /// A segment over memory that somebody else owns and keeps alive.
    public static MemorySegment view(long address, long bytes) {
        return MemorySegment.ofAddress(address).reinterpret(bytes);
    }

    /// A C string that somebody else owns.
    public static String string(MemorySegment pointer) {
        return pointer.equals(MemorySegment.NULL) ? "" : pointer.reinterpret(Long.MAX_VALUE).getString(0);
    }

    /// The calling thread's OpenMP teams, as a library that links libgomp sees them.
    public static final class OpenMp {
        private final MethodHandle setNumThreads;

        public OpenMp(SymbolLookup libraryWithOpenMp) {
            setNumThreads = LINKER.downcallHandle(libraryWithOpenMp.findOrThrow("omp_set_num_threads"),
                    FunctionDescriptor.ofVoid(ValueLayout.JAVA_INT));
        }

        /// Sets the size of the teams that the calling thread starts.
        public void setThreads(int threads) {
            try {
                setNumThreads.invokeExact(threads);
            } catch (Throwable e) {
                throw unexpected(e);
            }
        }
    }

    /// Lets idle OpenMP threads spin for microseconds instead of milliseconds before they sleep, unless the environment
    /// says otherwise. With any other busy thread on the machine, such as the JVM's own compilers, the default makes a
    /// product of 0.4 ms take 10 ms. libgomp reads the environment when it is opened.
    static void limitOpenMpSpinning() {
        if (System.getenv("GOMP_SPINCOUNT") != null || System.getenv("OMP_WAIT_POLICY") != null) {
            return;
        }
        MethodHandle setenv = handle("setenv", FunctionDescriptor.of(ValueLayout.JAVA_INT, POINTER, POINTER,
                ValueLayout.JAVA_INT));
        try (Arena arena = Arena.ofConfined()) {
            int ignored = (int) setenv.invokeExact(arena.allocateFrom("GOMP_SPINCOUNT"), arena.allocateFrom("10000"),
                    0);
        } catch (Throwable e) {
            throw unexpected(e);
        }
    }

    /// Opens a library; null when that worked, else the loader's own words.
    static @Nullable String dlopen(Path file) {
        MethodHandle open = handle("dlopen", FunctionDescriptor.of(POINTER, POINTER, ValueLayout.JAVA_INT));
        MethodHandle error = handle("dlerror", FunctionDescriptor.of(POINTER));
        final int rtldNow = 2;
        try (Arena arena = Arena.ofConfined()) {
            MemorySegment library = (MemorySegment) open.invokeExact(arena.allocateFrom(file.toString()), rtldNow);
            return library.address() != 0 ? null : string((MemorySegment) error.invokeExact());
        } catch (Throwable e) {
            throw unexpected(e);
        }
    }

    /// A method handle of the C library throws nothing by itself.
    private static RuntimeException unexpected(Throwable e) {
        if (e instanceof RuntimeException r) {
            return r;
        }
        if (e instanceof Error error) {
            throw error;
        }
        return new IllegalStateException(e);
    }
}
