package io.gatun.cli;

import io.gatun.models.DemoModels;
import io.gatun.runtime.CudaSearch;
import io.gatun.runtime.Device;
import io.gatun.runtime.GatunException;
import io.gatun.runtime.NativeLibraries;
import java.util.ArrayList;
import java.util.LinkedHashMap;
import java.util.List;
import java.util.Map;
import java.util.concurrent.Callable;
import com.fasterxml.jackson.core.JsonProcessingException;
import com.fasterxml.jackson.databind.ObjectMapper;
import picocli.CommandLine.Command;
import picocli.CommandLine.ExitCode;
import picocli.CommandLine.Option;

/// `gatun doctor`: what was found, what is missing, and how to mend it.
@Command(name = "doctor", mixinStandardHelpOptions = true,
        description = "Tells what was found on this machine, what is missing and how to mend it; exits with 1 where"
                + " the CPU cannot be used.")
final class DoctorCommand implements Callable<Integer> {
    @Option(names = "--json", description = "print the findings as JSON")
    private boolean json;

    DoctorCommand() {}

    /// @return the exit code: not 0 where the CPU cannot be used, mostly because there is no libgatun
    @Override
    public Integer call() {
        Map<String, Object> found = new LinkedHashMap<>();
        found.put("gatun", Version.text());
        found.put("java", Runtime.version() + " from " + System.getProperty("java.home"));
        found.put("system", System.getProperty("os.name") + " " + System.getProperty("os.version") + " "
                + System.getProperty("os.arch"));
        boolean usable = false;
        try (Device device = Device.open("cpu")) {
            found.put("cpu", device.description());
            found.put("libraries", NativeLibraries.report());
            usable = true;
        } catch (GatunException e) {
            found.put("cpu", "NOT USABLE: " + e.getMessage());
        }
        List<String> cuda = new ArrayList<>(CudaSearch.report());
        cuda.addAll(CudaSearch.devices());
        found.put("cuda", cuda);
        List<String> demos = DemoModels.names();
        found.put("demos", demos.isEmpty() ? "none: add the artifact io.gatun:gatun-demo-models"
                : String.join(", ", demos));
        if (json) {
            try {
                Terminal.printLine(new ObjectMapper().writeValueAsString(found));
            } catch (JsonProcessingException e) {
                throw new IllegalStateException(e);
            }
        } else {
            found.forEach((name, value) -> {
                List<?> lines = value instanceof List<?> list ? list : List.of(value);
                for (int i = 0; i < lines.size(); i++) {
                    Terminal.print("%-10s %s%n".formatted(i == 0 ? name : "", lines.get(i)));
                }
            });
        }
        System.out.flush();
        return usable ? ExitCode.OK : Main.FAILED;
    }
}
