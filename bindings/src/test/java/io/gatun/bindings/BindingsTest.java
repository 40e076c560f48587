package io.gatun.bindings;

import static org.junit.jupiter.api.Assertions.assertArrayEquals;
import static org.junit.jupiter.api.Assertions.assertEquals;
import static org.junit.jupiter.api.Assertions.assertTrue;

import io.gatun.bindings.cublaslt.CublasLt;
import io.gatun.bindings.cudart.Cudart;
import io.gatun.bindings.cudnn.Cudnn;
import io.gatun.bindings.gatun.Gatun;
import io.gatun.bindings.gatun.gt_stream;
import io.gatun.bindings.gatun.gt_tensor;
import io.gatun.bindings.onednn.OneDnn;
import java.io.IOException;
import java.lang.foreign.Arena;
import java.lang.foreign.MemorySegment;
import java.lang.foreign.SymbolLookup;
import java.lang.foreign.ValueLayout;
import java.lang.reflect.Method;
import java.lang.reflect.Modifier;
import java.nio.file.Files;
import java.nio.file.Path;
import java.security.MessageDigest;
import java.security.NoSuchAlgorithmException;
import java.util.Arrays;
import java.util.HexFormat;
import java.util.List;
import java.util.Set;
import java.util.TreeSet;
import java.util.regex.MatchResult;
import java.util.regex.Pattern;
import java.util.stream.Collectors;
import java.util.stream.Stream;
import org.junit.jupiter.api.Test;
import org.junit.jupiter.params.ParameterizedTest;
import org.junit.jupiter.params.provider.ValueSource;

/// Do the committed bindings belong to the headers beside them and to the library that was built from those?
class BindingsTest {
    private static final Path ROOT = Path.of(System.getProperty("gatun.root"));
    private static final Path HEADERS = ROOT.resolve("native/include/gatun");
    private static final int F32 = Gatun.GT_F32();

    @ParameterizedTest
    @ValueSource(strings = {"gatun", "onednn"})
    void functions_areBoundAndResolve(String library) throws IOException {
        Class<?> bindings = library.equals("gatun") ? Gatun.class : OneDnn.class;
        SymbolLookup symbols = library.equals("gatun") ? Libraries.gatun() : Libraries.oneDnn();
        Set<String> listed = listed(library, "function");
        assertTrue(listed.size() > 20, "symbols/" + library + ".txt has only " + listed);
        assertEquals(listed, boundFunctions(bindings), "functions of " + bindings.getName());
        Set<String> missing = listed.stream().filter(name -> symbols.find(name).isEmpty())
                .collect(Collectors.toCollection(TreeSet::new));
        assertEquals(Set.of(), missing, "not exported by the library");
    }

    /// Whether they resolve is for machines that have CUDA, and for the tests on its stand-ins.
    @ParameterizedTest
    @ValueSource(strings = {"cudart", "cublaslt", "cudnn"})
    void functionsOfCuda_areBound(String library) throws IOException {
        Class<?> bindings = library.equals("cudart") ? Cudart.class : library.equals("cudnn") ? Cudnn.class
                : CublasLt.class;
        Set<String> listed = listed(library, "function");
        assertTrue(listed.size() > 15, "symbols/" + library + ".txt has only " + listed);
        assertEquals(listed, boundFunctions(bindings), "functions of " + bindings.getName());
    }

    @Test
    void functions_areThoseOfTheHeaders() throws IOException {
        Pattern declaration = Pattern.compile("GT_API[^;#]*?\\b(gt_\\w+)\\s*\\(");
        assertEquals(matches(declaration).map(m -> m.group(1)).collect(Collectors.toCollection(TreeSet::new)),
                listed("gatun", "function"));
    }

    @Test
    void structs_haveTheSizesOfTheLibrary() {
        try (Arena arena = Arena.ofConfined()) {
            MemorySegment sizes = arena.allocate(ValueLayout.JAVA_LONG, 2);
            assertEquals(Gatun.GT_OK(), Gatun.gt_abi_sizes(sizes, sizes.asSlice(8)));
            assertArrayEquals(new long[] {gt_tensor.sizeof(), gt_stream.sizeof()},
                    sizes.toArray(ValueLayout.JAVA_LONG));
        }
    }

    /// Every field of gt_tensor is written by Java and reported or used by the library.
    @Test
    void tensorFields_areReadByTheLibrary() {
        try (Arena arena = Arena.ofConfined()) {
            MemorySegment stream = stream(arena, Gatun.GT_CPU(), 1);
            MemorySegment y = tensor(arena, F32, new long[] {2, 3, 5, 7, 11}, new float[2 * 3 * 5 * 7 * 11]);
            MemorySegment x = tensor(arena, F32, new long[] {13, 1, 17, 1, 19}, new float[13 * 17 * 19]);
            assertRefused(Gatun.gt_copy(stream, y, x), "[2, 3, 5, 7, 11]", "[13, 1, 17, 1, 19]");
            gt_tensor.dtype(x, Gatun.GT_I64());
            assertRefused(Gatun.gt_relu(stream, y, x), "is i64");
            gt_tensor.rank(x, 77);
            assertRefused(Gatun.gt_relu(stream, y, x), "has rank 77");
            gt_tensor.data(y, MemorySegment.NULL);
            assertRefused(Gatun.gt_fill(stream, y, 1), "y->data is NULL");
        }
    }

