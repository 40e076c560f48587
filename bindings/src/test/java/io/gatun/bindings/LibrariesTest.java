package io.gatun.bindings;

import static org.junit.jupiter.api.Assertions.assertEquals;
import static org.junit.jupiter.api.Assertions.assertTrue;
import static org.junit.jupiter.api.Assumptions.assumeTrue;

import java.io.File;
import java.io.IOException;
import java.nio.file.Files;
import java.nio.file.Path;
import java.nio.file.attribute.PosixFilePermissions;
import java.util.ArrayList;
import java.util.List;
import java.util.Map;
import java.util.TreeMap;
import java.util.stream.Collectors;
import java.util.stream.Stream;
import java.util.zip.CRC32;
import org.junit.jupiter.api.Test;
import org.junit.jupiter.api.io.TempDir;
import org.junit.jupiter.params.ParameterizedTest;
import org.junit.jupiter.params.provider.CsvSource;

/// Are libraries found, extracted once and opened; and does a failure say in one line what to do?
class LibrariesTest {
    private static final Path CLASSES = ChildJvm.rootOf(Libraries.class);
    private static final Path TEST_CLASSES = ChildJvm.rootOf(OpenLibraries.class);
    private static final String GATUN_RESOURCE = "META-INF/gatun/" + Libraries.platform() + "/libgatun.so";
    private static final Path GATUN_JAR = ChildJvm.rootOf(GATUN_RESOURCE);
    private static final Path ONEDNN_JAR =
            ChildJvm.rootOf("org/bytedeco/dnnl/" + Libraries.platform() + "/libdnnl.so.3");
    private static final String ALLOW = "--enable-native-access=ALL-UNNAMED";

    @TempDir
    Path folder;

    @Test
    void extract_namesFolderByHash_andSecondStartWritesNothing() throws Exception {
        ChildJvm.Result first = open(List.of(), "gatun", "onednn");
        assertEquals(0, first.exit(), first.output());
        Map<String, Path> files = extracted();
        assertEquals(List.of("libdnnl.so.3", "libgatun.so", "libgomp.so.1"), List.copyOf(files.keySet()));
        for (Path file : files.values()) {
            CRC32 crc = new CRC32();
            crc.update(Files.readAllBytes(file));
            assertEquals("%08x-%d".formatted(crc.getValue(), Files.size(file)),
                    String.valueOf(file.getParent().getFileName()));
            assertEquals("rwx------", PosixFilePermissions.toString(Files.getPosixFilePermissions(file.getParent())));
            assertTrue(first.output().contains("file " + file + "\n"), first.output());
        }
        Map<String, Object> identities = identities(files);
        ChildJvm.Result second = open(List.of(), "gatun", "onednn");
        assertEquals(0, second.exit(), second.output());
        assertEquals(identities, identities(extracted()));
    }

    @Test
    void extract_twoProcessesAtOnce() throws Exception {
        List<Process> processes = new ArrayList<>();
        for (int i = 0; i < 3; i++) {
            processes.add(ChildJvm.start(folder, arguments(List.of(), "gatun")));
        }
        for (Process process : processes) {
            ChildJvm.Result result = ChildJvm.await(process);
            assertEquals(0, result.exit(), result.output());
        }
        assertEquals(List.of("libgatun.so", "libgomp.so.1"), List.copyOf(extracted().keySet()));
    }

    @Test
    void extract_replacesTruncatedFile() throws Exception {
        assertEquals(0, open(List.of(), "gatun").exit());
        Path file = extracted().get("libgatun.so");
        byte[] whole = Files.readAllBytes(file);
        Files.write(file, new byte[100]);
        ChildJvm.Result result = open(List.of(), "gatun");
        assertEquals(0, result.exit(), result.output());
        assertEquals(whole.length, Files.size(file));
    }

    /// A file where the folder should be, and a place where nobody can make folders; root may write anywhere else.
    @Test
    void extract_cacheFolderCannotBeWritten() throws Exception {
        Path file = Files.createFile(folder.resolve("file"));
        for (Path cache : List.of(file, Path.of("/proc/gatun"))) {
            ChildJvm.Result result = open(List.of("-Dgatun.cache=" + cache), "gatun", "gatun");
            String line = assertRefused(result, "cannot write " + cache, "-Dgatun.cache=DIR", "-Dgatun.native.path");
            assertEquals(line + "\n" + line + "\n", result.output(), "the second call says the same");
        }
    }

