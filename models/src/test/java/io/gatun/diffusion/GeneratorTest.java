package io.gatun.diffusion;

import static org.junit.jupiter.api.Assertions.assertArrayEquals;
import static org.junit.jupiter.api.Assertions.assertEquals;
import static org.junit.jupiter.api.Assertions.assertThrows;
import static org.junit.jupiter.api.Assertions.assertTrue;

import io.gatun.diffusion.ImageModel.Kind;
import io.gatun.models.GoldenCase;
import io.gatun.runtime.GatunException;
import java.util.Arrays;
import org.junit.jupiter.api.Tag;
import org.junit.jupiter.api.Test;
import org.junit.jupiter.params.ParameterizedTest;
import org.junit.jupiter.params.provider.CsvSource;

/// Generators of GANs and VAEs: from a directory to pixels.
@Tag("device")
class GeneratorTest {
    @ParameterizedTest
    @CsvSource({"networks/dcgan, GAN", "networks/vae_conv, VAE"})
    void sample_imageIsTheSameAloneAndInABatch(String name, Kind kind) {
        try (ImageModel model = PipelineTest.load(new GoldenCase(name).model())) {
            assertEquals(kind, model.kind());
            Images three = model.sample(SampleConfig.builder().seeds(5, 6, 7).build());
            Images one = model.sample(SampleConfig.builder().seeds(6).build());
            int n = one.rgb().length;
            assertArrayEquals(one.rgb(), Arrays.copyOfRange(three.rgb(), n, 2 * n));
            assertTrue(!Arrays.equals(one.rgb(), Arrays.copyOf(three.rgb(), n)), "seeds matter");
            assertEquals(0, three.failed().size());
        }
    }

    @Test
    void sample_wrongRequestsSayWhatIsExpected() {
        try (ImageModel model = PipelineTest.load(new GoldenCase("networks/dcgan").model())) {
            for (SampleConfig.Builder wrong : new SampleConfig.Builder[] {SampleConfig.builder().prompt("a"),
                SampleConfig.builder().classes(1), SampleConfig.builder().scheduler("ddim"),
                SampleConfig.builder().size(99, 99)}) {
                GatunException e = assertThrows(GatunException.class, () -> model.sample(wrong.build()));
                assertEquals(GatunException.Status.INVALID_ARGUMENT, e.status());
            }
        }
    }
}
