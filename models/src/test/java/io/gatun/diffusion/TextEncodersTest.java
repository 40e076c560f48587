package io.gatun.diffusion;

import static org.junit.jupiter.api.Assertions.assertEquals;
import static org.junit.jupiter.api.Assertions.assertThrows;
import static org.junit.jupiter.api.Assertions.assertTrue;

import io.gatun.runtime.Device;
import io.gatun.runtime.GatunException;
import io.gatun.runtime.Stream;
import java.io.IOException;
import java.nio.file.Files;
import java.nio.file.Path;
import java.util.Objects;
import org.junit.jupiter.api.Test;
import org.junit.jupiter.api.io.TempDir;

/// Are the text encoders of a pipeline opened and refused as a whole?
class TextEncodersTest {
    @TempDir
    private Path directory;

    /// Stable Diffusion XL is told the projected text, which an encoder of the first kind does not have.
    @Test
    void open_xlWithoutProjection() throws IOException {
        Path from = PipelineTest.pipeline(PipelineTest.STABLE_DIFFUSION);
        for (String part : new String[] {"text_encoder", "tokenizer"}) {
            PipelineTest.copyOf(from.resolve(part), Files.createDirectory(directory.resolve(part)));
            PipelineTest.copyOf(from.resolve(part), Files.createDirectory(directory.resolve(part + "_2")));
        }
        Files.writeString(directory.resolve("model_index.json"), """
                {"_class_name": "StableDiffusionXLPipeline", "text_encoder": ["transformers", "CLIPTextModel"],
                 "text_encoder_2": ["transformers", "CLIPTextModelWithProjection"],
                 "tokenizer": ["transformers", "CLIPTokenizer"], "tokenizer_2": ["transformers", "CLIPTokenizer"]}""");
        try (Device device = Device.open("cpu"); Stream stream = device.newStream()) {
            PipelineFiles files = Objects.requireNonNull(PipelineFiles.find(directory));
            GatunException e = assertThrows(GatunException.class,
                    () -> TextEncoders.open(device, stream, files, ImageModel.Options.defaults(), null));
            assertTrue(e.getMessage().contains("text_encoder_2 has no text_projection.weight"), e.getMessage());
            assertEquals(0, device.counters().snapshot().allocatedBytes(), "the first encoder's weights too");
        }
    }
}
