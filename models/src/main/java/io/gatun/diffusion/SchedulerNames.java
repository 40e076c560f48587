package io.gatun.diffusion;

import java.util.LinkedHashMap;
import java.util.Locale;
import java.util.Map;

/// Short names of schedulers, for the command line.
final class SchedulerNames {
    private static final Map<String, String> CLASSES = new LinkedHashMap<>();

    static {
        CLASSES.put("ddpm", "DDPMScheduler");
        CLASSES.put("ddim", "DDIMScheduler");
        CLASSES.put("euler", "EulerDiscreteScheduler");
        CLASSES.put("euler-ancestral", "EulerAncestralDiscreteScheduler");
        CLASSES.put("dpm++", "DPMSolverMultistepScheduler");
        CLASSES.put("pndm", "PNDMScheduler");
        CLASSES.put("heun", "HeunDiscreteScheduler");
        CLASSES.put("kdpm2", "KDPM2DiscreteScheduler");
        CLASSES.put("kdpm2-ancestral", "KDPM2AncestralDiscreteScheduler");
        CLASSES.put("lms", "LMSDiscreteScheduler");
        CLASSES.put("unipc", "UniPCMultistepScheduler");
        CLASSES.put("deis", "DEISMultistepScheduler");
        CLASSES.put("lcm", "LCMScheduler");
        CLASSES.put("flow-euler", "FlowMatchEulerDiscreteScheduler");
        CLASSES.put("flow-heun", "FlowMatchHeunDiscreteScheduler");
    }

    private SchedulerNames() {}

    /// The class of a short name; any other name is taken as a class name.
    static String classOf(String name) {
        return CLASSES.getOrDefault(name.toLowerCase(Locale.ROOT), name);
    }
}
