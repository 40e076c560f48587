package io.gatun.models;


/// Rotary frequencies as a config describes them: `default`, `linear`, `dynamic`, `yarn`, `llama3`. Formulae as in
/// transformers' modeling_rope_utils, in f32 where it uses f32.
///
/// @param dim            R, rotary elements per head
/// @param base           theta
/// @param contextLength  max_position_embeddings
/// @param type           the rule
/// @param factor         by how much the context was stretched; 1 for `default`
/// @param lowFreqFactor  llama3
/// @param highFreqFactor llama3
/// @param originalContext positions the model was pre-trained with (llama3, yarn)
/// @param betaFast       yarn
/// @param betaSlow       yarn
/// @param truncate       yarn: round the bounds of the ramp to whole dimensions
/// @param attentionFactor what cosines and sines are multiplied by
public record RopeScaling(int dim, double base, int contextLength, Type type, double factor, double lowFreqFactor,
        double highFreqFactor, int originalContext, double betaFast, double betaSlow, boolean truncate,
        float attentionFactor) {
    private static final int MAX_REACH = 1 << 24;

    /// The rules.
    public enum Type {
        /// `f_i = base^(-2i/R)`
        DEFAULT,
        /// `f_i / factor`. Chen et al. 2023, arXiv 2306.15595
        LINEAR,
        /// base grows with the sequence once it is longer than the context ("dynamic NTK")
        DYNAMIC,
        /// Interpolates low frequencies only. Peng et al. 2023, arXiv 2309.00071
        YARN,
        /// By wavelength: high frequencies stay, low ones are divided, a ramp between. Llama 3.1
        LLAMA3
    }

    /// Reads `rope_parameters` (transformers 5), or `rope_theta` with `rope_scaling` (before).
    public static RopeScaling parse(ConfigFile config, int dim, int contextLength) {
        ConfigFile rope = config.object("rope_parameters");
        ConfigFile scaling = rope != null ? rope : config.object("rope_scaling");
        double base = rope != null && rope.has("rope_theta") ? rope.requirePositive("rope_theta")
                : scaling != null && scaling.has("rope_theta") ? scaling.requirePositive("rope_theta")
                : config.has("rope_theta") ? config.requirePositive("rope_theta") : 10000;
        Type type = scaling == null ? Type.DEFAULT : parseType(scaling);
        if (scaling == null || type == Type.DEFAULT) {
            return new RopeScaling(dim, base, contextLength, Type.DEFAULT, 1, 1, 1, contextLength, 0, 0, true, 1);
        }
        double factor = scaling.requireNumber("factor");
        if (!(factor >= 1 && factor * contextLength <= MAX_REACH)) {
            throw scaling.wrong("factor", "1 or more, and at most %d positions in all".formatted(MAX_REACH));
        }
        int original = scaling.getInt("original_max_position_embeddings", 1, Integer.MAX_VALUE, contextLength);
        double low = 1;
        double high = 1;
        if (type == Type.LLAMA3) {
            original = scaling.requireInt("original_max_position_embeddings", 1, Integer.MAX_VALUE);
            low = scaling.requireNumber("low_freq_factor");
            high = scaling.requireNumber("high_freq_factor");
            if (!(high > low)) {
                throw scaling.wrong("high_freq_factor", "more than low_freq_factor");
            }
        }
        float attentionFactor = type == Type.YARN ? yarnAttentionFactor(scaling, factor) : 1;
        return new RopeScaling(dim, base, contextLength, type, factor, low, high, original,
                scaling.getNumber("beta_fast", 32), scaling.getNumber("beta_slow", 1),
                scaling.getBoolean("truncate", true), attentionFactor);
    }

    private static Type parseType(ConfigFile scaling) {
        String field = scaling.has("rope_type") ? "rope_type" : "type";
        String name = scaling.getString(field);
        return switch (name == null ? "default" : name) {
            case "default" -> Type.DEFAULT;
            case "linear" -> Type.LINEAR;
            case "dynamic" -> Type.DYNAMIC;
            case "yarn" -> Type.YARN;
            case "llama3" -> Type.LLAMA3;
            default -> throw scaling.wrong(field, "default, linear, dynamic, yarn or llama3");
        };
    }

    private static float yarnAttentionFactor(ConfigFile scaling, double factor) {
        if (scaling.has("attention_factor")) {
            return (float) scaling.requireNumber("attention_factor");
        }
        double mscale = scaling.getNumber("mscale", 0);
        double mscaleAllDim = scaling.getNumber("mscale_all_dim", 0);
        return (float) (mscale != 0 && mscaleAllDim != 0 ? mscale(factor, mscale) / mscale(factor, mscaleAllDim)
                : mscale(factor, 1));
    }

    private static double mscale(double factor, double mscale) {
        return factor <= 1 ? 1 : 0.1 * mscale * Math.log(factor) + 1;
    }

    /// Whether frequencies depend on the length of the sequence.
    public boolean dependsOnLength() {
        return type == Type.DYNAMIC;
    }

    /// Positions that can be used: `dynamic` reaches beyond the context.
    public int reach() {
        return dependsOnLength() ? (int) (contextLength * factor) : contextLength;
    }

    /// `f_i`, R/2 of them, for a sequence of this length.
    public float[] inverseFrequencies(int length) {
        double effectiveBase = base;
        if (type == Type.DYNAMIC && length > contextLength) {
            double growth = factor * length / contextLength - (factor - 1);
            effectiveBase = base * Math.pow(growth, dim / (dim - 2.0));
        }
        float[] frequencies = new float[dim / 2];
        for (int i = 0; i < frequencies.length; i++) {
            float exponent = 2.0f * i / dim;
            frequencies[i] = 1.0f / (float) Math.pow(effectiveBase, exponent);
        }
        switch (type) {
            case LINEAR -> scaleAll(frequencies);
            case LLAMA3 -> scaleByWavelength(frequencies);
            case YARN -> scaleByRamp(frequencies);
            case DEFAULT, DYNAMIC -> { }
        }
        return frequencies;
    }

    private void scaleAll(float[] frequencies) {
        for (int i = 0; i < frequencies.length; i++) {
            frequencies[i] = (float) (frequencies[i] / factor);
        }
    }

    /// wavelength `2 pi / f` above `original / low`: divide; below `original / high`: keep; between: a linear mix.
    private void scaleByWavelength(float[] frequencies) {
        double longest = originalContext / lowFreqFactor;
        double shortest = originalContext / highFreqFactor;
        for (int i = 0; i < frequencies.length; i++) {
            float f = frequencies[i];
            double wavelength = 2 * Math.PI / f;
            if (wavelength > longest) {
                frequencies[i] = (float) (f / factor);
            } else if (wavelength >= shortest) {
                double smooth = (originalContext / wavelength - lowFreqFactor) / (highFreqFactor - lowFreqFactor);
                frequencies[i] = (float) ((1 - smooth) * f / factor + smooth * f);
            }
        }
    }

    /// Dimensions that turn more than beta_fast times within the original context stay, those that turn less than
    /// beta_slow times are divided, a linear ramp between.
    private void scaleByRamp(float[] frequencies) {
        double low = correctionDim(betaFast);
        double high = correctionDim(betaSlow);
        if (truncate) {
            low = Math.floor(low);
            high = Math.ceil(high);
        }
        low = Math.max(low, 0);
        high = Math.min(high, dim - 1);
        if (low == high) {
            high += 0.001;
        }
        for (int i = 0; i < frequencies.length; i++) {
            double interpolated = Math.clamp((i - low) / (high - low), 0, 1);
            frequencies[i] = (float) (frequencies[i] / factor * interpolated + frequencies[i] * (1 - interpolated));
        }
    }

    private double correctionDim(double rotations) {
        return dim * Math.log(originalContext / (rotations * 2 * Math.PI)) / (2 * Math.log(base));
    }
}
