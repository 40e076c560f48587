package io.gatun.diffusion;

import java.awt.Graphics2D;
import java.awt.RenderingHints;
import java.awt.image.BufferedImage;

/// Pictures of Java to numbers.
final class Pictures {
    private Pictures() {}

    /// [height, width, channels] in [-1, 1], resized where need be; one channel is the luminance.
    static float[] pixels(BufferedImage picture, int height, int width, int channels) {
        BufferedImage sized = resize(picture, height, width);
        float[] values = new float[height * width * channels];
        int at = 0;
        for (int y = 0; y < height; y++) {
            for (int x = 0; x < width; x++) {
                int rgb = sized.getRGB(x, y);
                if (channels == 1) {
                    values[at++] = luminance(rgb) * 2 - 1;
                } else {
                    for (int c = 0; c < channels; c++) {
                        values[at++] = (rgb >> 16 - 8 * Math.min(c, 2) & 0xff) / 127.5f - 1;
                    }
                }
            }
        }
        return values;
    }

    /// [height, width]: 1 where the picture is brighter than half, else 0.
    static float[] mask(BufferedImage picture, int height, int width) {
        BufferedImage sized = resize(picture, height, width);
        float[] values = new float[height * width];
        for (int i = 0; i < values.length; i++) {
            values[i] = luminance(sized.getRGB(i % width, i / width)) >= 0.5f ? 1 : 0;
        }
        return values;
    }

    /// 0 to 1, ITU-R BT.601.
    private static float luminance(int rgb) {
        return (0.299f * (rgb >> 16 & 0xff) + 0.587f * (rgb >> 8 & 0xff) + 0.114f * (rgb & 0xff)) / 255;
    }

    private static BufferedImage resize(BufferedImage picture, int height, int width) {
        BufferedImage sized = new BufferedImage(width, height, BufferedImage.TYPE_INT_RGB);
        Graphics2D graphics = sized.createGraphics();
        graphics.setRenderingHint(RenderingHints.KEY_INTERPOLATION, RenderingHints.VALUE_INTERPOLATION_BICUBIC);
        graphics.drawImage(picture, 0, 0, width, height, null);
        graphics.dispose();
        return sized;
    }
}
