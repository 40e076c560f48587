package io.gatun.softgpu;

import static org.junit.jupiter.api.Assertions.assertArrayEquals;
import static org.junit.jupiter.api.Assertions.assertEquals;
import static org.junit.jupiter.api.Assertions.assertThrows;
import static org.junit.jupiter.api.Assertions.assertTrue;

import io.gatun.generate.GenerationResult;
import io.gatun.generate.LanguageModel;
import io.gatun.generate.LanguageModel.Options;
import io.gatun.models.ModelLoader;
import io.gatun.models.Quantization;
import io.gatun.ops.Elementwise;
import io.gatun.runtime.DType;
import io.gatun.runtime.Device;
import io.gatun.runtime.DeviceArena;
import io.gatun.runtime.DeviceLostException;
import io.gatun.runtime.GatunException;
import io.gatun.runtime.OutOfDeviceMemoryException;
import io.gatun.runtime.Stream;
import io.gatun.runtime.Tensor;
import io.gatun.runtime.Upload;
import io.gatun.softgpu.SoftGpu.Counter;
import java.io.IOException;
import java.lang.foreign.Arena;
import java.lang.foreign.MemorySegment;
import java.nio.ByteBuffer;
import java.nio.channels.FileChannel;
import java.nio.file.Path;
import java.nio.file.StandardOpenOption;
import java.util.ArrayList;
import java.util.List;
import java.util.Map;
import java.util.TreeSet;
import org.junit.jupiter.api.DynamicTest;
import org.junit.jupiter.api.Test;
import org.junit.jupiter.api.TestFactory;
import org.junit.jupiter.api.io.TempDir;
import org.junit.jupiter.params.ParameterizedTest;
import org.junit.jupiter.params.provider.EnumSource;
import org.junit.jupiter.params.provider.ValueSource;

/// What happens when a CUDA call fails: does the exception name it, is everything else freed, does the next request
/// work?
class FaultTest extends SoftGpuTest {
    private static final int OUT_OF_MEMORY = 2;
    private static final int LAUNCH_FAILURE = 719;
    private static final int TOKENS = 4;

    private GenerationResult loadAndGenerate() {
        try (LanguageModel model = Models.GPT2.load(1)) {
            return model.generate(Models.PROMPT, Models.greedy(TOKENS));
        }
    }

    /// Every function that loading and generating call, at its first use, in the middle, and at its last.
    @TestFactory
    List<DynamicTest> everyCall_mayFail() {
        gpu.clearCounters();
        int[] expected = loadAndGenerate().ids();
        Map<String, Long> calls = gpu.calls();
        List<DynamicTest> tests = new ArrayList<>();
        calls.forEach((symbol, uses) -> {
            for (long nth : new TreeSet<>(List.of(1L, uses / 2 + 1, uses))) {
                if (uses > 0 && nth <= uses) {
                    tests.add(DynamicTest.dynamicTest(symbol + " use " + nth + " of " + uses, () -> fails(symbol, nth,
                            expected)));
                }
            }
        });
        assertTrue(tests.size() > 60, tests.size() + " tests: " + calls);
        return tests;
    }

    private void fails(String symbol, long nth, int[] expected) {
        reset();
        gpu.clearCounters();
        gpu.fail(symbol, nth, Faults.codeFor(symbol));
        GatunException failure = null;
        try {
            loadAndGenerate();
        } catch (GatunException e) {
            failure = e;
        }
        gpu.clearFaults();
        // How many buffers the readers of an upload take depends on their timing: this time it was fewer.
        boolean happened = nth == 1 || gpu.calls().get(symbol) >= nth;
        if (!happened) {
            assertEquals(null, failure);
        } else if (Faults.HARMLESS.contains(symbol)) {
            assertEquals(null, failure);
        } else {
            // The last calls are those of closing, where a failure is logged: nobody could do anything about it.
            if (failure != null) {
                Faults.assertNames(symbol, failure);
            } else {
                assertTrue(Faults.CLOSING.contains(symbol), symbol + " failed and nobody was told");
            }
            assertEquals(Map.of(), live(), "not freed after " + symbol + " failed");
        }
        assertArrayEquals(expected, loadAndGenerate().ids(), "after " + symbol + " failed");
    }

