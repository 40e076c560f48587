package io.gatun.io;

import static org.junit.jupiter.api.Assertions.assertArrayEquals;
import static org.junit.jupiter.api.Assertions.assertEquals;
import static org.junit.jupiter.api.Assertions.assertFalse;
import static org.junit.jupiter.api.Assertions.assertThrows;
import static org.junit.jupiter.api.Assertions.assertTrue;

import io.gatun.ops.ActivationKind;
import io.gatun.ops.Convolution.Geometry;
import io.gatun.ops.Elementwise;
import io.gatun.runtime.DType;
import io.gatun.runtime.Device;
import io.gatun.runtime.DeviceArena;
import io.gatun.runtime.GatunException;
import io.gatun.runtime.Stream;
import io.gatun.runtime.Tensor;
import io.gatun.runtime.TransferCounters.Snapshot;
import java.io.IOException;
import java.nio.file.Files;
import java.nio.file.Path;
import java.util.Map;
import java.util.Set;
import org.junit.jupiter.api.AfterEach;
import org.junit.jupiter.api.BeforeEach;
import org.junit.jupiter.api.Test;
import org.junit.jupiter.api.io.TempDir;
import org.junit.jupiter.params.ParameterizedTest;
import org.junit.jupiter.params.provider.CsvSource;

/// Weights on the CPU: what is copied, who owns the mapping, and what cannot be a weight.
class CheckpointLoadTest {
    private static final float[] VALUES = {1.5f, -2.25f, 3.0000002f, 1e-3f, -0f, 65504};

    @TempDir
    Path folder;

    private Device device;
    private Stream stream;
    private Path file;

    @BeforeEach
    void open() {
        device = Device.open("cpu");
        stream = device.newStream();
        file = folder.resolve("model.safetensors");
        byte[] half = {0, 0x3e, (byte) 0x80, (byte) 0xc0};
        SafetensorsWriter.write(file, Map.of(
                "f32", TensorSource.of(VALUES, 2, 3),
                "f16", TensorSource.of(StoredDType.F16, half, 2),
                "bf16", TensorSource.of(StoredDType.BF16, half, 2),
                "scalar", TensorSource.of(new float[] {7}),
                "empty", TensorSource.of(new float[0], 0, 3),
                "ids", TensorSource.of(new long[] {1}, 1),
                "mask", TensorSource.of(StoredDType.BOOL, new byte[1], 1),
                "f64", TensorSource.of(StoredDType.F64, new byte[8], 1),
                "i8", TensorSource.of(StoredDType.I8, new byte[1], 1),
                "f8", TensorSource.of(StoredDType.F8_E4M3, new byte[1], 1)), Map.of());
    }

    @AfterEach
    void close() {
        device.close();
    }

    private Snapshot since(Snapshot before) {
        return device.counters().snapshot().since(before);
    }

    @Test
    void load_sameDtypeCopiesNothing() throws IOException {
        DeviceArena arena = device.newArena("weights");
        Snapshot before = device.counters().snapshot();
        Checkpoint checkpoint = Checkpoint.open(folder, "model", FileBytes.Mode.MAP);
        assertFalse(RawFile.isMapped(file), "headers alone need no mapping");
        Tensor f32 = checkpoint.load("f32", arena, stream, DType.F32, 2, 3);
        Tensor f16 = checkpoint.load("f16", arena, stream, DType.F16, 2);
        Tensor bf16 = checkpoint.load("bf16", arena, stream, DType.BF16, 2);
        Tensor scalar = checkpoint.load("scalar", arena, stream, DType.F32);
        Tensor empty = checkpoint.load("empty", arena, stream, DType.F32, 0, 3);
        assertEquals(new Snapshot(0, 0, 0, 0, 0, 0), since(before));
        assertEquals(Set.of("ids", "mask", "f64", "i8", "f8"), checkpoint.unused());

        checkpoint.close();
        checkpoint.close();
        assertThrows(IllegalStateException.class, () -> checkpoint.load("f32", arena, stream, DType.F32, 2, 3));
        assertTrue(RawFile.isMapped(file), "the arena keeps the mapping");
        assertArrayEquals(VALUES, f32.toFloats(stream));
        assertArrayEquals(new float[] {1.5f, -2.25f}, f16.toFloats(stream));
        assertArrayEquals(new float[] {0.125f, -4f}, bf16.toFloats(stream));
        assertArrayEquals(new float[] {7}, scalar.toFloats(stream));
        assertEquals(0, empty.elements());

        arena.close();
        assertFalse(RawFile.isMapped(file), "the last owner unmaps");
        assertThrows(IllegalStateException.class, () -> f32.toFloats(stream));
    }

