package io.gatun.models;

import static org.junit.jupiter.api.Assertions.assertEquals;
import static org.junit.jupiter.api.Assertions.assertThrows;
import static org.junit.jupiter.api.Assertions.assertTrue;

import io.gatun.runtime.GatunException;
import java.nio.file.Path;
import org.junit.jupiter.api.Test;
import org.junit.jupiter.api.io.TempDir;
import org.junit.jupiter.params.ParameterizedTest;
import org.junit.jupiter.params.provider.CsvSource;

/// Are the rotary frequencies those of transformers? The numbers are from `ROPE_INIT_FUNCTIONS[type](config, "cpu",
/// seq_len=length)` of transformers 5.18 with torch 2.13, at chosen indices.
class RopeScalingTest {
    @TempDir
    private Path directory;

    private RopeScaling parse(String ropeFields, int dim, int context) {
        Path file = directory.resolve("config.json");
        ModelDirectory.writeText(file, "{" + ropeFields.replace('\'', '"') + "}");
        return RopeScaling.parse(ConfigFile.read(file), dim, context);
    }

    private static void assertFrequencies(RopeScaling rope, int length, double... indexAndValue) {
        float[] frequencies = rope.inverseFrequencies(length);
        assertEquals(rope.dim() / 2, frequencies.length);
        for (int i = 0; i < indexAndValue.length; i += 2) {
            double expected = indexAndValue[i + 1];
            assertEquals(expected, frequencies[(int) indexAndValue[i]], 3e-7 * expected,
                    rope + " at " + (int) indexAndValue[i]);
        }
    }

    @Test
    void inverseFrequencies_default() {
        RopeScaling rope = parse("'rope_theta': 10000.0", 64, 2048);
        assertEquals(RopeScaling.Type.DEFAULT, rope.type());
        assertFrequencies(rope, 0, 0, 1, 1, 0.749894202, 7, 0.133352146, 16, 0.00999999978, 31, 0.00013335215);
    }

    @Test
    void inverseFrequencies_llama31() {
        RopeScaling rope = parse("""
                'rope_parameters': {'rope_type': 'llama3', 'rope_theta': 500000.0, 'factor': 8.0,
                'low_freq_factor': 1.0, 'high_freq_factor': 4.0, 'original_max_position_embeddings': 8192}""", 128,
                131072);
        assertFrequencies(rope, 0, 0, 1, 20, 0.0165604409, 28, 0.00321144611, 29, 0.00216657063, 30, 0.00137189368,
                32, 0.000524846022, 40, 3.42810235e-05, 63, 3.06892588e-07);
        assertEquals(1, rope.attentionFactor());
        assertEquals(131072, rope.reach());
    }

    @Test
    void inverseFrequencies_llama32OldFields() {
        RopeScaling rope = parse("""
                'rope_theta': 500000.0, 'rope_scaling': {'rope_type': 'llama3', 'factor': 32.0,
                'low_freq_factor': 1.0, 'high_freq_factor': 4.0, 'original_max_position_embeddings': 8192}""", 64,
                131072);
        assertFrequencies(rope, 0, 0, 1, 10, 0.0165604409, 14, 0.00321144611, 15, 0.00129054801, 16, 0.000429556705,
                17, 9.70828623e-05, 20, 8.57025589e-06, 31, 9.41830649e-08);
    }

    @Test
    void inverseFrequencies_linear() {
        RopeScaling rope = parse("'rope_theta': 1e4, 'rope_scaling': {'type': 'linear', 'factor': 4.0}", 64, 8192);
        assertFrequencies(rope, 0, 0, 0.25, 1, 0.18747355, 7, 0.0333380364, 16, 0.00249999994, 31, 3.33380376e-05);
    }

    @Test
    void inverseFrequencies_dynamic() {
        RopeScaling rope = parse("'rope_theta': 1e4, 'rope_scaling': {'type': 'dynamic', 'factor': 4.0}", 64, 2048);
        assertTrue(rope.dependsOnLength());
        assertEquals(8192, rope.reach());
        for (int length : new int[] {0, 1, 2048}) {
            assertFrequencies(rope, length, 0, 1, 1, 0.749894202, 7, 0.133352146, 16, 0.00999999978, 31,
                    0.00013335215);
        }
        assertFrequencies(rope, 3000, 0, 1, 1, 0.724905849, 7, 0.105189174, 16, 0.00581440423, 31, 4.66368147e-05);
        assertFrequencies(rope, 8192, 0, 1, 1, 0.690345228, 7, 0.0747247338, 16, 0.00266110199, 31, 1.02578579e-05);
    }

