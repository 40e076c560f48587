package io.gatun.bench;

import io.gatun.runtime.Device;
import io.gatun.runtime.NativeLibraries;
import java.io.IOException;
import java.lang.management.ManagementFactory;
import java.nio.charset.StandardCharsets;
import java.nio.file.Files;
import java.nio.file.Path;
import java.util.LinkedHashMap;
import java.util.List;
import java.util.Map;
import java.util.concurrent.TimeUnit;
import java.util.stream.Stream;

/// What a number was measured on: a number without its machine and command is not a result.
final class Machine {
    private static final Path CPU_INFO = Path.of("/proc/cpuinfo");
    private static final Path LAST_LEVEL_CACHE = Path.of("/sys/devices/system/cpu/cpu0/cache/index3/size");
    private static final long CACHE_WHERE_UNKNOWN = 32L << 20;
    private static final int SECONDS = 10;
    private static final String GPU_FACTS = "name,driver_version,clocks.sm,clocks.max.sm,clocks.mem,power.limit,"
            + "temperature.gpu";

    private Machine() {}

    /// Facts by name, in the order in which they are printed.
    static Map<String, Object> describe(Setup setup, String command) {
        Map<String, Object> facts = new LinkedHashMap<>();
        try (Device device = setup.open()) {
            facts.put("device", device.description());
        }
        if (!setup.isCpu()) {
            facts.put("gpu", nvidiaSmi());
        }
        if (setup.peer() != null) {
            facts.put("peer", setup.peer().description());
        }
        facts.put("libraries", NativeLibraries.report().stream().map(Machine::withoutHome).toList());
        facts.put("cpu", cpuModel());
        facts.put("cores", Runtime.getRuntime().availableProcessors());
        facts.put("last_level_cache_mib", lastLevelCacheBytes() >> 20);
        facts.put("load_average", loadAverage());
        facts.put("java", Runtime.version() + " " + System.getProperty("java.vm.name"));
        facts.put("commit", commit());
        facts.put("command", command);
        return facts;
    }

    /// A result tells which library it was, not where somebody keeps it.
    private static String withoutHome(String line) {
        return line.replace(System.getProperty("gatun.home", "."), ".").replace(System.getProperty("user.home"), "~");
    }

    /// Runnable threads per minute; other work on the machine shows here.
    static double loadAverage() {
        return ManagementFactory.getOperatingSystemMXBean().getSystemLoadAverage();
    }

    static long lastLevelCacheBytes() {
        try {
            String size = Files.readString(LAST_LEVEL_CACHE).strip(); // such as 32768K
            return Long.parseLong(size.replaceAll("\\D", "")) << 10;
        } catch (IOException | NumberFormatException e) {
            return CACHE_WHERE_UNKNOWN;
        }
    }

    private static String cpuModel() {
        try (Stream<String> lines = Files.lines(CPU_INFO)) {
            return lines.filter(line -> line.startsWith("model name")).findFirst()
                    .map(line -> line.substring(line.indexOf(':') + 1).strip()).orElse("unknown");
        } catch (IOException e) {
            return "unknown";
        }
    }

    /// Of the checkout that this was built from; changes that are not committed are marked. Where there is no checkout
    /// `-Dgatun.commit` tells.
    private static String commit() {
        String told = System.getProperty("gatun.commit");
        if (told != null) {
            return told;
        }
        return output("git", "-C", System.getProperty("gatun.home", "."), "describe", "--always", "--dirty",
                "--abbrev=12");
    }

    /// Driver and clocks; before the measurements, when the GPU may be resting.
    private static List<String> nvidiaSmi() {
        return List.of(GPU_FACTS, output("nvidia-smi", "--query-gpu=" + GPU_FACTS, "--format=csv,noheader"));
    }

    private static String output(String... command) {
        try {
            Process process = new ProcessBuilder(command).redirectError(ProcessBuilder.Redirect.DISCARD).start();
            if (!process.waitFor(SECONDS, TimeUnit.SECONDS)) { // a line or two: they fit in the pipe
                process.destroyForcibly();
                return "unknown";
            }
            String text = new String(process.getInputStream().readAllBytes(), StandardCharsets.UTF_8).strip();
            return process.exitValue() == 0 ? text : "unknown";
        } catch (IOException e) {
            return "unknown";
        } catch (InterruptedException e) {
            Thread.currentThread().interrupt();
            return "unknown";
        }
    }
}
