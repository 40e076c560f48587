package io.gatun.runtime;

import static org.junit.jupiter.api.Assertions.assertEquals;
import static org.junit.jupiter.api.Assertions.assertTrue;

import io.gatun.ops.ActivationKind;
import io.gatun.ops.Convolution.Geometry;
import io.gatun.ops.Convolution.Transposed;
import io.gatun.ops.Elementwise;
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
        Path chosen = Path.of(System.getProperty("gatun.cuda.path"));
        String with = ChildJvm.run(Both.class, "-Dgatun.cuda.path=" + chosen).text();
        linkAllButCudnn(chosen, folder);
        String without = ChildJvm.run(Both.class, "-Dgatun.cuda.path=" + folder).text();
        assertTrue(with.contains(", cuDNN,") && !with.contains("INFO"), with);
        assertTrue(without.contains(", no cuDNN (convolutions by our kernel),"), without);
        assertEquals(2, without.split("libcudnn.so.9 not found: convolutions run on our kernel", -1).length - 1,
                "one line of the log and one of the report: " + without);
        assertTrue(with.endsWith("72.0 62.72\n") && without.endsWith("72.0 62.72\n"), with + without);
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
                Elementwise.fill(stream, x, 1);
                Elementwise.fill(stream, weight, 1);
                Tensor frozen = weight.frozen().permute(0, 2, 3, 1);
                device.convolution(stream, y, x, frozen, null, Geometry.same(3), ActivationKind.NONE);
                device.transposedConvolution(stream, z, x, frozen, null, Transposed.of(2, 1), ActivationKind.NONE);
                System.out.println(y.toFloats(stream)[4 * 8] + " " + sum(z.toFloats(stream)) / 50);
            }
        }

        private static double sum(float[] values) {
            double sum = 0;
            for (float v : values) {
                sum += v;
            }
            return sum;
        }
    }
}
