package io.gatun.train;

import com.fasterxml.jackson.databind.ObjectMapper;
import com.fasterxml.jackson.databind.node.ObjectNode;
import io.gatun.models.ConfigFile;
import io.gatun.train.data.BatchOrder;
import java.nio.file.Path;
import java.util.Map;
import java.util.TreeMap;

/// Where a run is, but for its tensors: what `training_state.json` of a checkpoint holds.
///
/// @param step     updates that were made
/// @param position of the batch that comes next
/// @param seed     of the run; with `step` it gives all random numbers that follow
/// @param metrics  what was last measured
public record TrainingState(int step, BatchOrder.Position position, long seed, Map<String, Double> metrics) {
    static final String FILE = "training_state.json";
    private static final int FORMAT = 1;
    private static final long MAX_EXACT = 1L << 53; // beyond it, a JSON reader may round

    public TrainingState {
        metrics = Map.copyOf(metrics);
    }

    String json(String recipeHash) {
        ObjectNode json = new ObjectMapper().createObjectNode();
        json.put("format", FORMAT).put("recipe_hash", recipeHash).put("step", step).put("epoch", position.epoch())
                .put("batch", position.batch()).put("seed", seed);
        ObjectNode figures = json.putObject("metrics");
        new TreeMap<>(metrics).forEach((name, value) -> {
            if (Double.isFinite(value)) {
                figures.put(name, value);
            }
        });
        return json.toPrettyString() + "\n";
    }

    /// @throws io.gatun.runtime.GatunException when the file is damaged or of another recipe
    static TrainingState read(Path file, String recipeHash) {
        ConfigFile json = ConfigFile.read(file);
        json.requireInt("format", FORMAT, FORMAT);
        if (!json.requireString("recipe_hash").equals(recipeHash)) {
            throw json.wrong("recipe_hash", recipeHash + ": it is a checkpoint of another recipe");
        }
        Map<String, Double> metrics = new TreeMap<>();
        ConfigFile figures = json.objectOrEmpty("metrics");
        figures.fields().forEach(name -> metrics.put(name, figures.requireNumber(name)));
        return new TrainingState(json.requireInt("step", 0, Integer.MAX_VALUE),
                new BatchOrder.Position(whole(json, "epoch"), whole(json, "batch")), whole(json, "seed"), metrics);
    }

    private static long whole(ConfigFile json, String field) {
        double value = json.requireNumber(field);
        if (value != Math.rint(value) || value < 0 || value >= MAX_EXACT) {
            throw json.wrong(field, "an integer from 0");
        }
        return (long) value;
    }
}