    /// A failed request ends alone, whichever of its calls failed: the model goes on. A capture that breaks off leaves
    /// a stream that works.
    @TestFactory
    List<DynamicTest> generate_worksAfterAFailedOne() {
        Map<String, Long> calls;
        int[] expected;
        try (LanguageModel model = Models.LLAMA.load(2)) {
            gpu.clearCounters();
            expected = model.generate(Models.PROMPT, Models.greedy(TOKENS)).ids();
            calls = gpu.calls();
        }
        List<DynamicTest> tests = new ArrayList<>();
        calls.forEach((symbol, uses) -> {
            for (long nth : new TreeSet<>(List.of(1L, uses))) {
                if (uses > 0 && !Faults.HARMLESS.contains(symbol)) {
                    tests.add(DynamicTest.dynamicTest(symbol + " use " + nth + " of " + uses,
                            () -> failsAlone(symbol, nth, nth < uses && Faults.CLOSING.contains(symbol), expected)));
                }
            }
        });
        assertTrue(tests.size() > 20, tests.size() + " tests: " + calls);
        return tests;
    }

    /// @param mayClose the use may be that of closing what was needed on the way
    private void failsAlone(String symbol, long nth, boolean mayClose, int[] expected) {
        reset();
        try (LanguageModel model = Models.LLAMA.load(2)) {
            gpu.fail(symbol, nth, Faults.codeFor(symbol));
            GatunException failure = null;
            try {
                model.generate(Models.PROMPT, Models.greedy(TOKENS));
            } catch (GatunException e) {
                failure = e;
            }
            if (failure != null) {
                Faults.assertNames(symbol, failure);
            } else {
                assertTrue(mayClose, symbol + " failed and nobody was told");
            }
            assertArrayEquals(expected, model.generate(Models.PROMPT, Models.greedy(TOKENS)).ids());
        }
        assertEquals(Map.of(), live());
    }

    /// A kernel that faults is noticed at the next wait, and then everything says the same.
    @Test
    void lostDevice_saysTheSameEverywhere() {
        LanguageModel model = Models.GPT2.load(1);
        int[] expected = model.generate(Models.PROMPT, Models.greedy(TOKENS)).ids();
        gpu.failWork(7, LAUNCH_FAILURE);
        DeviceLostException first = assertThrows(DeviceLostException.class,
                () -> model.generate(Models.PROMPT, Models.greedy(TOKENS)));
        assertTrue(first.getMessage().contains("(719)"), first.getMessage());
        DeviceLostException second = assertThrows(DeviceLostException.class,
                () -> model.generate(Models.PROMPT, Models.greedy(TOKENS)));
        assertEquals(first.getMessage(), second.getMessage());
        model.close();
        gpu.reset();
        try (LanguageModel again = Models.GPT2.load(1)) {
            assertArrayEquals(expected, again.generate(Models.PROMPT, Models.greedy(TOKENS)).ids());
        }
    }

    /// As CUDA's documentation names them, and uncorrectable errors of the memory.
    @ParameterizedTest
    @ValueSource(ints = {214, 220, 226, 700, 702, 710, 714, 715, 716, 717, 718, 719, 721, 911, 999})
    void lostDevice_byWhateverEndsTheContext(int code) {
        try (Device device = Device.open("cuda"); Stream stream = device.newStream();
                DeviceArena arena = device.newArena("lost")) {
            Tensor x = arena.allocate(DType.F32, 4);
            gpu.failWork(1, code);
            Elementwise.fill(stream, x, 1);
            DeviceLostException e = assertThrows(DeviceLostException.class, stream::synchronize);
            assertTrue(e.getMessage().contains("(%d): ".formatted(code)), e.getMessage());
        }
        reset();
    }

