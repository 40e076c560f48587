package io.gatun.train.data;

import static org.junit.jupiter.api.Assertions.assertArrayEquals;
import static org.junit.jupiter.api.Assertions.assertEquals;
import static org.junit.jupiter.api.Assertions.assertFalse;
import static org.junit.jupiter.api.Assertions.assertThrows;
import static org.junit.jupiter.api.Assertions.assertTrue;
import static org.junit.jupiter.api.Assumptions.assumeTrue;

import io.gatun.runtime.GatunException;
import io.gatun.text.SimpleTokenizer;
import io.gatun.text.Tokenizer;
import io.gatun.text.Tokenizer.SpecialTokens;
import java.io.IOException;
import java.nio.file.Files;
import java.nio.file.Path;
import java.nio.file.attribute.FileTime;
import java.util.ArrayList;
import java.util.List;
import org.junit.jupiter.api.Test;
import org.junit.jupiter.api.io.TempDir;

/// Does a token file hold the ids of its text, made once, and are its windows where they should be?
class TokenFileTest {
    private static final String TEXT = "To be, or not to be,\nthat is the question:\n\nWhether 'tis nobler\n";

    @TempDir
    private Path folder;

    private Path text(String name, String content) throws IOException {
        Path file = folder.resolve(name);
        Files.createDirectories(file.getParent());
        return Files.writeString(file, content);
    }

    private Tokenizer characters(TextCorpus corpus) {
        SimpleTokenizer.ofCharacters(corpus.characters()).write(folder);
        return Tokenizer.open(folder);
    }

    private Tokenizer bytes() {
        SimpleTokenizer.ofBytes().write(folder);
        return Tokenizer.open(folder);
    }

    private static int[] all(TokenFile file) {
        int[] ids = new int[(int) file.size()];
        for (int i = 0; i < ids.length; i++) {
            ids[i] = file.get(i);
        }
        return ids;
    }

    @Test
    void open_holdsTheTextsIds() throws IOException {
        TextCorpus corpus = TextCorpus.open(text("a.txt", TEXT));
        try (Tokenizer tokenizer = characters(corpus);
                TokenFile file = TokenFile.open(folder.resolve("a.tokens"), corpus, tokenizer, -1)) {
            assertEquals(TEXT.length(), file.size());
            assertEquals(TEXT.chars().distinct().count(), file.vocabSize());
            assertArrayEquals(tokenizer.encode(TEXT), all(file));
            assertEquals(TEXT, tokenizer.decode(all(file)));
            assertEquals(64 + 2 * TEXT.length(), Files.size(folder.resolve("a.tokens")));
        }
    }

    @Test
    void open_readsFoldersInOrderWithSeparators() throws IOException {
        text("texts/b/c.txt", "last");
        text("texts/a.txt", "first");
        text("texts/notes.md", "no text");
        TextCorpus corpus = TextCorpus.open(folder.resolve("texts"));
        try (Tokenizer tokenizer = bytes();
                TokenFile file = TokenFile.open(folder.resolve("a.tokens"), corpus, tokenizer, 256)) {
            assertEquals(257, file.vocabSize());
            int[] ids = all(file);
            assertEquals(256, ids[5]);
            ids[5] = '|';
            assertEquals("first|last", tokenizer.decode(ids));
        }
    }

    @Test
    void open_takesFourBytesForALargeVocabulary() throws IOException {
        TextCorpus corpus = TextCorpus.open(text("a.txt", "ab"));
        try (Tokenizer tokenizer = bytes();
                TokenFile file = TokenFile.open(folder.resolve("a.tokens"), corpus, tokenizer, 1 << 16)) {
            assertEquals((1 << 16) + 1, file.vocabSize());
            assertArrayEquals(new int[] {'a', 'b'}, all(file));
            assertEquals(64 + 4 * 2, Files.size(folder.resolve("a.tokens")));
        }
    }