    @Test
    void gatun_pathOfNoLibrary() throws Exception {
        Path absent = folder.resolve("absent.so");
        assertRefused(open(List.of("-Dgatun.native.path=" + absent), "gatun"), "no readable file " + absent,
                "-Dgatun.native.path");
        Path empty = Files.createDirectory(folder.resolve("empty"));
        assertRefused(open(List.of("-Dgatun.native.path=" + empty), "gatun"),
                "no readable file " + empty.resolve("libgatun.so"), "-Dgatun.native.path");
        Path text = Files.writeString(folder.resolve("text.so"), "not a library");
        assertRefused(open(List.of("-Dgatun.native.path=" + text), "gatun"), "cannot open " + text, "text.so");
    }

    @Test
    void gatun_pathOfAnotherLibrary() throws Exception {
        Path other = Path.of(System.getProperty("java.home"), "lib", "libzip.so");
        assertRefused(open(List.of("-Dgatun.native.path=" + other), "gatun"), other.toString(), "-Dgatun.native.path",
                "is another library");
    }

    @ParameterizedTest
    @CsvSource({"libgatun.so", "./libgatun.so", "."})
    void gatun_pathRelativeToTheWorkingFolder(String path) throws Exception {
        try (var in = LibrariesTest.class.getClassLoader().getResourceAsStream(GATUN_RESOURCE)) {
            Files.copy(in, folder.resolve("libgatun.so"));
        }
        ChildJvm.Result result = open(List.of("-Dgatun.native.path=" + path), "gatun");
        assertEquals(0, result.exit(), result.output());
        assertTrue(result.output().contains("gatun true\n"), result.output());
    }

    @Test
    void gatun_noneOnTheClassPath() throws Exception {
        assertRefused(run(List.of(ALLOW), List.of(CLASSES, TEST_CLASSES, ONEDNN_JAR), "gatun"),
                "no libgatun for " + Libraries.platform(), "io.gatun:gatun-native", "-Dgatun.native.path");
    }

    @Test
    void gatun_withoutOneDnn() throws Exception {
        List<Path> classPath = List.of(CLASSES, TEST_CLASSES, GATUN_JAR);
        ChildJvm.Result result = run(List.of(ALLOW), classPath, "onednn", "gatun");
        assertRefused(result, "no oneDNN for " + Libraries.platform(), "org.bytedeco:dnnl", "-Dgatun.onednn.path");
        // Without oneDNN's libgomp the system's is needed, which a bare machine does not have.
        assertTrue(result.output().contains("gatun true\n") || result.output().contains("Install libgomp"),
                result.output());
    }

    @Test
    void oneDnn_folderWithoutIt() throws Exception {
        assertRefused(open(List.of("-Dgatun.onednn.path=" + folder), "onednn"),
                "no readable file " + folder.resolve("libdnnl.so.3"), "-Dgatun.onednn.path");
    }

    @Test
    void nativeAccess_deniedOnTheClassPath() throws Exception {
        List<Path> classPath = List.of(CLASSES, TEST_CLASSES, GATUN_JAR, ONEDNN_JAR);
        assertRefused(run(List.of("--illegal-native-access=deny"), classPath, "gatun"), "native access is denied",
                "--enable-native-access=ALL-UNNAMED");
    }

    @Test
    void nativeAccess_deniedToTheModule() throws Exception {
        String main = "io.gatun.bindings/" + OpenLibraries.class.getName();
        ChildJvm.Result result = ChildJvm.await(ChildJvm.start(folder, List.of("--illegal-native-access=deny",
                "--module-path", CLASSES.toString(), "--patch-module", "io.gatun.bindings=" + TEST_CLASSES, "-m", main,
                "gatun")));
        assertRefused(result, "native access is denied", "--enable-native-access=io.gatun.bindings");
    }