    @Test
    void inverseFrequencies_yarn() {
        RopeScaling rope = parse("""
                'rope_parameters': {'rope_type': 'yarn', 'rope_theta': 10000.0, 'factor': 4.0,
                'original_max_position_embeddings': 2048}""", 64, 8192);
        assertFrequencies(rope, 0, 0, 1, 5, 0.237137362, 9, 0.070663102, 10, 0.0497455746, 12, 0.0243252143, 16,
                0.00538461516, 20, 0.000973008573, 22, 0.000444569858, 31, 3.33380376e-05);
        assertEquals(1.138629436111989, rope.attentionFactor(), 1e-7);
    }

    @Test
    void inverseFrequencies_yarnLargeBase() {
        RopeScaling rope = parse("""
                'rope_theta': 1000000.0, 'rope_scaling': {'type': 'yarn', 'factor': 4.0,
                'original_max_position_embeddings': 32768}""", 128, 131072);
        assertFrequencies(rope, 0, 20, 0.0133352149, 24, 0.00537532149, 28, 0.00184827659, 32, 0.000602941145, 36,
                0.000179841154, 39, 6.4903943e-05, 40, 4.44569851e-05, 50, 5.13381246e-06, 63, 3.10234441e-07);
    }

    @Test
    void inverseFrequencies_yarnNotTruncated() {
        RopeScaling rope = parse("""
                'rope_parameters': {'rope_type': 'yarn', 'rope_theta': 10000.0, 'factor': 4.0, 'truncate': false,
                'original_max_position_embeddings': 2048}""", 64, 8192);
        assertFrequencies(rope, 0, 9, 0.0706175491, 10, 0.0494530834, 12, 0.0238701962, 16, 0.00505697168, 20,
                0.000811290462, 22, 0.000444569858);
    }

    @Test
    void inverseFrequencies_yarnBetasAndScales() {
        RopeScaling rope = parse("""
                'rope_parameters': {'rope_type': 'yarn', 'rope_theta': 10000.0, 'factor': 16.0, 'beta_fast': 16,
                'beta_slow': 2, 'mscale': 1.0, 'mscale_all_dim': 0.8, 'original_max_position_embeddings': 1024}""", 64,
                16384);
        assertFrequencies(rope, 0, 9, 0.06620159, 10, 0.0430542566, 12, 0.0167996008, 16, 0.000624999986, 20,
                0.000197642366, 31, 8.3345094e-06);
        assertEquals(1.0453850485445595, rope.attentionFactor(), 1e-7);
    }

    @Test
    void inverseFrequencies_yarnAttentionFactor() {
        RopeScaling rope = parse("""
                'rope_parameters': {'rope_type': 'yarn', 'rope_theta': 10000.0, 'factor': 4.0,
                'attention_factor': 1.5}""", 64, 8192);
        assertEquals(1.5, rope.attentionFactor());
        assertFrequencies(rope, 0, 9, 0.0749894157, 12, 0.0316227786, 16, 0.0076923077, 20, 0.00170276489, 22,
                0.000752348977);
    }

    @ParameterizedTest
    @CsvSource(delimiter = '|', quoteCharacter = '~', value = {
        "'rope_scaling': {'type': 'longrope', 'factor': 2} | field 'rope_scaling.type' is \"longrope\"",
        "'rope_parameters': {'rope_type': 'linear'} | field 'rope_parameters.factor' is missing",
        "'rope_scaling': {'type': 'linear', 'factor': 0.5} | field 'rope_scaling.factor' is 0.5",
        "'rope_scaling': {'rope_type': 'llama3', 'factor': 8} | 'rope_scaling.original_max_position_embeddings'",
        "'rope_scaling': 7 | field 'rope_scaling' is 7, expected an object"})
    void parse_refuses(String fields, String expected) {
        String message = assertThrows(GatunException.class, () -> parse(fields, 64, 2048)).getMessage();
        assertTrue(message.contains(expected), message);
        assertTrue(message.contains("config.json"), message);
    }
}
