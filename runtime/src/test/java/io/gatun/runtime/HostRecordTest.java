package io.gatun.runtime;

import static org.junit.jupiter.api.Assertions.assertArrayEquals;
import static org.junit.jupiter.api.Assertions.assertEquals;
import static org.junit.jupiter.api.Assertions.assertThrows;

import org.junit.jupiter.api.Test;

class HostRecordTest extends DeviceFixture {
    @Test
    void read_seesWhatWasWritten() {
        HostRecord record = arena.allocateRecord(3);
        assertEquals("i32[3]", record.tensor().toString());
        record.tensor().copyFrom(stream, 7L, -1L, 1L << 30);
        long before = device.counters().snapshot().deviceToHost();
        int[] into = {0, 0, 0, 99};
        record.read(stream, into, 2);
        assertArrayEquals(new int[] {7, -1, 0, 99}, into);
        record.read(stream, into, 3);
        assertArrayEquals(new int[] {7, -1, 1 << 30, 99}, into);
        assertEquals(20, device.counters().snapshot().deviceToHost() - before);
        record.tensor().slice(0, 0, 1).copyFrom(stream, 8L);
        record.read(stream, into, 1);
        assertEquals(8, into[0]);
    }

    @Test
    void read_tooMany() {
        HostRecord record = arena.allocateRecord(3);
        assertThrows(IndexOutOfBoundsException.class, () -> record.read(stream, new int[9], 4));
        assertThrows(IndexOutOfBoundsException.class, () -> record.read(stream, new int[2], 3));
        assertThrows(IndexOutOfBoundsException.class, () -> record.read(stream, new int[2], -1));
        assertEquals(0, device.counters().snapshot().deviceToHost());
        record.read(stream, new int[3], 3);
    }

    @Test
    void read_afterClose() {
        DeviceArena other = device.newArena("other");
        HostRecord record = other.allocateRecord(1);
        other.close();
        assertThrows(IllegalStateException.class, () -> record.read(stream, new int[1], 1));
        assertThrows(IllegalStateException.class, () -> record.tensor().toLongs(stream));
    }

    /// Reading claims the stream, so that a close meanwhile waits for it.
    @Test
    void read_whileTheStreamIsInUse() {
        HostRecord record = arena.allocateRecord(1);
        stream.enter("a long op");
        assertThrows(IllegalStateException.class, () -> record.read(stream, new int[1], 1));
        stream.exit();
        try (Device other = Device.open("cpu"); Stream foreign = other.newStream()) {
            assertThrows(GatunException.class, () -> record.read(foreign, new int[1], 1));
        }
    }
}
