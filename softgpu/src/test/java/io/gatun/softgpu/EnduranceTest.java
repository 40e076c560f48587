package io.gatun.softgpu;

import static org.junit.jupiter.api.Assertions.assertArrayEquals;
import static org.junit.jupiter.api.Assertions.assertEquals;

import io.gatun.generate.LanguageModel;
import io.gatun.softgpu.SoftGpu.Counter;
import java.util.ArrayList;
import java.util.List;
import java.util.Map;
import java.util.concurrent.Callable;
import java.util.concurrent.ExecutionException;
import java.util.concurrent.ExecutorService;
import java.util.concurrent.Executors;
import java.util.concurrent.Future;
import org.junit.jupiter.api.Test;

/// Does nothing grow, and do many threads get what one gets?
class EnduranceTest extends SoftGpuTest {
    private static final int CALLS = 10_000;
    private static final int THREADS = 64;

    /// With empty kernels: the host's side is what could leak.
    @Test
    void generate_tenThousandTimes() {
        try (LanguageModel model = Models.GPT2.load(2)) {
            gpu.setKernelsEmpty(true);
            generate(model, 10);
            Map<Counter, Long> live = live();
            long mallocs = gpu.calls().get("cudaMalloc");
            generate(model, CALLS);
            assertEquals(live, live());
            assertEquals(mallocs, gpu.calls().get("cudaMalloc"));
        }
    }

    private static void generate(LanguageModel model, int calls) {
        for (int i = 0; i < calls; i++) {
            model.generate(Models.PROMPT, Models.greedy(2));
        }
    }

    @Test
    void generate_from64Threads() throws InterruptedException, ExecutionException {
        try (LanguageModel model = Models.LLAMA.load(2);
                ExecutorService callers = Executors.newFixedThreadPool(THREADS)) {
            int[] expected = model.generate(Models.PROMPT, Models.greedy(3)).ids();
            List<Callable<int[]>> calls = new ArrayList<>();
            for (int i = 0; i < THREADS; i++) {
                calls.add(() -> model.generate(Models.PROMPT, Models.greedy(3)).ids());
            }
            for (Future<int[]> ids : callers.invokeAll(calls)) {
                assertArrayEquals(expected, ids.get());
            }
        }
    }

    /// Loaded and closed by several threads at once.
    @Test
    void load_fromSeveralThreads() throws InterruptedException, ExecutionException {
        try (ExecutorService callers = Executors.newFixedThreadPool(8)) {
            List<Callable<Integer>> calls = new ArrayList<>();
            for (int i = 0; i < 16; i++) {
                calls.add(() -> {
                    try (LanguageModel model = Models.GPT2.load(1)) {
                        return model.generate(Models.PROMPT, Models.greedy(2)).ids().length;
                    }
                });
            }
            for (Future<Integer> count : callers.invokeAll(calls)) {
                assertEquals(2, count.get());
            }
        }
    }
}