    @Test
    void load_intoTwoArenas() throws IOException {
        DeviceArena first = device.newArena("first");
        DeviceArena second = device.newArena("second");
        try (Checkpoint checkpoint = Checkpoint.open(folder, "model", FileBytes.Mode.MAP)) {
            checkpoint.load("f32", first, stream, DType.F32, 2, 3);
            Tensor kept = checkpoint.load("f32", second, stream, DType.F32, 2, 3);
            first.close();
            assertArrayEquals(VALUES, kept.toFloats(stream));
            second.close();
            assertArrayEquals(VALUES, checkpoint.floats("f32"), "the checkpoint is still open");
            assertThrows(IllegalStateException.class, () -> checkpoint.load("f32", first, stream, DType.F32, 2, 3));
        }
        assertFalse(RawFile.isMapped(file));
    }

    @Test
    void load_otherDtypeConvertsOnce() throws IOException {
        try (DeviceArena arena = device.newArena("weights")) {
            Checkpoint checkpoint = Checkpoint.open(folder, "model", FileBytes.Mode.MAP);
            Snapshot before = device.counters().snapshot();
            Tensor bf16 = checkpoint.load("f32", arena, stream, DType.BF16, 2, 3);
            assertEquals(new Snapshot(0, 0, 12, 1, 12, 1), since(before));
            assertEquals(DType.BF16, bf16.dtype());
            Tensor rounded = arena.allocate(DType.BF16, 2, 3);
            rounded.copyFrom(stream, VALUES);
            assertArrayEquals(rounded.toFloats(stream), bf16.toFloats(stream));
            Tensor f32 = checkpoint.load("f16", arena, stream, DType.F32, 2);
            assertArrayEquals(new float[] {1.5f, -2.25f}, f32.toFloats(stream));
            assertArrayEquals(new float[] {7},
                    checkpoint.load("scalar", arena, stream, DType.F16).toFloats(stream));
            assertEquals(0, checkpoint.load("empty", arena, stream, DType.F16, 0, 3).elements());

            checkpoint.close();
            assertFalse(RawFile.isMapped(file), "converted weights do not need the file");
        }
    }

    @Test
    void load_misalignedIsCopied() throws IOException {
        byte[] data = new byte[1 + 8];
        data[4] = 0x3f; // F32 0.5 at byte 1
        Path other = Files.createDirectory(folder.resolve("misaligned"));
        RawFile.write(other.resolve("model.safetensors"), "{\"flag\":{\"dtype\":\"BOOL\",\"shape\":[1],"
                + "\"data_offsets\":[0,1]},\"w\":{\"dtype\":\"F32\",\"shape\":[2],\"data_offsets\":[1,9]}} ", data);
        try (DeviceArena arena = device.newArena("weights"); Checkpoint checkpoint = Checkpoint.open(other)) {
            float[] expected = checkpoint.floats("w");
            assertArrayEquals(new float[] {0.5f, 0}, expected);
            Snapshot before = device.counters().snapshot();
            Tensor f32 = checkpoint.load("w", arena, stream, DType.F32, 2);
            assertEquals(new Snapshot(8, 0, 8, 1, 8, 0), since(before));
            assertArrayEquals(expected, f32.toFloats(stream));

            before = device.counters().snapshot();
            Tensor bf16 = checkpoint.load("w", arena, stream, DType.BF16, 2);
            assertEquals(new Snapshot(8, 0, 8 + 4, 2, 4, 1), since(before), "the staged copy is freed");
            assertArrayEquals(expected, bf16.toFloats(stream));
        }
    }