    @Test
    void open_reusesTheFileUntilTextOrTokenizerChange() throws IOException {
        Path source = text("a.txt", TEXT);
        Path tokens = folder.resolve("a.tokens");
        try (Tokenizer bytes = bytes()) {
            TokenFile.open(tokens, TextCorpus.open(source), bytes, -1).close();
            FileTime past = FileTime.fromMillis(1_000_000);
            Files.setLastModifiedTime(tokens, past);
            TokenFile.open(tokens, TextCorpus.open(source), bytes, -1).close();
            assertEquals(past, Files.getLastModifiedTime(tokens), "reused");

            Files.writeString(source, TEXT.replace("nobler", "better"));
            try (TokenFile changed = TokenFile.open(tokens, TextCorpus.open(source), bytes, -1)) {
                assertTrue(bytes.decode(all(changed)).contains("better"));
            }
        }
        try (Tokenizer other = characters(TextCorpus.open(source));
                TokenFile changed = TokenFile.open(tokens, TextCorpus.open(source), other, -1)) {
            assertEquals(other.vocabSize(), changed.vocabSize());
        }
    }

    @Test
    void open_makesADamagedFileAnew() throws IOException {
        TextCorpus corpus = TextCorpus.open(text("a.txt", TEXT));
        Path tokens = folder.resolve("a.tokens");
        try (Tokenizer tokenizer = bytes()) {
            TokenFile.open(tokens, corpus, tokenizer, -1).close();
            byte[] good = Files.readAllBytes(tokens);
            for (int length : new int[] {0, 10, 63, 64, good.length - 1}) {
                Files.write(tokens, java.util.Arrays.copyOf(good, length));
                TokenFile.open(tokens, corpus, tokenizer, -1).close();
                assertArrayEquals(good, Files.readAllBytes(tokens), "cut to " + length);
            }
        }
    }

    @Test
    void readPieces_giveTheWholeText() throws IOException {
        String text = (TEXT + "a\uD83D\uDE00b ").repeat(7) + "x".repeat(99) + "\uD83D\uDE00".repeat(50);
        Path file = text("a.txt", text);
        for (int size : new int[] {7, 16, 64, 1000}) {
            List<String> pieces = new ArrayList<>();
            TextCorpus.readPieces(file, size, pieces::add);
            assertEquals(text, String.join("", pieces));
            for (String piece : pieces) {
                assertTrue(piece.length() <= size && !piece.isEmpty(), piece);
                assertFalse(Character.isLowSurrogate(piece.charAt(0)), piece);
            }
        }
    }

    /// GPT-2's pre-tokenizer joins a space to the word after it, and line breaks to each other.
    @Test
    void readPieces_areEncodedAsTheWholeTextIs() throws IOException {
        Path model = Path.of(System.getProperty("gatun.root"), "models/src/test/resources/text/bytelevel");
        String text = TEXT.repeat(20);
        Path file = text("a.txt", text);
        try (Tokenizer tokenizer = Tokenizer.open(model)) {
            List<Integer> ids = new ArrayList<>();
            TextCorpus.readPieces(file, 100, piece -> {
                for (int id : tokenizer.encode(piece, SpecialTokens.OMIT)) {
                    ids.add(id);
                }
            });
            assertArrayEquals(tokenizer.encode(text, SpecialTokens.OMIT),
                    ids.stream().mapToInt(Integer::intValue).toArray());
        }
    }

