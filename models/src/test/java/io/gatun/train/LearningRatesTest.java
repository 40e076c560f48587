package io.gatun.train;

import static org.junit.jupiter.api.Assertions.assertEquals;
import static org.junit.jupiter.api.Assertions.assertThrows;

import io.gatun.models.GoldenCase;
import io.gatun.runtime.GatunException;
import io.gatun.train.LearningRates.Schedule;
import org.junit.jupiter.api.Test;

/// Are the rates those of transformers' schedules?
class LearningRatesTest {
    private static void check(Schedule schedule, int warmup, double min, double... expected) {
        float[] table = LearningRates.table(schedule, 1e-3, warmup, min, expected.length);
        for (int k = 0; k < expected.length; k++) {
            assertEquals(expected[k], table[k], 1e-6 * expected[k], schedule + " step " + k);
        }
    }

    /// As `get_constant_schedule` and `get_constant_schedule_with_warmup` of transformers 5.18 give.
    @Test
    void table_constant() {
        check(Schedule.CONSTANT, 0, 0, 1e-3, 1e-3, 1e-3);
        check(Schedule.CONSTANT, 3, 0, 0, 3.33333333e-4, 6.66666667e-4, 1e-3, 1e-3);
    }

    /// As `get_linear_schedule_with_warmup` gives, also where the warm-up is longer than the run.
    @Test
    void table_linear() {
        check(Schedule.LINEAR, 3, 0, 0, 3.33333333e-4, 6.66666667e-4, 1e-3, 8.57142857e-4, 7.14285714e-4,
                5.71428571e-4, 4.28571429e-4, 2.85714286e-4, 1.42857143e-4);
        check(Schedule.LINEAR, 12, 0, 0, 8.33333333e-5, 1.66666667e-4, 2.5e-4, 3.33333333e-4, 4.16666667e-4, 5e-4,
                5.83333333e-4, 6.66666667e-4, 7.5e-4);
    }

    /// As `get_cosine_schedule_with_warmup` and `get_cosine_with_min_lr_schedule_with_warmup` give.
    @Test
    void table_cosine() {
        check(Schedule.COSINE, 3, 0, 0, 3.33333333e-4, 6.66666667e-4, 1e-3, 9.50484434e-4, 8.11744901e-4,
                6.11260467e-4, 3.88739533e-4, 1.88255099e-4, 4.9515566e-5);
        check(Schedule.COSINE, 3, 1e-4, 0, 3.33333333e-4, 6.66666667e-4, 1e-3, 9.55435991e-4, 8.30570411e-4,
                6.5013442e-4, 4.4986558e-4, 2.69429589e-4, 1.44564009e-4);
    }

    /// The recorded training warms up one step ahead; after the warm-up it has transformers' rates.
    @Test
    void table_ofTheRecordedTraining() {
        float[] recorded = new GoldenCase("train/gpt2_adamw").floats("lr");
        float[] table = LearningRates.table(Schedule.COSINE, 3e-3, 5, 3e-4, recorded.length);
        for (int k = 0; k < recorded.length; k++) {
            assertEquals(recorded[k], table[k < 5 ? k + 1 : k], 1e-6f * recorded[k], "step " + k);
        }
    }

    @Test
    void table_refusesWhatIsNoSchedule() {
        assertThrows(GatunException.class, () -> LearningRates.table(Schedule.LINEAR, 1e-3, 0, 1e-4, 10));
        assertThrows(GatunException.class, () -> LearningRates.table(Schedule.COSINE, 1e-3, 0, 1e-2, 10));
        assertThrows(GatunException.class, () -> LearningRates.table(Schedule.COSINE, 1e-3, -1, 0, 10));
        assertThrows(GatunException.class, () -> LearningRates.table(Schedule.COSINE, 1e-3, 0, 0, 0));
    }
}
