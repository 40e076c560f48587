package io.gatun.models;

import io.gatun.io.CachedFiles;
import io.gatun.io.IoReason;
import io.gatun.runtime.GatunException;
import java.io.IOException;
import java.io.InputStream;
import java.nio.charset.StandardCharsets;
import java.nio.file.Path;
import java.security.MessageDigest;
import java.security.NoSuchAlgorithmException;
import java.util.ArrayList;
import java.util.HexFormat;
import java.util.List;
import java.util.Map;
import java.util.ServiceLoader;
import java.util.TreeMap;
import org.jspecify.annotations.Nullable;

/// The small models that this project trained itself and ships in the artifact `gatun-demo-models`, as directories. The
/// `README.md` in each says how it was made and how good it is.
///
/// ```java
/// try (LanguageModel model = LanguageModel.load(DemoModels.shakespeare())) {
///     System.out.println(model.generate("ROMEO:", GenerationConfig.builder().temperature(0.8f).build()).text());
/// }
/// ```
///
/// A directory is unpacked once into the user's cache folder ([CachedFiles]), under a name with a checksum.
public final class DemoModels {
    public static final String SHAKESPEARE = "shakespeare";
    public static final String DIGITS_DIFFUSION = "digits-diffusion";
    public static final String DIGITS_VAE = "digits-vae";
    public static final String DIGITS_GAN = "digits-gan";
    public static final String DIGITS_CLASSIFIER = "digits-classifier";

    private static final String INDEX = "index";
    private static final int CHECKSUM_DIGITS = 16;

    private DemoModels() {}

    /// Text in the manner of Shakespeare's plays, character by character: a GPT-2 for `LanguageModel`.
    public static Path shakespeare() {
        return directory(SHAKESPEARE);
    }

    /// Handwritten digits of the class that is asked for: a diffusion pipeline for `ImageModel`.
    public static Path digitsDiffusion() {
        return directory(DIGITS_DIFFUSION);
    }

    /// Handwritten digits from a VAE, for `ImageModel`.
    public static Path digitsVae() {
        return directory(DIGITS_VAE);
    }

    /// Handwritten digits from the generator of a GAN, for `ImageModel`.
    public static Path digitsGan() {
        return directory(DIGITS_GAN);
    }

    /// Tells handwritten digits apart, for `ImageJudge`.
    public static Path digitsClassifier() {
        return directory(DIGITS_CLASSIFIER);
    }

    /// The names of all models that there are; none where the artifact is on neither the class path nor the module
    /// path.
    public static List<String> names() {
        DemoModelSource source = source();
        return source == null ? List.of() : List.copyOf(index(source).keySet());
    }

    /// The directory of a model, as `gatun train` wrote it.
    ///
    /// @throws GatunException when there is no such model, or the cache folder cannot be written
    public static Path directory(String name) {
        DemoModelSource source = source();
        if (source == null) {
            throw GatunException.invalid("the demo model %s is not there: add the artifact io.gatun:gatun-demo-models"
                    + " to the class path or module path, or name the directory of another model (--model DIR)", name);
        }
        Map<String, List<Entry>> all = index(source);
        List<Entry> entries = all.get(name);
        if (entries == null) {
            throw GatunException.invalid("there is no demo model %s, expected one of %s", name, all.keySet());
        }
        Map<String, Long> sizes = new TreeMap<>();
        entries.forEach(entry -> sizes.put(entry.file, entry.bytes));
        return CachedFiles.unpack(name + "-" + checksum(entries), sizes, file -> source.open(name + "/" + file));
    }

    /// A file of a model.
    private record Entry(String sha256, long bytes, String file) {}

    private static @Nullable DemoModelSource source() {
        return ServiceLoader.load(DemoModelSource.class).findFirst().orElse(null);
    }

    /// The files of each model.
    private static Map<String, List<Entry>> index(DemoModelSource source) {
        Map<String, List<Entry>> models = new TreeMap<>();
        try (InputStream in = source.open(INDEX)) {
            new String(in.readAllBytes(), StandardCharsets.UTF_8).lines().forEach(line -> {
                String[] fields = line.split(" ", 3);
                String[] path = fields.length < 3 ? fields : fields[2].split("/", 2);
                if (path.length != 2) {
                    throw broken("its index has the line '%s'".formatted(line), null);
                }
                models.computeIfAbsent(path[0], name -> new ArrayList<>())
                        .add(new Entry(fields[0], Long.parseLong(fields[1]), path[1]));
            });
        } catch (IOException e) {
            throw broken("its index cannot be read: " + IoReason.of(e), e);
        }
        return models;
    }

    private static GatunException broken(String why, @Nullable Exception e) {
        return new GatunException(GatunException.Status.INTERNAL,
                "the artifact gatun-demo-models is broken, %s: build or download it again".formatted(why), e);
    }

    /// Of all files, so that another version of a model is unpacked to another place.
    private static String checksum(List<Entry> entries) {
        try {
            MessageDigest digest = MessageDigest.getInstance("SHA-256");
            entries.forEach(entry -> digest.update((entry.sha256 + " " + entry.file + "\n")
                    .getBytes(StandardCharsets.UTF_8)));
            return HexFormat.of().formatHex(digest.digest()).substring(0, CHECKSUM_DIGITS);
        } catch (NoSuchAlgorithmException e) {
            throw new IllegalStateException(e); // every Java has it
        }
    }
}