    /// With `-Dgatun.load=copy` the file may be cut short while its weights are in use.
    @Test
    void load_copyOutlivesTheFile() throws IOException {
        try (DeviceArena arena = device.newArena("weights")) {
            Tensor weight;
            try (Checkpoint checkpoint = Checkpoint.open(folder, "model", FileBytes.Mode.COPY)) {
                weight = checkpoint.load("f32", arena, stream, DType.F32, 2, 3);
            }
            assertFalse(RawFile.isMapped(file));
            Files.write(file, new byte[0]);
            assertArrayEquals(VALUES, weight.toFloats(stream));
            Elementwise.scale(stream, weight, weight, 2);
            assertEquals(3, weight.toFloats(stream)[0]);
        }
    }

    private GatunException refused(String name, DType wanted, long... shape) {
        try (DeviceArena arena = device.newArena("weights"); Checkpoint checkpoint = Checkpoint.open(folder)) {
            GatunException e = assertThrows(GatunException.class,
                    () -> checkpoint.load(name, arena, stream, wanted, shape));
            assertTrue(checkpoint.unused().containsAll(checkpoint.names()), "a refused tensor is not used");
            return e;
        }
    }

    @Test
    void load_wrongShape() {
        GatunException e = refused("f32", DType.F32, 3, 2);
        assertEquals(GatunException.Status.INVALID_ARGUMENT, e.status());
        assertTrue(e.getMessage().startsWith(file + ": tensor 'f32' F32[2, 3], expected shape [3, 2]"), e.getMessage());
    }

    @Test
    void load_notAWeight() {
        for (String name : new String[] {"i8", "f8"}) {
            GatunException e = refused(name, DType.F32, 1);
            assertEquals(GatunException.Status.UNSUPPORTED, e.status());
            assertTrue(e.getMessage().contains("quantised checkpoints are not supported"), e.getMessage());
        }
        for (String name : new String[] {"ids", "mask", "f64"}) {
            assertTrue(refused(name, DType.F32, 1).getMessage().contains("expected F32, BF16 or F16"), name);
        }
        assertTrue(refused("f32", DType.I64, 2, 3).getMessage().contains("wanted as i64"));
        assertTrue(refused("none", DType.F32, 1).getMessage().contains("no tensor 'none'"));
    }

    /// Of a weight that has been packed the mapped file's pages leave this process; who reads them again finds them.
    @ParameterizedTest
    @CsvSource({"F32", "F16"})
    void packedWeight_letsThePagesGo(DType dtype) throws IOException {
        int channels = 256;
        byte[] data = new byte[channels * channels * 9 * dtype.bytes()];
        for (int i = 0; i < data.length; i += dtype.bytes()) {
            data[i + dtype.bytes() - 1] = (byte) (i % 7 + 48); // some positive numbers
        }
        Path large = folder.resolve("large.safetensors");
        SafetensorsWriter.write(large, Map.of("weight", TensorSource.of(StoredDType.valueOf(dtype.name()), data,
                channels, channels, 3, 3)), Map.of());
        try (DeviceArena arena = device.newArena("weights");
                Checkpoint checkpoint = Checkpoint.open(folder, "large", FileBytes.Mode.MAP)) {
            Tensor weight = checkpoint.load("weight", arena, stream, dtype, channels, channels, 3, 3);
            Tensor x = arena.allocate(dtype, 1, 2, 2, channels);
            Tensor[] y = {arena.allocate(dtype, x.shape()), arena.allocate(dtype, x.shape())};
            Elementwise.fill(stream, x, 0.5);
            float[] values = weight.toFloats(stream);
            assertTrue(RawFile.residentBytes(large) > data.length * 3L / 4, "the file has been read");
            Tensor frozen = weight.frozen().permute(0, 2, 3, 1);
            device.convolution(stream, y[0], x, frozen, null, Geometry.same(3), ActivationKind.NONE);
            long left = RawFile.residentBytes(large);
            assertTrue(left < data.length / 4, left + " of " + data.length + " bytes are resident after packing");
            device.convolution(stream, y[1], x, frozen, null, Geometry.same(3), ActivationKind.NONE);
            assertArrayEquals(y[0].toFloats(stream), y[1].toFloats(stream));
            assertArrayEquals(values, weight.toFloats(stream));
        }
    }
}
