package io.gatun.diffusion;

/// How the denoised sample is kept in range.
///
/// @param clip    it is cut to [-clip, clip]; infinite: it is not
/// @param ratio   above 0: the quantile of its magnitudes that becomes the threshold s of each image (Saharia et al.
///                2022, arXiv 2205.11487)
/// @param largest s is cut to [1, largest]
record Limit(double clip, double ratio, double largest) {
    private static final double DEFAULT_RATIO = 0.995;
    static final Limit NONE = new Limit(Double.POSITIVE_INFINITY, 0, 1);

    boolean isNone() {
        return clip == Double.POSITIVE_INFINITY && ratio == 0;
    }

    /// Of `thresholding` alone.
    static Limit threshold(SchedulerConfig config) {
        if (!config.flag("thresholding", false)) {
            return NONE;
        }
        double ratio = config.positive("dynamic_thresholding_ratio", DEFAULT_RATIO);
        if (ratio > 1) {
            throw config.wrong("dynamic_thresholding_ratio", "a number above 0, at most 1");
        }
        double largest = config.number("sample_max_value", 1);
        if (largest < 1) {
            throw config.wrong("sample_max_value", "a number of at least 1");
        }
        return new Limit(Double.POSITIVE_INFINITY, ratio, largest);
    }

    /// Of `thresholding`, else of `clip_sample`.
    static Limit thresholdOrClip(SchedulerConfig config, boolean clips) {
        Limit threshold = threshold(config);
        return threshold.isNone() ? clip(config, clips) : threshold;
    }

    /// Of `clip_sample` alone.
    static Limit clip(SchedulerConfig config, boolean clips) {
        return config.flag("clip_sample", clips) ? new Limit(config.positive("clip_sample_range", 1), 0, 1) : NONE;
    }
}
