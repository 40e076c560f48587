package io.gatun.models.vae;

import static org.junit.jupiter.api.Assertions.assertArrayEquals;
import static org.junit.jupiter.api.Assertions.assertFalse;
import static org.junit.jupiter.api.Assertions.assertThrows;
import static org.junit.jupiter.api.Assertions.assertTrue;

import io.gatun.models.ComponentLoader;
import io.gatun.models.ConfigFile;
import io.gatun.models.GoldenCase;
import io.gatun.models.Layers;
import io.gatun.models.TestDevice;
import io.gatun.models.WeightLoader;
import io.gatun.models.blocks.Border;
import io.gatun.runtime.DType;
import io.gatun.runtime.Device;
import io.gatun.runtime.DeviceArena;
import io.gatun.runtime.GatunException;
import io.gatun.runtime.Plan;
import io.gatun.runtime.Shapes;
import io.gatun.runtime.Stream;
import io.gatun.runtime.Tensor;
import org.junit.jupiter.api.Tag;
import org.junit.jupiter.api.Test;

/// Do tiles give what the tiling of diffusers gives, and need less memory than the whole image?
@Tag("device")
class TilesTest {
    private static final GoldenCase GOLDEN = new GoldenCase("networks/vae_tiling");

    private interface Network {
        Tensor run(AutoencoderKl vae, Layers net, Tensor x);
    }

    /// The result for a recorded input, channels first, against a recorded output.
    private static void assertGolden(String input, String output, Network network) {
        try (Device device = Device.open(TestDevice.NAME, new Device.Options(2)); Stream stream = device.newStream();
                DeviceArena arena = device.newArena("test");
                ComponentLoader.Component<AutoencoderKl> vae = ComponentLoader.load(device, stream, GOLDEN.model(),
                        DType.F32, AutoencoderKl.FAMILY, n -> {})) {
            Tensor x = arena.allocate(DType.F32, GOLDEN.shape(input));
            Tensor y = arena.allocate(DType.F32, GOLDEN.shape(output));
            x.copyFrom(stream, GOLDEN.floats(input));
            try (Plan plan = Plan.of(device, recorder -> {
                Layers net = new Layers(device, stream, recorder);
                Border.channelsFirstInto(net, y, network.run(vae.network(), net,
                        Border.channelsLast(net, x, DType.F32)));
            })) {
                plan.run();
                assertArrayEquals(GOLDEN.floats(output), y.toFloats(stream), (float) GOLDEN.tolerance(),
                        output + " on " + TestDevice.NAME);
            }
        }
    }

    @Test
    void decode_tiles() {
        assertGolden("z", "decoded_tiled", (vae, net, z) -> vae.decodeTiled(net, z));
    }

    @Test
    void encode_tiles() {
        assertGolden("image", "moments_tiled", (vae, net, image) -> vae.encodeTiled(net, image));
    }

    /// No larger than a tile: the whole, in one piece.
    @Test
    void decode_oneTile() {
        Tiles tiles = Tiles.of(8, 16);
        try (Device device = Device.open("cpu"); DeviceArena arena = device.newArena("test")) {
            assertFalse(tiles.isLarger(arena.allocate(DType.F32, 1, 8, 8, 4)));
            assertTrue(tiles.isLarger(arena.allocate(DType.F32, 1, 8, 9, 4)));
        }
    }

    @Test
    void decode_tilesThatDoNotDivide() {
        String message = assertThrows(GatunException.class, () -> Tiles.of(10, 80)).getMessage();
        assertTrue(message.contains("10") && message.contains("sample_size"), message);
    }

    /// Four times the pixels take the memory of the picture itself more, not of the network's inside.
    @Test
    void decode_memoryOfTiles() {
        try (Device device = Device.open("cpu"); Stream stream = device.newStream();
                Shapes shapes = new Shapes(device)) {
            AutoencoderKl vae = new AutoencoderKl(AutoencoderKlConfig.parse(
                    ConfigFile.read(GOLDEN.model().resolve("config.json"))), WeightLoader.shapes(shapes, DType.F32));
            Tensor z = shapes.of(DType.F32, 1, 32, 32, 4);
            long whole = Plan.measure(device, r -> vae.decode(new Layers(device, stream, r), z));
            long tiled = Plan.measure(device, r -> vae.decodeTiled(new Layers(device, stream, r), z));
            assertTrue(tiled < whole / 3, "tiles take %d bytes, the whole image %d".formatted(tiled, whole));
        }
    }
}
