package io.gatun.ops;

import io.gatun.ops.cases.Fill;
import io.gatun.ops.cases.HostValues;
import io.gatun.ops.cases.ImageBackwardCases;
import io.gatun.ops.cases.OpCase;
import io.gatun.runtime.DType;
import org.junit.jupiter.api.Tag;
import org.junit.jupiter.api.Test;
import org.junit.jupiter.params.ParameterizedTest;
import org.junit.jupiter.params.provider.EnumSource;

@Tag("device")
class ImageBackwardTest {
    private static final int[] CHANNELS = {1, 3, 16, 33};
    private static final int REPEATS = 30;

    @ParameterizedTest
    @EnumSource(names = {"F32", "BF16", "F16"})
    void maxPool_oddSizes(DType dtype) {
        for (int c : CHANNELS) {
            OpCheck.check(ImageBackwardCases.maxPool(dtype, 2, 5, 7, c, 2, 2, 0));
            OpCheck.check(ImageBackwardCases.maxPool(dtype, 1, 6, 5, c, 3, 2, 1));
            OpCheck.check(ImageBackwardCases.maxPool(dtype, 1, 4, 3, c, 2, 1, 1));
        }
        OpCheck.check(ImageBackwardCases.maxPool(dtype, 1, 2, 3, 5, 4, 4, 0));
        OpCheck.check(ImageBackwardCases.maxPool(dtype, 0, 4, 3, 5, 2, 2, 0));
    }

    @ParameterizedTest
    @EnumSource(names = {"F32", "BF16", "F16"})
    void maxPoolBackward_oddSizes(DType dtype) {
        for (int c : CHANNELS) {
            OpCheck.check(ImageBackwardCases.maxPoolBackward(dtype, 2, 5, 7, c, 2, 2, 0));
            OpCheck.check(ImageBackwardCases.maxPoolBackward(dtype, 1, 6, 5, c, 3, 2, 1));
            OpCheck.check(ImageBackwardCases.maxPoolBackward(dtype, 1, 7, 4, c, 2, 3, 0));
        }
        OpCheck.check(ImageBackwardCases.maxPoolBackward(dtype, 1, 2, 3, 5, 4, 4, 0));
    }

    @ParameterizedTest
    @EnumSource(names = {"F32", "BF16", "F16"})
    void upsampleNearestBackward_oddSizes(DType dtype) {
        for (int c : CHANNELS) {
            OpCheck.check(ImageBackwardCases.upsampleNearestBackward(dtype, 2, 3, 5, c, 6, 10));
            OpCheck.check(ImageBackwardCases.upsampleNearestBackward(dtype, 1, 5, 7, c, 9, 13));
            OpCheck.check(ImageBackwardCases.upsampleNearestBackward(dtype, 1, 5, 4, c, 3, 1));
        }
        OpCheck.check(ImageBackwardCases.upsampleNearestBackward(dtype, 0, 3, 5, 3, 6, 10));
    }

    @ParameterizedTest
    @EnumSource(names = {"F32", "BF16", "F16"})
    void averagePoolBackward_oddSizes(DType dtype) {
        for (int c : CHANNELS) {
            OpCheck.check(ImageBackwardCases.averagePoolBackward(dtype, 2, 5, 7, c, 2));
            OpCheck.check(ImageBackwardCases.averagePoolBackward(dtype, 1, 7, 3, c, 3));
        }
        OpCheck.check(ImageBackwardCases.averagePoolBackward(dtype, 1, 3, 3, 5, 4));
    }

    @ParameterizedTest
    @EnumSource(names = {"F32", "BF16", "F16"})
    void gradients_nanAndInfinity(DType dtype) {
        Fill spoilt = Fill.normal(1).with(9, 1000, Double.NaN).with(14, 1000, Double.NEGATIVE_INFINITY);
        OpCheck.check(ImageBackwardCases.maxPool(dtype, 1, 4, 4, 3, 2, 2, 0).with("x", spoilt, "a NaN"));
        OpCheck.check(ImageBackwardCases.maxPoolBackward(dtype, 1, 4, 4, 3, 3, 1, 1).with("x", spoilt, "a NaN"));
        OpCheck.check(ImageBackwardCases.maxPoolBackward(dtype, 1, 4, 4, 3, 2, 2, 0).with("x",
                Fill.constant(Double.NEGATIVE_INFINITY), "all -inf"));
        OpCheck.check(ImageBackwardCases.upsampleNearestBackward(dtype, 1, 4, 4, 3, 8, 8).with("dy", spoilt, "a NaN"));
        OpCheck.check(ImageBackwardCases.averagePoolBackward(dtype, 1, 4, 4, 3, 2).with("dy", spoilt, "a NaN"));
    }

    @Test
    void maxPoolBackward_bitsRepeat() {
        OpCase opCase = ImageBackwardCases.maxPoolBackward(DType.F32, 2, 9, 9, 33, 3, 1, 1);
        HostValues in = opCase.values(1);
        HostValues first = OpCheck.run(opCase, in);
        for (int run = 1; run < REPEATS; run++) {
            OpCheck.assertSameBits(opCase + ", run " + run + ": ", opCase.operands().getFirst(), first,
                    OpCheck.run(opCase, in));
        }
    }

    @Test
    void imageGradients_badArguments() {
        OpCase max = ImageBackwardCases.maxPool(DType.BF16, 1, 5, 7, 3, 2, 2, 0);
        BadArguments.check(max);
        BadArguments.refuses(max, "y", DType.BF16, new int[] {1, 3, 3, 3}, "y");
        BadArguments.refuses(max, "x", DType.F32, new int[] {1, 5, 7, 3}, null);
        BadArguments.refuses(ImageBackwardCases.maxPool(DType.F32, 1, 5, 7, 3, 3, 2, 2), "y", DType.F32,
                new int[] {1, 4, 5, 3}, null);
        OpCase backward = ImageBackwardCases.maxPoolBackward(DType.F32, 1, 5, 7, 3, 2, 2, 0);
        BadArguments.check(backward);
        BadArguments.refuses(backward, "dx", DType.F32, new int[] {1, 5, 6, 3}, "dx");
        OpCase up = ImageBackwardCases.upsampleNearestBackward(DType.F32, 1, 3, 5, 3, 6, 10);
        BadArguments.check(up);
        BadArguments.refuses(up, "dx", DType.F32, new int[] {1, 3, 5, 4}, null);
        OpCase average = ImageBackwardCases.averagePoolBackward(DType.F32, 1, 5, 7, 3, 2);
        BadArguments.check(average);
        BadArguments.refuses(average, "dy", DType.F32, new int[] {1, 2, 4, 3}, "dy");
    }
}
