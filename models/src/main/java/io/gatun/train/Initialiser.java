package io.gatun.train;

import java.nio.charset.StandardCharsets;
import java.util.Arrays;
import java.util.LinkedHashMap;
import java.util.List;
import java.util.Map;
import java.util.random.RandomGenerator;
import java.util.random.RandomGeneratorFactory;
import java.util.zip.CRC32;

/// First values of parameters, as the libraries that define the models choose them. A parameter's values depend on the
/// seed and its name alone.
public final class Initialiser {
    private static final RandomGeneratorFactory<RandomGenerator> GENERATORS =
            RandomGeneratorFactory.of("L64X128MixRandom");

    private final long seed;

    public Initialiser(long seed) {
        this.seed = seed;
    }

    /// As transformers does for language models: matrices and embeddings N(0, range^2), projections back into the
    /// residual stream (`c_proj`) N(0, range^2 / 2L) (Radford et al. 2019), biases 0, norms 1.
    ///
    /// @param range  `initializer_range`
    /// @param layers L
    public Map<String, float[]> language(List<Parameters.Shape> shapes, double range, int layers) {
        Map<String, float[]> values = new LinkedHashMap<>();
        for (Parameters.Shape shape : shapes) {
            boolean back = shape.name().endsWith("c_proj.weight");
            values.put(shape.name(), shape.shape().length > 1
                    ? normal(shape, 0, back ? range / Math.sqrt(2.0 * layers) : range) : constant(shape));
        }
        return values;
    }

    /// As torch does by default: matrices, kernels and their biases uniform within `1 / sqrt(inputs)` (He et al. 2015
    /// with a = sqrt 5), tables of embeddings N(0, 1), norms 1 and 0; codebooks as diffusers does, uniform within 1 /
    /// codes.
    public Map<String, float[]> torch(List<Parameters.Shape> shapes) {
        Map<String, Parameters.Shape> byName = new LinkedHashMap<>();
        shapes.forEach(shape -> byName.put(shape.name(), shape));
        Map<String, float[]> values = new LinkedHashMap<>();
        for (Parameters.Shape shape : shapes) {
            Parameters.Shape weight = byName.get(shape.name().replaceAll("\\.bias$", ".weight"));
            if (shape.name().equals("quantize.embedding.weight")) {
                values.put(shape.name(), uniform(shape, 1.0 / shape.shape()[0]));
            } else if (shape.name().contains("embedding") && shape.shape().length == 2 && !byName.containsKey(
                    shape.name().replaceAll("\\.weight$", ".bias"))) {
                values.put(shape.name(), normal(shape, 0, 1));
            } else if (weight == null || weight.shape().length == 1) {
                values.put(shape.name(), constant(shape));
            } else {
                long inputs = elements(weight.shape()) / weight.shape()[0];
                values.put(shape.name(), uniform(shape, 1 / Math.sqrt(inputs)));
            }
        }
        return values;
    }

    /// As Radford, Metz and Chintala 2016 (DCGAN): kernels N(0, 0.02^2), batch norms N(1, 0.02^2), biases 0.
    public Map<String, float[]> dcgan(List<Parameters.Shape> shapes) {
        Map<String, float[]> values = new LinkedHashMap<>();
        for (Parameters.Shape shape : shapes) {
            values.put(shape.name(), shape.name().endsWith(".bias") ? constant(shape)
                    : normal(shape, shape.shape().length > 1 ? 0 : 1, 0.02));
        }
        return values;
    }

    /// 0 for biases, 1 for the weights of norms.
    private static float[] constant(Parameters.Shape shape) {
        float[] values = new float[(int) elements(shape.shape())];
        Arrays.fill(values, shape.name().endsWith("bias") ? 0 : 1);
        return values;
    }

    private float[] normal(Parameters.Shape shape, double mean, double deviation) {
        RandomGenerator random = generator(shape.name());
        float[] values = new float[(int) elements(shape.shape())];
        for (int i = 0; i < values.length; i++) {
            values[i] = (float) (mean + deviation * random.nextGaussian());
        }
        return values;
    }

    private float[] uniform(Parameters.Shape shape, double bound) {
        RandomGenerator random = generator(shape.name());
        float[] values = new float[(int) elements(shape.shape())];
        for (int i = 0; i < values.length; i++) {
            values[i] = (float) random.nextDouble(-bound, bound);
        }
        return values;
    }

    private RandomGenerator generator(String name) {
        CRC32 hash = new CRC32();
        hash.update(name.getBytes(StandardCharsets.UTF_8));
        return GENERATORS.create(seed * 0x9e3779b97f4a7c15L + hash.getValue());
    }

    private static long elements(long[] shape) {
        return Arrays.stream(shape).reduce(1, (a, b) -> a * b);
    }
}