    /// Whoever waits is told, although Java's Error comes to a thread that reads.
    @Test
    void upload_ofAFileThatBecameShorter(@TempDir Path folder) throws IOException {
        final long bytes = 24L << 20;
        try (FileChannel file = FileChannel.open(folder.resolve("weights"), StandardOpenOption.CREATE_NEW,
                StandardOpenOption.READ, StandardOpenOption.WRITE); Arena mapped = Arena.ofShared();
                Device device = Device.open("cuda"); DeviceArena arena = device.newArena("test");
                Upload upload = new Upload(device)) {
            file.write(ByteBuffer.allocate(1), bytes - 1);
            MemorySegment memory = file.map(FileChannel.MapMode.READ_ONLY, 0, bytes, mapped);
            file.truncate(0);
            upload.add(arena.allocate(DType.U8, bytes), DType.U8, memory);
            GatunException e = assertThrows(GatunException.class, upload::finish);
            assertTrue(e.getMessage().startsWith("loading failed: java.lang.InternalError"), e.getMessage());
        }
    }

    /// Also when it is the last copy that faults: a load that returned has its weights.
    @ParameterizedTest
    @EnumSource
    void load_copyFaults(Quantization quantization) {
        DType dtype = quantization == Quantization.NONE ? DType.F32 : DType.BF16;
        long copies;
        try (Device device = Device.open("cuda"); Stream stream = device.newStream()) {
            gpu.clearCounters();
            ModelLoader.load(device, stream, Models.GPT2.directory(), dtype, quantization, n -> {}).close();
            copies = gpu.counter(Counter.COPIES_TO_DEVICE);
        }
        for (long nth : new long[] {1, copies / 2, copies}) {
            reset();
            try (Device device = Device.open("cuda"); Stream stream = device.newStream()) {
                gpu.failWork(nth, LAUNCH_FAILURE);
                assertThrows(DeviceLostException.class,
                        () -> ModelLoader.load(device, stream, Models.GPT2.directory(), dtype, quantization, n -> {}),
                        "copy " + nth + " of " + copies);
            }
        }
        reset();
    }

    /// The example of the README.
    @Test
    void outOfMemory_whereAGraphIsLaunched() {
        gpu.setCapacity(512L << 20);
        gpu.fail("cudaGraphLaunch", 3, OUT_OF_MEMORY);
        try (LanguageModel model = LanguageModel.load(Models.GPT2.directory(), Options.defaults().withDevice("cuda"))) {
            assertThrows(OutOfDeviceMemoryException.class,
                    () -> model.generate(Models.PROMPT, Models.greedy(5)));
            model.generate(Models.PROMPT, Models.greedy(5));
        }
        assertEquals(0, gpu.counter(Counter.LIVE_ALLOCATIONS));
    }

    /// What was needed, what was free, and what would fit.
    @Test
    void outOfMemory_saysWhatWouldFit() {
        gpu.setCapacity(80L << 20);
        OutOfDeviceMemoryException e = assertThrows(OutOfDeviceMemoryException.class,
                () -> LanguageModel.load(Models.LLAMA.directory(),
                        Options.defaults().withDevice("cuda").withMaxBatch(1).withCacheTokens(10_000_000)));
        assertTrue(e.getMessage().matches("(?s).*needs [\\d,]+ bytes; [\\d,]+ bytes are free.*the largest context that"
                + " would fit has [\\d,]+ tokens.*"), e.getMessage());
        long fits = Long.parseLong(e.getMessage().replaceAll("(?s).*would fit has ([\\d,]+) tokens.*", "$1")
                .replace(",", ""));
        assertTrue(fits > 64, e.getMessage());
        assertThrows(OutOfDeviceMemoryException.class, () -> LanguageModel.load(Models.LLAMA.directory(),
                Options.defaults().withDevice("cuda").withMaxBatch(1).withCacheTokens(fits + 1)));
        try (LanguageModel model = LanguageModel.load(Models.LLAMA.directory(),
                Options.defaults().withDevice("cuda").withMaxBatch(1).withCacheTokens(fits))) {
            assertEquals(TOKENS, model.generate(Models.PROMPT, Models.greedy(TOKENS)).ids().length);
        }
    }

    @Test
    void outOfMemory_forTheWeights() {
        gpu.setCapacity(1L << 10);
        OutOfDeviceMemoryException e = assertThrows(OutOfDeviceMemoryException.class, () -> Models.GPT2.load(1));
        assertTrue(e.getMessage().matches("(?s).*no memory for [\\d,]+ bytes: [\\d,]+ of 1,024 bytes are free.*"),
                e.getMessage());
    }
}
