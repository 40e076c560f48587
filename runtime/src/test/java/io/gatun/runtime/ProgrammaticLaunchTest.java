package io.gatun.runtime;

import static org.junit.jupiter.api.Assertions.assertDoesNotThrow;
import static org.junit.jupiter.api.Assertions.assertEquals;
import static org.junit.jupiter.api.Assertions.assertThrows;
import static org.junit.jupiter.api.Assertions.assertTrue;
import static org.junit.jupiter.api.Assumptions.assumeTrue;

import java.util.Map;
import org.jspecify.annotations.Nullable;
import org.junit.jupiter.api.Tag;
import org.junit.jupiter.api.Test;
import org.junit.jupiter.params.ParameterizedTest;
import org.junit.jupiter.params.provider.NullSource;
import org.junit.jupiter.params.provider.ValueSource;

/// Is a value of the environment variable that means nothing refused when a CUDA device is opened?
@Tag("cuda")
class ProgrammaticLaunchTest {
    @ParameterizedTest
    @NullSource
    @ValueSource(strings = {"on", "off"})
    void value_isTaken(@Nullable String value) {
        assertDoesNotThrow(() -> ProgrammaticLaunch.check(value));
    }

    @ParameterizedTest
    @ValueSource(strings = {"", "Off", "0", "maybe", " off"})
    void value_isRefused(String value) {
        GatunException e = assertThrows(GatunException.class, () -> ProgrammaticLaunch.check(value));
        assertEquals(GatunException.Status.INVALID_ARGUMENT, e.status());
        assertEquals("the environment variable GATUN_PROGRAMMATIC_LAUNCH is '" + value
                + "', expected on or off, or no such variable", e.getMessage());
    }

    @Test
    void open_readsTheVariable() throws Exception {
        assumeTrue(System.getProperty("gatun.cuda.path") != null, "needs the folder of CUDA's libraries");
        for (String spec : new String[] {"cuda", "auto"}) {
            String output = ChildJvm.run(Open.class, Map.of(ProgrammaticLaunch.VARIABLE, "maybe", "DEVICE", spec))
                    .output();
            assertTrue(output.contains("GATUN_PROGRAMMATIC_LAUNCH is 'maybe', expected on or off"), output);
        }
        assertEquals("cuda:0\n", ChildJvm.run(Open.class, Map.of(ProgrammaticLaunch.VARIABLE, "off", "DEVICE", "auto"))
                .text());
    }

    static final class Open {
        private Open() {}

        public static void main(String[] args) {
            try (Device device = Device.open(System.getenv("DEVICE"))) {
                System.out.println(device.name());
            }
        }
    }
}
