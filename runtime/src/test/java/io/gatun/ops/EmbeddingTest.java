package io.gatun.ops;

import io.gatun.ops.cases.EmbeddingCases;
import io.gatun.ops.cases.Fill;
import io.gatun.ops.cases.OpCase;
import io.gatun.runtime.DType;
import org.junit.jupiter.api.Tag;
import org.junit.jupiter.api.Test;
import org.junit.jupiter.params.ParameterizedTest;
import org.junit.jupiter.params.provider.EnumSource;

@Tag("device")
class EmbeddingTest {
    @ParameterizedTest
    @EnumSource(names = {"F32", "BF16", "F16"})
    void embedding_oddSizes(DType dtype) {
        for (int c : new int[] {1, 3, 31, 33, 127, 257, 1000}) {
            OpCheck.check(EmbeddingCases.embedding(dtype, DType.I32, 5, c, 17, 0));
            OpCheck.check(EmbeddingCases.embedding(dtype, DType.I64, 3, c, 17, 11));
        }
        OpCheck.check(EmbeddingCases.embedding(dtype, DType.I32, 0, 5, 17, 11));
        OpCheck.check(EmbeddingCases.embedding(dtype, DType.I32, 257, 257, 31, 33));
    }

    @ParameterizedTest
    @EnumSource(names = {"I32", "I64"})
    void embedding_idOutsideTheTable(DType ids) {
        OpCase opCase = EmbeddingCases.embedding(DType.F32, ids, 7, 33, 17, 11);
        OpCheck.check(opCase.with("ids", Fill.values(0, -1, 16, 17, 3, Integer.MAX_VALUE, Integer.MIN_VALUE), "bad"));
        OpCheck.check(opCase.with("positions", Fill.values(0, -1, 10, 11, 3, Integer.MAX_VALUE, Integer.MIN_VALUE),
                "bad positions"));
    }

    /// The low 32 bits of this id are a good id.
    @Test
    void embedding_idBeyond32Bits() {
        OpCheck.check(EmbeddingCases.embedding(DType.F32, DType.I64, 2, 5, 17, 0).with("ids",
                Fill.values(0x1p32 + 3, 3), "2^32 + 3"));
    }

    @Test
    void embedding_rowAlone() {
        OpCheck.rowAlone(EmbeddingCases.embedding(DType.BF16, DType.I32, 5, 33, 17, 11), "y", "ids", "positions");
    }

    @ParameterizedTest
    @EnumSource(names = {"F32", "BF16", "F16"})
    void embeddingBackward_oddSizes(DType dtype) {
        for (int c : new int[] {1, 3, 31, 33, 64, 127, 257}) {
            OpCheck.check(EmbeddingCases.embeddingBackward(dtype, DType.I32, 5, c, 17));
            OpCheck.check(EmbeddingCases.embeddingBackward(dtype, DType.I64, 37, c, 9));
        }
        OpCheck.check(EmbeddingCases.embeddingBackward(dtype, DType.I32, 0, 5, 17));
        OpCheck.check(EmbeddingCases.embeddingBackward(dtype, DType.I64, 1, 1000, 1));
        OpCheck.check(EmbeddingCases.embeddingBackward(dtype, DType.I32, 600, 40, 3));
        OpCheck.check(EmbeddingCases.embeddingBackward(dtype, DType.I32, 300, 5, 200));
    }

    /// In CUDA a warp adds up to 32 rows alone and a block sorts 256 tokens: both sides of every limit.
    @Test
    void embeddingBackward_oneIdForAll() {
        for (int n : new int[] {31, 32, 33, 34, 256, 257}) {
            OpCase opCase = EmbeddingCases.embeddingBackward(DType.F32, DType.I32, n, 5, 7);
            OpCheck.check(opCase.with("ids", Fill.constant(6), "all 6"));
            OpCheck.check(opCase.with("ids", Fill.constant(-1), "all -1"));
        }
    }

    @ParameterizedTest
    @EnumSource(names = {"I32", "I64"})
    void embeddingBackward_idOutsideTheTable(DType ids) {
        OpCase opCase = EmbeddingCases.embeddingBackward(DType.F32, ids, 9, 33, 17);
        OpCheck.check(opCase.with("ids", Fill.values(0, -1, 16, 17, 3, Integer.MAX_VALUE, Integer.MIN_VALUE), "bad"));
    }

    /// The low 32 bits of these ids are good ids.
    @Test
    void embeddingBackward_idBeyond32Bits() {
        OpCheck.check(EmbeddingCases.embeddingBackward(DType.F32, DType.I64, 3, 5, 17).with("ids",
                Fill.values(0x1p32 + 3, 3, -0x1p32 + 4), "2^32 + 3"));
    }

    /// NaN stays in the row of its id.
    @Test
    void embeddingBackward_specialValues() {
        OpCheck.check(EmbeddingCases.embeddingBackward(DType.F32, DType.I32, 37, 33, 50).with("dy",
                Fill.normal(1).with(40, 500, Double.NaN, Double.POSITIVE_INFINITY), "specials"));
    }

    @Test
    void embeddingBackward_sameBits() {
        OpCheck.thirtyRuns(EmbeddingCases.embeddingBackward(DType.F32, DType.I32, 300, 33, 5));
    }

    @Test
    void embeddingBackward_badArguments() {
        OpCase opCase = EmbeddingCases.embeddingBackward(DType.BF16, DType.I32, 3, 5, 17);
        BadArguments.check(opCase);
        BadArguments.refuses(opCase, "ids", DType.I32, new int[] {4}, "dy");
        BadArguments.refuses(opCase, "dtable", DType.F32, new int[] {17, 4}, "dy");
        BadArguments.refuses(opCase, "workspace", DType.F32, new int[] {64}, "workspace");
    }

    @Test
    void embedding_badArguments() {
        OpCase opCase = EmbeddingCases.embedding(DType.BF16, DType.I32, 3, 5, 17, 11);
        BadArguments.check(opCase);
        BadArguments.refuses(opCase, "ids", DType.I32, new int[] {4}, "ids");
        BadArguments.refuses(opCase, "table", DType.F32, new int[] {17, 5}, "table");
        BadArguments.refuses(opCase, "position_table", DType.BF16, new int[] {11, 6}, "position_table");
    }
}
