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
            default -> throw new UnsupportedOperationException(request.recipe().getClass().getSimpleName());
        };
    }
}
