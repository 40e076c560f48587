package io.gatun.train;

/// The task of each kind of recipe.
public final class TrainingTasks {
    private TrainingTasks() {}

    /// Opens data and model for a recipe.
    ///
    /// @throws io.gatun.runtime.GatunException when they cannot be used
    public static TrainingTask open(TrainingTask.Request request) {
        return switch (request.recipe()) {
            case Recipe.LanguageModel recipe -> LanguageTask.open(request, recipe);
            case Recipe.Gan recipe -> GanTask.open(request, recipe);
            case Recipe.Classifier recipe -> ClassifierTask.open(request, recipe);
            case Recipe.Diffusion recipe -> DiffusionTask.open(request, recipe);
            case Recipe.Vae recipe -> VaeTask.open(request, recipe);
            case Recipe.VqVae recipe -> VqVaeTask.open(request, recipe);
        };
    }
}
