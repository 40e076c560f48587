package io.gatun.runtime;

import static org.junit.jupiter.api.Assertions.assertEquals;
import static org.junit.jupiter.api.Assertions.assertInstanceOf;
import static org.junit.jupiter.api.Assertions.assertThrows;
import static org.junit.jupiter.api.Assertions.assertTrue;
import static org.junit.jupiter.api.Assumptions.assumeTrue;

import io.gatun.ops.Elementwise;
import java.io.IOException;
import java.nio.file.Files;
import java.nio.file.Path;
import org.junit.jupiter.api.Test;
import org.junit.jupiter.api.io.TempDir;
import org.junit.jupiter.params.ParameterizedTest;
import org.junit.jupiter.params.provider.ValueSource;

class DeviceTest {
    @Test
    void open_cpu() {
        try (Device device = Device.open("cpu", new Device.Options(3))) {
            assertEquals("cpu", device.name());
            assertEquals("cpu", device.toString());
            assertEquals(3, assertInstanceOf(CpuDevice.class, device).threads());
            assertTrue(device.description().startsWith("cpu: 3 threads, "), device.description());
            assertTrue(device.description().contains("libgatun"), device.description());
            assertTrue(device.addressesHostMemory());
            assertTrue(device.memoryTotal() > 1 << 20 && device.memoryFree() <= device.memoryTotal());
        }
    }

    @Test
    void open_allCores() {
        try (Device device = Device.open("cpu"); Stream stream = device.newStream()) {
            assertEquals(Runtime.getRuntime().availableProcessors(), stream.numThreads());
        }
    }

    @ParameterizedTest
    @ValueSource(strings = {"", "gpu", "CPU", "cpu:0", "cuda:", "cuda:x", "cuda:-1", "cuda:99999", " cuda"})
    void open_badSpec(String spec) {
        GatunException e = assertThrows(GatunException.class, () -> Device.open(spec));
        assertEquals(GatunException.Status.INVALID_ARGUMENT, e.status());
        assertEquals("device '" + spec + "': expected auto, cpu, cuda or cuda:N", e.getMessage());
    }

    @Test
    void driverVersion_ofBothModules(@TempDir Path folder) throws IOException {
        Path facts = folder.resolve("version");
        assertEquals("", CudaSearch.driverVersion(facts));
        Files.writeString(facts, "NVRM version: NVIDIA UNIX x86_64 Kernel Module  580.82.07  Wed Aug 27 16:15:51 UTC\n"
                + "GCC version:  gcc version 12.2.0 (Debian 12.2.0-14)\n");
        assertEquals("580.82.07", CudaSearch.driverVersion(facts));
        Files.writeString(facts, "NVRM version: NVIDIA UNIX Open Kernel Module for x86_64  580.95  Release Build\n");
        assertEquals("580.95", CudaSearch.driverVersion(facts));
    }

    @ParameterizedTest
    @ValueSource(strings = {"cuda", "cuda:1"})
    void open_cudaWithoutDriver(String spec) {
        assumeTrue(CudaSearch.report().stream().anyMatch(line -> line.contains("libcuda.so.1 not found")),
                "this machine has a CUDA driver");
        DeviceUnavailableException e = assertThrows(DeviceUnavailableException.class, () -> Device.open(spec));
        assertEquals(GatunException.Status.UNSUPPORTED, e.status());
        assertTrue(e.getMessage().startsWith("device '" + spec + "' is not available: libcuda.so.1 not found: install"),
                e.getMessage());
        for (Path folder : CudaSearch.folders()) {
            assertTrue(e.getMessage().contains(folder.toString()), folder + " in: " + e.getMessage());
        }
        assertTrue(e.getMessage().endsWith("or use --device cpu"), e.getMessage());
    }

    /// As `gatun doctor` says.
    @Test
    void open_librariesOfTwoVersionsOfCuda(@TempDir Path folder) throws Exception {
        Path cudart = Files.createFile(folder.resolve("libcudart.so.13"));
        Path cublasLt = Files.createFile(folder.resolve("libcublasLt.so.12"));
        String said = ChildJvm.run(OpenCuda.class, "-Dgatun.cuda.path=" + folder).text();
        assertEquals(2, said.split("libcublasLt.so.13 not found, but %s, which is of another CUDA than %s: install"
                .formatted(cublasLt, cudart), -1).length - 1, "in the report and in the exception: " + said);
        assertTrue(said.contains("device 'cuda' is not available: libcublasLt.so.13 not found"), said);
    }

    static final class OpenCuda {
        private OpenCuda() {}

        public static void main(String[] args) {
            CudaSearch.report().forEach(System.out::println);
            try (Device device = Device.open("cuda")) {
                System.out.println(device);
            } catch (DeviceUnavailableException e) {
                System.out.println(e.getMessage());
            }
        }
    }

    @ParameterizedTest
    @ValueSource(ints = {-1, Integer.MIN_VALUE, Device.Options.MAX_THREADS + 1, Integer.MAX_VALUE})
    void options_badThreads(int threads) {
        GatunException e = assertThrows(GatunException.class, () -> new Device.Options(threads));
        assertTrue(e.getMessage().startsWith("threads is " + threads + ", expected 0 (all cores) to "), e.getMessage());
    }

    @Test
    void close_twice() {
        Device device = Device.open("cpu");
        device.newStream();
        device.close();
        device.close();
    }

    /// `-Dgatun.sync=true` waits after each op and changes no result.
    @Test
    void sync_givesTheSame() throws Exception {
        assertEquals("3.0 6.0 launches 2\n", ChildJvm.run(TwoOps.class, "-Dgatun.sync=true").text());
        assertEquals("3.0 6.0 launches 2\n", ChildJvm.run(TwoOps.class).text());
    }

    static final class TwoOps {
        private TwoOps() {}

        public static void main(String[] args) {
            try (Device device = Device.open("cpu");
                    Stream stream = device.newStream();
                    DeviceArena arena = device.newArena("two ops")) {
                Tensor x = arena.allocate(DType.F32, 2);
                x.copyFrom(stream, 1f, 2f);
                Elementwise.scale(stream, x, x, 2);
                Elementwise.scale(stream, x, x, 1.5f);
                float[] values = x.toFloats(stream);
                System.out.println(values[0] + " " + values[1] + " launches "
                        + device.counters().snapshot().launches());
            }
        }
    }

    /// Naming a dtype loads nothing, so that the first complaint about a bad library comes from opening the device.
    @Test
    void open_libraryThatCannotBeOpened() throws Exception {
        String output = ChildJvm.run(NoLibrary.class, "-Dgatun.native.path=/absent/libgatun.so").text();
        assertEquals("bf16\n" + ("UNSUPPORTED libgatun: no readable file /absent/libgatun.so"
                + " (from -Dgatun.native.path)\n").repeat(2), output);
    }

    static final class NoLibrary {
        private NoLibrary() {}

        public static void main(String[] args) {
            System.out.println(DType.BF16);
            for (int i = 0; i < 2; i++) {
                try {
                    Device.open("cpu").close();
                } catch (GatunException e) {
                    System.out.println(e.status() + " " + e.getMessage());
                }
            }
        }
    }
}
