package io.gatun.train.data;

/// Pictures made smaller or larger: bilinear, and averaging where they get smaller (a triangle as wide as two target
/// pixels, as Pillow and torchvision with `antialias` do it, but for Pillow's rounding between rows and columns).
final class Resampling {
    private Resampling() {}

    /// The middle square of a picture whose shorter side was made `size`.
    ///
    /// @param pixels [height, width, channels]
    /// @return [size, size, channels]
    static byte[] square(byte[] pixels, int height, int width, int channels, int size) {
        int shorter = Math.min(height, width);
        int newHeight = height <= width ? size : (int) ((long) size * height / shorter);
        int newWidth = width <= height ? size : (int) ((long) size * width / shorter);
        // rows: [height, width] to [size of the middle, width]; columns then
        float[] rows = new float[size * width * channels];
        float[][] weights = weights(height, newHeight, size);
        int[] first = firsts(height, newHeight, size);
        for (int y = 0; y < size; y++) {
            for (int k = 0; k < weights[y].length; k++) {
                int from = (first[y] + k) * width * channels;
                for (int x = 0; x < width * channels; x++) {
                    rows[y * width * channels + x] += weights[y][k] * (pixels[from + x] & 0xff);
                }
            }
        }
        byte[] result = new byte[size * size * channels];
        weights = weights(width, newWidth, size);
        first = firsts(width, newWidth, size);
        for (int y = 0; y < size; y++) {
            for (int x = 0; x < size; x++) {
                for (int c = 0; c < channels; c++) {
                    float sum = 0;
                    for (int k = 0; k < weights[x].length; k++) {
                        sum += weights[x][k] * rows[(y * width + first[x] + k) * channels + c];
                    }
                    result[(y * size + x) * channels + c] = (byte) Math.clamp(Math.round(sum), 0, 255);
                }
            }
        }
        return result;
    }

    /// Centre of a target pixel, in source pixels.
    private static double centre(int i, int from, int to, int middle) {
        return (i + (to - middle) / 2 + 0.5) * from / to;
    }

    private static double reach(int from, int to) {
        return Math.max(1, (double) from / to);
    }

    private static int[] firsts(int from, int to, int middle) {
        int[] first = new int[middle];
        for (int i = 0; i < middle; i++) {
            first[i] = Math.max(0, (int) (centre(i, from, to, middle) - reach(from, to) + 0.5));
        }
        return first;
    }

    /// Of the source pixels from the first on, with a sum of 1.
    private static float[][] weights(int from, int to, int middle) {
        int[] first = firsts(from, to, middle);
        float[][] weights = new float[middle][];
        for (int i = 0; i < middle; i++) {
            double centre = centre(i, from, to, middle);
            double reach = reach(from, to);
            int end = Math.min(from, (int) (centre + reach + 0.5));
            double[] triangle = new double[end - first[i]];
            double sum = 0;
            for (int k = 0; k < triangle.length; k++) {
                triangle[k] = Math.max(0, 1 - Math.abs((first[i] + k + 0.5 - centre) / reach));
                sum += triangle[k];
            }
            weights[i] = new float[triangle.length];
            for (int k = 0; k < triangle.length; k++) {
                weights[i][k] = (float) (triangle[k] / sum);
            }
        }
        return weights;
    }
}
