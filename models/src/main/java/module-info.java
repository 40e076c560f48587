/// Language and image models from Hugging Face directories, generation, sampling, and the command line.
@org.jspecify.annotations.NullMarked
module io.gatun.models {
    requires static org.jspecify;
    requires transitive io.gatun.runtime;
    requires ai.djl.tokenizers;
    requires com.fasterxml.jackson.core;
    requires com.fasterxml.jackson.databind;
    requires info.picocli;
    requires transitive java.desktop;
    requires jdk.jfr;
    requires me.tongfei.progressbar;
    requires org.knowm.xchart;

    exports io.gatun.diffusion;
    exports io.gatun.evaluate;
    exports io.gatun.generate;
    exports io.gatun.models;
    exports io.gatun.models.lora;
    exports io.gatun.text;
    exports io.gatun.train;
    exports io.gatun.train.data;

    opens io.gatun.cli to info.picocli;

    uses io.gatun.cli.CliCommand;
    uses io.gatun.models.DemoModelSource;
}
