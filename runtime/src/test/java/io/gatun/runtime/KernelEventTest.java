package io.gatun.runtime;

import static org.junit.jupiter.api.Assertions.assertEquals;
import static org.junit.jupiter.api.Assertions.assertThrows;

import io.gatun.ops.Elementwise;
import io.gatun.ops.Linear.WeightLayout;
import java.io.IOException;
import java.nio.file.Path;
import java.util.Comparator;
import java.util.List;
import jdk.jfr.Recording;
import jdk.jfr.consumer.RecordedEvent;
import jdk.jfr.consumer.RecordingFile;
import org.junit.jupiter.api.Test;
import org.junit.jupiter.api.io.TempDir;

/// Is each op an event of Flight Recorder, when asked for and only then?
class KernelEventTest extends DeviceFixture {
    private static final String NAME = "io.gatun.Kernel";

    @TempDir
    Path folder;

    @Test
    void event_perOpWhenEnabled() throws IOException {
        assertEquals(List.of("scale", "matmul", "copy"), opsRecorded(true));
    }

    @Test
    void event_noneByDefault() throws IOException {
        assertEquals(List.of(), opsRecorded(false));
    }

    private List<String> opsRecorded(boolean enabled) throws IOException {
        Tensor x = counting(20, 4);
        Tensor w = counting(4, 4);
        Tensor y = arena.allocate(DType.F32, 20, 4);
        Path file = folder.resolve("ops.jfr");
        try (Recording recording = new Recording()) {
            if (enabled) {
                recording.enable(NAME);
            }
            recording.start();
            Elementwise.scale(stream, y, x, 2);
            device.matmul(stream, y, x, w, null, WeightLayout.OUT_IN);
            // a refused op has a beginning and an end as well
            assertThrows(GatunException.class, () -> Elementwise.copy(stream, y, w));
            recording.stop();
            recording.dump(file);
        }
        return RecordingFile.readAllEvents(file).stream().filter(event -> event.getEventType().getName().equals(NAME))
                .sorted(Comparator.comparing(RecordedEvent::getStartTime))
                .map(event -> event.getString("op")).toList();
    }
}
