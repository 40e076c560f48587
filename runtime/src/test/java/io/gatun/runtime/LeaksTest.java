package io.gatun.runtime;

import static org.junit.jupiter.api.Assertions.assertEquals;
import static org.junit.jupiter.api.Assertions.assertFalse;
import static org.junit.jupiter.api.Assertions.assertTrue;

import io.gatun.ops.cases.TestDevice;
import org.junit.jupiter.api.Tag;
import org.junit.jupiter.api.Test;

/// Are arenas and workspaces that nobody closed reported, at each level of `-Dgatun.leaks`?
@Tag("device")
class LeaksTest {
    private static final String SITE = "at io.gatun.runtime.LeaksTest$Leaking.forget";

    @Test
    void report_simpleIsTheDefault() throws Exception {
        String output = ChildJvm.run(Leaking.class).text();
        assertTrue(output.contains("open: forgotten with 4096 bytes (-Dgatun.leaks=trace shows where)\n"), output);
        assertTrue(output.contains("open: workspace with 512 bytes (-Dgatun.leaks=trace shows where)\n"), output);
        assertFalse(output.contains("closed in time"), output);
        assertTrue(output.contains("never closed: forgotten with 4096 bytes"), output);
        assertTrue(output.contains("never closed: workspace with 512 bytes"), output);
        assertFalse(output.contains(SITE), output);
        assertTrue(output.endsWith("left: ''\n"), output);
        assertEquals(output.lines().filter(line -> line.startsWith("open: ")).toList(),
                ChildJvm.run(Leaking.class, "-Dgatun.leaks=SIMPLE").text().lines()
                        .filter(line -> line.startsWith("open: ")).toList());
    }

    @Test
    void report_traceNamesTheSite() throws Exception {
        String output = ChildJvm.run(Leaking.class, "-Dgatun.leaks=trace").text();
        int open = output.indexOf("open: forgotten with 4096 bytes\n");
        int warning = output.indexOf("never closed: forgotten with 4096 bytes");
        assertTrue(open >= 0 && warning > open, output);
        assertTrue(output.indexOf(SITE, open) < warning, output);
        assertTrue(output.indexOf(SITE, warning) > 0, output);
    }

    @Test
    void report_offSaysNothing() throws Exception {
        assertEquals("left: ''\n", ChildJvm.run(Leaking.class, "-Dgatun.leaks=off").text());
    }

    /// A wrong spelling must not take the program down: it warns and counts.
    @Test
    void report_unknownLevel() throws Exception {
        String output = ChildJvm.run(Leaking.class, "-Dgatun.leaks=loud").text();
        assertTrue(output.contains("-Dgatun.leaks=loud: expected off, simple or trace"), output);
        assertTrue(output.contains("open: forgotten with 4096 bytes"), output);
    }

    /// Forgets an arena and a workspace, says what is open, and then waits for the collector to find them.
    static final class Leaking {
        private static final int MAX_COLLECTIONS = 500;

        private Leaking() {}

        public static void main(String[] args) throws InterruptedException {
            Device device = Device.open(TestDevice.name());
            device.newArena("closed in time").close();
            device.newWorkspace(256).close();
            forget(device);
            System.out.print(Leaks.report());
            for (int i = 0; i < MAX_COLLECTIONS && !Leaks.report().isEmpty(); i++) {
                System.gc();
                Thread.sleep(10);
            }
            System.out.println("left: '" + Leaks.report() + "'");
        }

        private static void forget(Device device) {
            device.newArena("forgotten").allocate(DType.F32, 1024);
            device.newWorkspace(512).allocate(DType.U8, 1);
        }
    }
}
