package io.gatun.bindings;

import static org.junit.jupiter.api.Assertions.assertEquals;
import static org.junit.jupiter.api.Assertions.assertNotEquals;

import java.lang.foreign.Arena;
import java.lang.foreign.MemorySegment;
import java.lang.foreign.ValueLayout;
import org.junit.jupiter.api.Test;
import org.junit.jupiter.params.ParameterizedTest;
import org.junit.jupiter.params.provider.ValueSource;

class HostMemoryTest {
    @ParameterizedTest
    @ValueSource(longs = {0, 1, 255, 256, 257, 1 << 20})
    void allocate_isAlignedAndWritable(long bytes) {
        long address = HostMemory.allocate(bytes);
        assertNotEquals(0, address);
        assertEquals(0, address % 256);
        HostMemory.view(address, bytes).fill((byte) 7);
        HostMemory.free(address);
    }

    /// Rounding up to the alignment must not wrap around to a small block.
    @ParameterizedTest
    @ValueSource(longs = {Long.MAX_VALUE, Long.MAX_VALUE - 100, Long.MAX_VALUE - 256, 1L << 60})
    void allocate_absurdSizeIsNoMemory(long bytes) {
        assertEquals(0, HostMemory.allocate(bytes));
    }

    @Test
    void free_nothing() {
        HostMemory.free(0);
    }

    @Test
    void string_ofNullAndOfText() {
        assertEquals("", HostMemory.string(MemorySegment.NULL));
        try (Arena arena = Arena.ofConfined()) {
            MemorySegment text = arena.allocateFrom("schützen");
            assertEquals("schützen", HostMemory.string(MemorySegment.ofAddress(text.address())));
            text.set(ValueLayout.JAVA_BYTE, 0, (byte) 0);
            assertEquals("", HostMemory.string(MemorySegment.ofAddress(text.address())));
        }
    }
}
