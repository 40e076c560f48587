package io.gatun.diffusion;

import java.util.List;
import java.util.Map;
import java.util.TreeMap;
import java.util.function.Function;

/// The samplers by the class names of diffusers. A new one is a file and a line here.
final class Samplers {
    private static final String SUFFIX = "Scheduler";
    private static final Map<String, Function<SchedulerConfig, Sampler>> BY_CLASS = new TreeMap<>(Map.ofEntries(
            Map.entry("DDIM", Ddim::new),
            Map.entry("DDPM", Ddpm::new),
            Map.entry("DEISMultistep", Deis::new),
            Map.entry("DPMSolverMultistep", DpmSolverMultistep::new),
            Map.entry("EulerAncestralDiscrete", EulerAncestral::new),
            Map.entry("EulerDiscrete", Euler::new),
            Map.entry("FlowMatchEulerDiscrete", FlowMatchEuler::new),
            Map.entry("FlowMatchHeunDiscrete", FlowMatchHeun::new),
            Map.entry("HeunDiscrete", Heun::new),
            Map.entry("KDPM2AncestralDiscrete", Kdpm2::ancestral),
            Map.entry("KDPM2Discrete", Kdpm2::new),
            Map.entry("LCM", Lcm::new),
            Map.entry("LMSDiscrete", Lms::new),
            Map.entry("PNDM", Pndm::new),
            Map.entry("UniPCMultistep", UniPc::new)));

    private Samplers() {}

    static Sampler of(SchedulerConfig config) {
        String name = config.className();
        var sampler = BY_CLASS.get(name.endsWith(SUFFIX) ? name.substring(0, name.length() - SUFFIX.length()) : name);
        if (sampler == null) {
            throw config.unknownClass(names());
        }
        return sampler.apply(config);
    }

    /// Class names of diffusers.
    static List<String> names() {
        return BY_CLASS.keySet().stream().map(name -> name + SUFFIX).toList();
    }
}
