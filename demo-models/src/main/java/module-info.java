/// Small models that the project trained itself, for commands without `--model` and for `DemoModels`.
@org.jspecify.annotations.NullMarked
module io.gatun.demomodels {
    requires static org.jspecify;
    requires io.gatun.models;

    provides io.gatun.models.DemoModelSource with io.gatun.demomodels.BundledModels;
}
