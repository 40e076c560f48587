package io.gatun.train;

import io.gatun.io.IoReason;
import io.gatun.runtime.GatunException;
import java.io.IOException;
import java.nio.charset.CharacterCodingException;
import java.nio.file.Files;
import java.nio.file.Path;
import org.jspecify.annotations.Nullable;

/// What to train and how, from one JSON file. Fields have the names that Hugging Face's Trainer, diffusers' scripts and
/// PEFT give them; `docs/training.md` lists them. A field that does not exist is an error.
///
/// ```json
/// {
///   "task": "language_model",
///   "model": {"model_type": "gpt2", "n_embd": 256, "n_layer": 6, "n_head": 8, "n_positions": 256},
///   "tokenizer": "characters",
///   "seed": 1, "max_steps": 5000, "train_batch_size": 32,
///   "optimizer": {"name": "adamw", "learning_rate": 1e-3, "betas": [0.9, 0.95], "weight_decay": 0.1},
///   "lr_scheduler": {"name": "cosine", "warmup_steps": 100, "min_lr": 1e-4},
///   "max_grad_norm": 1.0
/// }
/// ```
public sealed interface Recipe {
    /// The recipe as it was written.
    RecipeText text();

    TrainingSettings settings();

    /// Equal for recipes that say the same.
    default String hash() {
        return text().hash();
    }

    /// @throws GatunException when the file cannot be read or says something that does not exist
    static Recipe read(Path file) {
        if (!Files.isRegularFile(file)) {
            throw GatunException.invalid("%s: no such recipe; expected a JSON file", file);
        }
        try {
            return RecipeReader.read(file, Files.readString(file));
        } catch (CharacterCodingException e) {
            throw new GatunException(GatunException.Status.INVALID_ARGUMENT, file + ": not UTF-8 text", e);
        } catch (IOException e) {
            throw new GatunException(GatunException.Status.INVALID_ARGUMENT, file + ": cannot be read: "
                    + IoReason.of(e), e);
        }
    }

    /// As [#read], of text that is no file.
    ///
    /// @param file what messages call it; directories are named from its folder
    static Recipe parse(Path file, String json) {
        return RecipeReader.read(file, json);
    }

    /// Where the vocabulary comes from.
    sealed interface Vocabulary {
        /// `characters`: those of the text.
        record Characters() implements Vocabulary {}

        /// `bytes`: of UTF-8.
        record Bytes() implements Vocabulary {}

        /// A folder with a tokenizer.json.
        record Directory(Path path) implements Vocabulary {}
    }

    /// `language_model`: next-token cross-entropy.
    ///
    /// @param model      a config, in which `vocab_size` may be left out, or a directory
    /// @param vocabulary of the text
    /// @param blockSize  T, ids of a window; 0: the context of the model
    /// @param lora       adapters that are trained instead of the weights
    /// @param labelSmoothing share of the target's probability that goes to all ids
    record LanguageModel(RecipeText text, TrainingSettings settings, ModelSource model, Vocabulary vocabulary,
            int blockSize, @Nullable LoraSettings lora, double labelSmoothing) implements Recipe {}

    /// What a denoiser is trained to give.
    enum PredictionType {
        EPSILON, V_PREDICTION, SAMPLE
    }

    /// `diffusion`: the mean squared error of what the network predicts. Ho, Jain and Abbeel 2020, arXiv 2006.11239;
    /// EDM: Karras et al. 2022, arXiv 2206.00364.
    ///
    /// @param scheduler        scheduler_config.json of the noise
    /// @param snrGamma         gamma of min-SNR weights, 0: all steps count alike. Hang et al. 2023, arXiv 2303.09556
    /// @param pMean            EDM: mean of the logarithm of sigma; 0 for the others
    /// @param pStd             EDM: its deviation; 0 for the others
    /// @param classDropoutProb share of examples without their class, so that guidance has something to go by
    /// @param numInferenceSteps of the samples
    /// @param guidanceScale    of the samples; 1: none
    record Diffusion(RecipeText text, TrainingSettings settings, ModelSource model, ModelSource.Config scheduler,
            PredictionType predictionType, double snrGamma, double pMean, double pStd, double classDropoutProb,
            int numInferenceSteps, double guidanceScale) implements Recipe {}

    /// How an autoencoder's picture is compared with the original.
    enum Reconstruction {
        /// Binary cross-entropy of values from 0 to 1: a Bernoulli likelihood.
        BCE,
        /// Squared error: a Gaussian likelihood.
        MSE
    }

    /// `vae`: the evidence lower bound. Kingma and Welling 2013, arXiv 1312.6114; beta: Higgins et al. 2017.
    ///
    /// @param beta weight of the divergence from the prior
    /// @param exportEncoder whether model directories hold it too, so that training can go on from them
    record Vae(RecipeText text, TrainingSettings settings, ModelSource model, Reconstruction reconstruction,
            double beta, boolean exportEncoder) implements Recipe {}

    /// `vq_vae`. van den Oord et al. 2017, arXiv 1711.00937.
    ///
    /// @param commitmentCost weight of the encoder's distance to its codes
    record VqVae(RecipeText text, TrainingSettings settings, ModelSource model, Reconstruction reconstruction,
            double commitmentCost) implements Recipe {}

    /// The game of a GAN.
    enum GanLoss {
        /// Goodfellow et al. 2014, arXiv 1406.2661, with the generator's loss that does not saturate.
        BCE,
        /// Mao et al. 2016, arXiv 1611.04076.
        LSGAN,
        /// Arjovsky, Chintala and Bottou 2017, arXiv 1701.07875.
        WGAN,
        /// Gulrajani et al. 2017, arXiv 1704.00028.
        WGAN_GP
    }

    /// `gan`.
    ///
    /// @param model         of the generator
    /// @param discriminator its config; null: the mirror image of the generator
    /// @param discriminatorOptimizer of the discriminator
    /// @param nCritic       updates of the discriminator for one of the generator
    /// @param clipValue     WGAN: its weights are cut to +- this; 0 for the others
    /// @param lambdaGp      WGAN-GP: weight of the gradient penalty; 0 for the others
    /// @param exportDiscriminator whether model directories hold it too, so that training can go on from them
    record Gan(RecipeText text, TrainingSettings settings, ModelSource model,
            ModelSource.@Nullable Config discriminator, TrainingSettings.Optimizer discriminatorOptimizer,
            GanLoss loss, int nCritic, double clipValue, double lambdaGp, boolean exportDiscriminator)
            implements Recipe {}

    /// `classifier`: cross-entropy of the classes of pictures.
    ///
    /// @param labelSmoothing share of the target's probability that goes to all classes
    record Classifier(RecipeText text, TrainingSettings settings, ModelSource model, double labelSmoothing)
            implements Recipe {}
}
