package io.gatun.diffusion;

import java.util.List;
import java.util.Locale;
import java.util.function.Function;
import org.jspecify.annotations.Nullable;

/// The samplers by the class names of diffusers and by short ones. A new one is a file and a line here.
final class Samplers {
    private static final String SUFFIX = "Scheduler";
    private static final List<Entry> ALL = List.of(
            new Entry("DDPM", "ddpm", Ddpm::new),
            new Entry("DDIM", "ddim", Ddim::new),
            new Entry("EulerDiscrete", "euler", Euler::new),
            new Entry("EulerAncestralDiscrete", "euler-ancestral", EulerAncestral::new),
            new Entry("EDMEuler", "edm-euler", EdmEuler::new),
            new Entry("DPMSolverMultistep", "dpm++", DpmSolverMultistep::new),
            new Entry("PNDM", "pndm", Pndm::new),
            new Entry("HeunDiscrete", "heun", Heun::new),
            new Entry("KDPM2Discrete", "kdpm2", Kdpm2::new),
            new Entry("KDPM2AncestralDiscrete", "kdpm2-ancestral", Kdpm2::ancestral),
            new Entry("LMSDiscrete", "lms", Lms::new),
            new Entry("UniPCMultistep", "unipc", UniPc::new),
            new Entry("DEISMultistep", "deis", Deis::new),
            new Entry("LCM", "lcm", Lcm::new),
            new Entry("FlowMatchEulerDiscrete", "flow-euler", FlowMatchEuler::new),
            new Entry("FlowMatchHeunDiscrete", "flow-heun", FlowMatchHeun::new));

    /// @param stem      of the class name, without `Scheduler`
    /// @param shortName for people
    private record Entry(String stem, String shortName, Function<SchedulerConfig, Sampler> make) {
        String className() {
            return stem + SUFFIX;
        }
    }

    private Samplers() {}

    static Sampler of(SchedulerConfig config) {
        Entry entry = find(config.className());
        if (entry == null) {
            throw config.unknownClass(ALL.stream()
                    .map(each -> "%s (%s)".formatted(each.className(), each.shortName)).toList());
        }
        return entry.make.apply(config);
    }

    /// The class name of diffusers for a name of either kind; any other name stays as it is.
    static String classOf(String name) {
        Entry entry = find(name);
        return entry == null ? name : entry.className();
    }

    /// Class names of diffusers.
    static List<String> names() {
        return ALL.stream().map(Entry::className).toList();
    }

    private static @Nullable Entry find(String name) {
        for (Entry each : ALL) {
            if (each.className().equals(name) || each.stem.equals(name)
                    || each.shortName.equals(name.toLowerCase(Locale.ROOT))) {
                return each;
            }
        }
        return null;
    }
}
