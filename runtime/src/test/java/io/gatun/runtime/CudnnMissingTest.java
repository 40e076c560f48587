package io.gatun.runtime;

import static org.junit.jupiter.api.Assertions.assertEquals;
import static org.junit.jupiter.api.Assertions.assertTrue;
import static org.junit.jupiter.api.Assumptions.assumeTrue;

import io.gatun.ops.ActivationKind;
import io.gatun.ops.Convolution.Geometry;
import io.gatun.ops.Convolution.Transposed;
import java.io.IOException;
import java.nio.file.DirectoryStream;
import java.nio.file.Files;
import java.nio.file.Path;
import org.junit.jupiter.api.Tag;
import org.junit.jupiter.api.Test;
import org.junit.jupiter.api.io.TempDir;

/// Without cuDNN convolutions run on our kernel, and that is said.
@Tag("cuda")
class CudnnMissingTest {
    @Test
    void convolution_runsOnOurKernel(@TempDir Path folder) throws Exception {
        String libraries = System.getProperty("gatun.cuda.path");
        assumeTrue(libraries != null, "needs the folder of CUDA's libraries in gatun.cuda.path");
        Path chosen = Path.of(libraries);
        String with = ChildJvm.run(Both.class, "-Dgatun.cuda.path=" + chosen).text();
        linkAllButCudnn(chosen, folder);
        String without = ChildJvm.run(Both.class, "-Dgatun.cuda.path=" + folder).text();
        assertTrue(with.contains(", cuDNN,") && !with.contains("INFO"), with);
        assertTrue(without.contains(", no cuDNN (convolutions by our kernel),"), without);
        assertEquals(2, without.split("libcudnn.so.9 not found: convolutions run on our kernel", -1).length - 1,
                "one line of the log and one of the report: " + without);
        // weighted sums of both results by their definitions, in whole numbers
        String expected = "-18019 -5888\n";
        assertTrue(with.endsWith(expected) && without.endsWith(expected), with + without);
    }

    private static void linkAllButCudnn(Path from, Path to) throws IOException {
        try (DirectoryStream<Path> files = Files.newDirectoryStream(from)) {
            for (Path file : files) {
                if (!file.getFileName().toString().startsWith("libcudnn")) {
                    Files.createSymbolicLink(to.resolve(file.getFileName()), file.toAbsolutePath());
                }
            }
        }
    }

    static final class Both {
        private Both() {}

        public static void main(String[] args) {
            try (Device device = Device.open("cuda");
                    Stream stream = device.newStream();
                    DeviceArena arena = device.newArena("convolutions")) {
                System.out.println(device.description());
                CudaSearch.report().forEach(System.out::println);
                Tensor x = arena.allocate(DType.F32, 1, 3, 3, 8);
                Tensor weight = arena.allocate(DType.F32, 8, 8, 3, 3);
                Tensor y = arena.allocate(DType.F32, 1, 3, 3, 8);
                Tensor z = arena.allocate(DType.F32, 1, 5, 5, 8);
                x.copyFrom(stream, counted(3 * 3 * 8));
                weight.copyFrom(stream, counted(8 * 8 * 9));
                Tensor frozen = weight.frozen().permute(0, 2, 3, 1);
                device.convolution(stream, y, x, frozen, null, Geometry.same(3), ActivationKind.NONE);
                device.transposedConvolution(stream, z, x, frozen, null, Transposed.of(2, 1), ActivationKind.NONE);
                System.out.println(weighted(y.toFloats(stream)) + " " + weighted(z.toFloats(stream)));
            }
        }

        /// Small whole numbers, whose products and sums are exact in any order, and which no permutation leaves alone.
        private static float[] counted(int n) {
            float[] values = new float[n];
            for (int i = 0; i < n; i++) {
                values[i] = i * 7 % 11 - 5;
            }
            return values;
        }

        /// A sum in which each place counts differently.
        private static long weighted(float[] values) {
            long sum = 0;
            for (int i = 0; i < values.length; i++) {
                sum += (i + 1L) * (long) values[i];
            }
            return sum;
        }
    }
}
