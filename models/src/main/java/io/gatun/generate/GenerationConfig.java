package io.gatun.generate;

import io.gatun.runtime.GatunException;
import java.time.Duration;
import java.util.List;
import org.jspecify.annotations.Nullable;

/// How to generate. Names and meanings are those of Hugging Face transformers; immutable, built by [#builder()].
///
/// @param maxNewTokens      output tokens at most; also bounded by the model's context
/// @param minNewTokens      the end token is not chosen before
/// @param temperature       0: greedy; else logits are divided by it
/// @param topK              0: off; else keeps the k most probable tokens
/// @param topP              1: off; else keeps the fewest tokens whose probability reaches p (Holtzman et al. 2019)
/// @param minP              0: off; else keeps tokens with at least this share of the largest probability
/// @param typicalP          1: off; else locally typical sampling (Meister et al. 2022)
/// @param repetitionPenalty 1: off; divides positive and multiplies negative logits of ids seen so far, prompt included
/// @param presencePenalty   subtracted once from each generated id's logit (OpenAI)
/// @param frequencyPenalty  subtracted per occurrence of a generated id (OpenAI)
/// @param noRepeatNgramSize 0: off; else no n-gram of this size occurs twice
/// @param badWords          id sequences that must not be generated
/// @param forcedEos         id that is forced as the last token; -1: none
/// @param seed              of the random numbers; the same seed gives the same ids, alone or in a batch
/// @param numBeams          1: no beam search
/// @param lengthPenalty     beam search: scores are divided by length^penalty
/// @param earlyStopping     beam search: when to stop
/// @param numReturnSequences beam search: how many of the best beams to return
/// @param stopStrings       text that ends the generation; it is not part of the output
/// @param eosIds            end tokens; null: the model's own
/// @param ignoreEos         end tokens do not end the generation
/// @param logprobs          -1: off; else log-probabilities of the chosen and of so many best tokens are returned
/// @param adapter           LoRA adapter of the model that acts ([LanguageModel.Options#withAdapters]); null: none
/// @param deadline          time from the call after which the generation ends with what it has; null: none
public record GenerationConfig(int maxNewTokens, int minNewTokens, float temperature, int topK, float topP, float minP,
        float typicalP, float repetitionPenalty, float presencePenalty, float frequencyPenalty, int noRepeatNgramSize,
        List<int[]> badWords, int forcedEos, long seed, int numBeams, float lengthPenalty, EarlyStopping earlyStopping,
        int numReturnSequences, List<String> stopStrings, @Nullable List<Integer> eosIds, boolean ignoreEos,
        int logprobs, @Nullable String adapter, @Nullable Duration deadline) {

    private static final float MIN_TEMPERATURE = 1e-4f;
    private static final Duration MAX_DEADLINE = Duration.ofDays(36_500);

    /// When beam search has enough.
    public enum EarlyStopping {
        /// As soon as there are as many finished candidates as beams (`true`).
        FIRST,
        /// When no open beam's present score, at its present length, beats the worst candidate (`false`).
        HEURISTIC,
        /// When no open beam can ever beat the worst candidate (`"never"`).
        NEVER
    }

    /// @throws GatunException that names the setting that is out of range
    public GenerationConfig {
        badWords = List.copyOf(badWords);
        stopStrings = List.copyOf(stopStrings);
        eosIds = eosIds == null ? null : List.copyOf(eosIds);
        require(maxNewTokens >= 1, "max-new-tokens", maxNewTokens, "at least 1");
        require(minNewTokens >= 0, "min-new-tokens", minNewTokens, "at least 0");
        require(temperature == 0 || temperature >= MIN_TEMPERATURE && temperature < Float.POSITIVE_INFINITY,
                "temperature",
                temperature, "0 (greedy), or a number from " + MIN_TEMPERATURE);
        require(topK >= 0, "top-k", topK, "0 (off) or more");
        require(topP > 0 && topP <= 1, "top-p", topP, "more than 0, at most 1");
        require(minP >= 0 && minP <= 1, "min-p", minP, "0 to 1");
        require(typicalP > 0 && typicalP <= 1, "typical-p", typicalP, "more than 0, at most 1");
        require(repetitionPenalty > 0 && repetitionPenalty < Float.POSITIVE_INFINITY, "repetition-penalty",
                repetitionPenalty, "more than 0");
        require(Float.isFinite(presencePenalty), "presence-penalty", presencePenalty, "a finite number");
        require(Float.isFinite(frequencyPenalty), "frequency-penalty", frequencyPenalty, "a finite number");
        require(noRepeatNgramSize >= 0, "no-repeat-ngram-size", noRepeatNgramSize, "0 (off) or more");
        require(numBeams >= 1, "beams", numBeams, "at least 1");
        require(numReturnSequences >= 1 && numReturnSequences <= numBeams, "num-return-sequences", numReturnSequences,
                "1 to the number of beams");
        require(Float.isFinite(lengthPenalty), "length-penalty", lengthPenalty, "a finite number");
        require(forcedEos >= -1, "forced-eos", forcedEos, "an id, or -1 (none)");
        require(deadline == null || !deadline.isNegative() && deadline.compareTo(MAX_DEADLINE) <= 0, "deadline",
                String.valueOf(deadline), "0 to 100 years");
        require(numBeams == 1 || stopStrings.isEmpty(), "stop", stopStrings, "nothing with beam search");
        require(numBeams == 1 || logprobs < 0, "logprobs", logprobs, "-1 (off) with beam search");
        require(logprobs >= -1, "logprobs", logprobs, "-1 (off) or more");
        require(numBeams == 1 || temperature == 0, "temperature", temperature, "0 with beam search");
        require(stopStrings.stream().noneMatch(String::isEmpty), "stop", "\"\"", "a text that is not empty");
        for (int[] word : badWords) {
            require(word.length > 0, "bad-words", "[]", "at least one id each");
        }
    }

    private static void require(boolean condition, String name, Object found, String expected) {
        if (!condition) {
            throw GatunException.invalid("%s is %s, expected %s", name, found, expected);
        }
    }

    public boolean isGreedy() {
        return temperature == 0;
    }

    /// Greedy, 128 tokens.
    public static GenerationConfig greedy() {
        return builder().build();
    }

    public static Builder builder() {
        return new Builder();
    }

    /// Collects settings; everything is off and greedy at first.
    public static final class Builder {
        private int maxNewTokens = 128;
        private int minNewTokens;
        private float temperature;
        private int topK;
        private float topP = 1;
        private float minP;
        private float typicalP = 1;
        private float repetitionPenalty = 1;
        private float presencePenalty;
        private float frequencyPenalty;
        private int noRepeatNgramSize;
        private List<int[]> badWords = List.of();
        private int forcedEos = -1;
        private long seed;
        private int numBeams = 1;
        private float lengthPenalty = 1;
        private EarlyStopping earlyStopping = EarlyStopping.HEURISTIC;
        private int numReturnSequences = 1;
        private List<String> stopStrings = List.of();
        private @Nullable List<Integer> eosIds;
        private boolean ignoreEos;
        private int logprobs = -1;
        private @Nullable String adapter;
        private @Nullable Duration deadline;

        private Builder() {}

        public Builder maxNewTokens(int value) {
            maxNewTokens = value;
            return this;
        }

        public Builder minNewTokens(int value) {
            minNewTokens = value;
            return this;
        }

        public Builder temperature(float value) {
            temperature = value;
            return this;
        }

        public Builder topK(int value) {
            topK = value;
            return this;
        }

        public Builder topP(float value) {
            topP = value;
            return this;
        }

        public Builder minP(float value) {
            minP = value;
            return this;
        }

        public Builder typicalP(float value) {
            typicalP = value;
            return this;
        }

        public Builder repetitionPenalty(float value) {
            repetitionPenalty = value;
            return this;
        }

        public Builder presencePenalty(float value) {
            presencePenalty = value;
            return this;
        }

        public Builder frequencyPenalty(float value) {
            frequencyPenalty = value;
            return this;
        }

        public Builder noRepeatNgramSize(int value) {
            noRepeatNgramSize = value;
            return this;
        }

        public Builder badWords(List<int[]> value) {
            badWords = value;
            return this;
        }

        public Builder forcedEos(int value) {
            forcedEos = value;
            return this;
        }

        public Builder seed(long value) {
            seed = value;
            return this;
        }

        public Builder numBeams(int value) {
            numBeams = value;
            return this;
        }

        public Builder lengthPenalty(float value) {
            lengthPenalty = value;
            return this;
        }

        public Builder earlyStopping(EarlyStopping value) {
            earlyStopping = value;
            return this;
        }

        public Builder numReturnSequences(int value) {
            numReturnSequences = value;
            return this;
        }

        public Builder stopStrings(String... value) {
            stopStrings = List.of(value);
            return this;
        }

        public Builder eosIds(List<Integer> value) {
            eosIds = value;
            return this;
        }

        public Builder ignoreEos(boolean value) {
            ignoreEos = value;
            return this;
        }

        public Builder logprobs(int value) {
            logprobs = value;
            return this;
        }

        /// Of those that the model was loaded with.
        public Builder adapter(@Nullable String value) {
            adapter = value;
            return this;
        }

        public Builder deadline(Duration value) {
            deadline = value;
            return this;
        }

        /// @throws GatunException that names the setting that is out of range
        public GenerationConfig build() {
            return new GenerationConfig(maxNewTokens, minNewTokens, temperature, topK, topP, minP, typicalP,
                    repetitionPenalty, presencePenalty, frequencyPenalty, noRepeatNgramSize, badWords, forcedEos, seed,
                    numBeams, lengthPenalty, earlyStopping, numReturnSequences, stopStrings, eosIds, ignoreEos,
                    logprobs, adapter, deadline);
        }
    }
}