    @Test
    void windows_coverTheirPart() throws IOException {
        String digits = "0123456789".repeat(10);
        TextCorpus corpus = TextCorpus.open(text("a.txt", digits));
        try (Tokenizer tokenizer = characters(corpus);
                TokenFile file = TokenFile.open(folder.resolve("a.tokens"), corpus, tokenizer, -1)) {
            TokenWindows train = file.trainWindows(7);
            assertEquals(90, train.size());
            assertEquals(12, train.count()); // 12 * 7 + 1 ids
            int[] batch = train.batch(new int[] {0, 11});
            assertArrayEquals(new int[] {0, 1, 2, 3, 4, 5, 6, 7, 7, 8, 9, 0, 1, 2, 3, 4}, batch);
            TokenWindows heldOut = file.heldOutWindows(9);
            assertEquals(1, heldOut.count());
            assertArrayEquals(new int[] {0, 1, 2, 3, 4, 5, 6, 7, 8, 9}, heldOut.batch(new int[] {0}));
            assertThrows(IndexOutOfBoundsException.class, () -> heldOut.batch(new int[] {1}));
            String message = assertThrows(GatunException.class, () -> file.heldOutWindows(10)).getMessage();
            assertTrue(message.contains("do not hold one window of 10 + 1"), message);
        }
    }

    /// Every offset comes, none beyond the part, and a window depends on seed and number alone.
    @Test
    void windows_atRandomReachEveryOffset() throws IOException {
        TextCorpus corpus = TextCorpus.open(text("a.txt", "abcdefghijklmnopqrst"));
        try (Tokenizer tokenizer = characters(corpus);
                TokenFile file = TokenFile.open(folder.resolve("a.tokens"), corpus, tokenizer, -1)) {
            TokenWindows train = file.trainWindows(4); // 18 ids, offsets 0 to 13
            int[] seen = new int[18];
            for (int i = 0; i < 100; i++) {
                int[] batch = train.randomBatch(3, i, 2);
                seen[batch[0]]++;
                seen[batch[5]]++;
                assertEquals(batch[0] + 4, batch[4]);
                int[] alone = new int[5];
                train.random(3, 2 * i + 1, alone, 0);
                assertEquals(batch[5], alone[0]);
            }
            for (int offset = 0; offset < seen.length; offset++) {
                assertEquals(offset <= 13, seen[offset] > 0, "offset " + offset);
            }
        }
    }

    @Test
    void corpus_saysWhatIsWrong() throws IOException {
        String missing = assertThrows(GatunException.class, () -> TextCorpus.open(folder.resolve("none")))
                .getMessage();
        assertTrue(missing.contains("none: no such file or folder"), missing);
        String empty = assertThrows(GatunException.class, () -> TextCorpus.open(folder)).getMessage();
        assertTrue(empty.contains("no .txt files"), empty);
        Path latin = folder.resolve("latin.txt");
        Files.write(latin, new byte[] {'a', (byte) 0xe9, 'b'});
        String encoding = assertThrows(GatunException.class, () -> TextCorpus.open(latin).characters())
                .getMessage();
        assertTrue(encoding.contains("latin.txt: not UTF-8 text"), encoding);
        Path nothing = text("empty.txt", "");
        try (Tokenizer tokenizer = bytes()) {
            String none = assertThrows(GatunException.class, () -> TokenFile.open(folder.resolve("x.tokens"),
                    TextCorpus.open(nothing), tokenizer, -1)).getMessage();
            assertTrue(none.contains("gives no tokens"), none);
            assertFalse(Files.exists(folder.resolve("x.tokens")));
        }
    }

    @Test
    void open_tinyShakespeare() {
        Path input = Path.of(System.getProperty("gatun.assets"), "tinyshakespeare", "input.txt");
        assumeTrue(Files.exists(input), "no " + input);
        TextCorpus corpus = TextCorpus.open(input);
        try (Tokenizer tokenizer = characters(corpus);
                TokenFile file = TokenFile.open(folder.resolve("a.tokens"), corpus, tokenizer, -1)) {
            assertEquals(65, file.vocabSize());
            assertEquals(1_115_394, file.size());
            assertEquals(1_003_855, file.trainWindows(256).size());
            int[] batch = file.trainWindows(12).batch(new int[] {0});
            assertEquals("First Citizen", tokenizer.decode(batch));
        }
    }
}