    @ParameterizedTest
    @CsvSource({"Linux, amd64, linux-x86_64", "Linux, aarch64, linux-arm64", "Mac OS X, aarch64, mac_os_x-arm64"})
    void platform_isSpelledAsTheJars(String os, String architecture, String expected) throws Exception {
        ChildJvm.Result result = open(List.of("-Dos.name=" + os, "-Dos.arch=" + architecture), "platform");
        assertEquals(expected + "\n", result.output());
    }

    @Test
    void platform_withoutLibraryIsNamed() throws Exception {
        assertRefused(open(List.of("-Dos.arch=riscv64"), "gatun"), "no libgatun for linux-riscv64");
    }

    @ParameterizedTest
    @CsvSource(textBlock = """
            failed to map segment from shared object,                 true,  noexec
            /x/libgatun.so: Operation not permitted,                  true,  -Dgatun.cache=DIR
            version `GLIBC_2.99' not found,                           true,  newer glibc
            libgomp.so.1: cannot open shared object file,             false, libgomp1
            libgomp.so.1: cannot open shared object file,             true,  ''
            invalid ELF header,                                       false, ''
            """)
    void advice_forTheLoadersWords(String error, boolean bundledOpenMp, String expected) {
        String advice = Libraries.advice(error, bundledOpenMp);
        assertTrue(expected.isEmpty() ? advice.isEmpty() : advice.contains(expected), advice);
    }

    private ChildJvm.Result open(List<String> options, String... wanted) throws IOException, InterruptedException {
        return ChildJvm.await(ChildJvm.start(folder, arguments(options, wanted)));
    }

    private List<String> arguments(List<String> options, String... wanted) {
        assumeTrue(Files.isRegularFile(GATUN_JAR), "libgatun is not in a jar here: " + GATUN_JAR);
        List<String> all = new ArrayList<>(List.of(ALLOW, "--illegal-native-access=deny",
                "-Dgatun.cache=" + folder.resolve("cache")));
        all.addAll(options);
        return arguments(all, List.of(CLASSES, TEST_CLASSES, GATUN_JAR, ONEDNN_JAR), wanted);
    }

    private ChildJvm.Result run(List<String> options, List<Path> classPath, String... wanted)
            throws IOException, InterruptedException {
        List<String> all = new ArrayList<>(List.of("-Dgatun.cache=" + folder.resolve("cache")));
        all.addAll(options);
        return ChildJvm.await(ChildJvm.start(folder, arguments(all, classPath, wanted)));
    }

    private static List<String> arguments(List<String> options, List<Path> classPath, String... wanted) {
        List<String> all = new ArrayList<>(options);
        all.add("-cp");
        all.add(classPath.stream().map(Path::toString).collect(Collectors.joining(File.pathSeparator)));
        all.add(OpenLibraries.class.getName());
        all.addAll(List.of(wanted));
        return all;
    }

    /// The files below the cache folder by name; fails when a name is there twice.
    private Map<String, Path> extracted() throws IOException {
        try (Stream<Path> files = Files.walk(folder.resolve("cache"))) {
            return files.filter(Files::isRegularFile).collect(Collectors.toMap(
                    file -> String.valueOf(file.getFileName()), file -> file, (a, b) -> {
                        throw new AssertionError(a + " and " + b);
                    }, TreeMap::new));
        }
    }

    /// Inode and time of each file: what changes when it is written anew.
    private static Map<String, Object> identities(Map<String, Path> files) throws IOException {
        Map<String, Object> identities = new TreeMap<>();
        for (Path file : files.values()) {
            identities.put(file.toString(), Files.readAttributes(file, "unix:ino,lastModifiedTime"));
        }
        return identities;
    }

    /// The one line that says what to do; no stack trace.
    private static String assertRefused(ChildJvm.Result result, String... words) {
        assertEquals(OpenLibraries.REFUSED, result.exit(), result.output());
        String line = result.output().lines().filter(l -> l.startsWith("refused: ")).findFirst().orElse("");
        for (String word : words) {
            assertTrue(line.contains(word), "expected '" + word + "' in: " + result.output());
        }
        assertTrue(!result.output().contains("\tat "), result.output());
        return line;
    }
}