    /// A copy out of a permuted tensor of rank 5 uses each shape, each stride and the address.
    @Test
    void tensorStrides_areReadByTheLibrary() {
        long[] shape = {2, 3, 4, 5, 6};
        long[] stride = {1, 240, 2, 48, 8};
        float[] values = new float[720];
        for (int i = 0; i < values.length; i++) {
            values[i] = i;
        }
        try (Arena arena = Arena.ofConfined()) {
            MemorySegment x = tensor(arena, F32, shape, values);
            for (int i = 0; i < stride.length; i++) {
                gt_tensor.stride(x, i, stride[i]);
            }
            MemorySegment y = tensor(arena, F32, shape, new float[values.length]);
            assertEquals(Gatun.GT_OK(), Gatun.gt_copy(stream(arena, Gatun.GT_CPU(), 1), y, x));
            float[] expected = new float[values.length];
            for (int i = 0; i < expected.length; i++) {
                int rest = i;
                long at = 0;
                for (int d = shape.length - 1; d >= 0; d--) {
                    at += rest % shape[d] * stride[d];
                    rest /= (int) shape[d];
                }
                expected[i] = values[(int) at];
            }
            assertArrayEquals(expected, gt_tensor.data(y).reinterpret(4L * values.length)
                    .toArray(ValueLayout.JAVA_FLOAT));
        }
    }

    @Test
    void streamFields_areReadByTheLibrary() {
        try (Arena arena = Arena.ofConfined()) {
            MemorySegment y = tensor(arena, F32, new long[] {4}, new float[4]);
            assertRefused(Gatun.gt_fill(stream(arena, 9, 1), y, 1), "stream->device is 9");
            assertRefused(Gatun.gt_fill(stream(arena, Gatun.GT_CPU(), -3), y, 1), "stream->num_threads is -3");
        }
    }

    @Test
    void stamp_isThatOfTheHeaders() throws IOException, NoSuchAlgorithmException {
        MessageDigest sha256 = MessageDigest.getInstance("SHA-256");
        for (Path header : headers()) {
            sha256.update(Files.readAllBytes(header));
        }
        assertEquals(Files.readString(ROOT.resolve("bindings/symbols/gatun.stamp")).strip(),
                HexFormat.of().formatHex(sha256.digest()), "the headers changed: run bindings/generate.sh");
    }

    @Test
    void umbrellaHeader_includesEveryFamily() throws IOException {
        List<String> included = Pattern.compile("(?m)^#include \"(gatun/\\w+\\.h)\"$")
                .matcher(Files.readString(HEADERS.resolve("gatun.h"))).results().map(m -> m.group(1)).toList();
        assertEquals(headers().stream().map(header -> "gatun/" + header.getFileName()).toList(), included);
    }

    /// Every constant that a header gives a number.
    @Test
    void constants_areThoseOfTheHeaders() throws IOException, ReflectiveOperationException {
        Pattern constant = Pattern.compile("(?m)(?:^#define (GT_\\w+) |\\b(GT_\\w+) = )(\\d+)\\b");
        List<MatchResult> constants = matches(constant).toList();
        assertTrue(constants.size() > 20, constants.size() + " constants found in the headers");
        for (MatchResult match : constants) {
            String name = match.group(1) != null ? match.group(1) : match.group(2);
            assertEquals(Integer.parseInt(match.group(3)), Gatun.class.getMethod(name).invoke(null), name);
        }
        assertEquals(Gatun.GT_ABI_VERSION(), Gatun.gt_abi_version());
    }

    /// The headers in the order of generate.sh, without the umbrella.
    private static List<Path> headers() throws IOException {
        try (Stream<Path> files = Files.list(HEADERS)) {
            return files.filter(file -> !file.endsWith("gatun.h")).sorted().toList();
        }
    }

    private static Stream<MatchResult> matches(Pattern pattern) throws IOException {
        StringBuilder text = new StringBuilder();
        for (Path header : headers()) {
            text.append(Files.readString(header));
        }
        return pattern.matcher(text).results();
    }

    private static Set<String> listed(String library, String kind) throws IOException {
        return Files.readAllLines(ROOT.resolve("bindings/symbols/" + library + ".txt")).stream()
                .filter(line -> line.startsWith(kind + " ")).map(line -> line.substring(kind.length() + 1))
                .collect(Collectors.toCollection(TreeSet::new));
    }

    /// Public static methods that have a `$handle` beside them, which jextract gives to functions alone.
    private static Set<String> boundFunctions(Class<?> bindings) {
        Set<String> methods = Arrays.stream(bindings.getDeclaredMethods())
                .filter(m -> Modifier.isPublic(m.getModifiers()) && Modifier.isStatic(m.getModifiers()))
                .map(Method::getName).collect(Collectors.toSet());
        return methods.stream().filter(name -> methods.contains(name + "$handle"))
                .collect(Collectors.toCollection(TreeSet::new));
    }

    private static MemorySegment stream(Arena arena, int device, int numThreads) {
        MemorySegment stream = gt_stream.allocate(arena);
        gt_stream.device(stream, device);
        gt_stream.num_threads(stream, numThreads);
        return stream;
    }

    private static MemorySegment tensor(Arena arena, int dtype, long[] shape, float[] values) {
        MemorySegment tensor = gt_tensor.allocate(arena);
        gt_tensor.data(tensor, arena.allocateFrom(ValueLayout.JAVA_FLOAT, values));
        gt_tensor.dtype(tensor, dtype);
        gt_tensor.rank(tensor, shape.length);
        long step = 1;
        for (int i = shape.length - 1; i >= 0; i--) {
            gt_tensor.shape(tensor, i, shape[i]);
            gt_tensor.stride(tensor, i, step);
            step *= shape[i];
        }
        return tensor;
    }

    private static void assertRefused(int status, String... words) {
        String text = HostMemory.string(Gatun.gt_last_error());
        assertEquals(Gatun.GT_INVALID_ARGUMENT(), status, text);
        for (String word : words) {
            assertTrue(text.contains(word), "expected '" + word + "' in: " + text);
        }
    }
}
