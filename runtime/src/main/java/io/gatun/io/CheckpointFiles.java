package io.gatun.io;

import com.fasterxml.jackson.core.JsonParseException;
import com.fasterxml.jackson.core.JsonParser;
import com.fasterxml.jackson.core.JsonToken;
import io.gatun.runtime.GatunException;
import java.io.IOException;
import java.nio.file.DirectoryStream;
import java.nio.file.Files;
import java.nio.file.LinkOption;
import java.nio.file.Path;
import java.util.ArrayList;
import java.util.HashMap;
import java.util.LinkedHashMap;
import java.util.List;
import java.util.Locale;
import java.util.Map;
import java.util.TreeSet;
import org.jspecify.annotations.Nullable;

/// Which files of a directory make up a checkpoint: one `<base>.safetensors`, or the shards that an index names. When
/// there are none, says what is there instead and how to convert it.
///
/// @param single    the only file, or null
/// @param index     the file that `weightMap` comes from, or null
/// @param weightMap tensor name to the name of its shard; empty with a single file
record CheckpointFiles(@Nullable Path single, @Nullable Path index, Map<String, String> weightMap) {
    static final String CONVERT_PICKLE = "Gatun does not open pickle files, because opening one can run code. Convert"
            + " it to safetensors with Python: safetensors.torch.save_model(model, 'model.safetensors'), or"
            + " model.save_pretrained(folder) of transformers or diffusers";
    static final String CONVERT_GGUF = "Gatun does not open GGUF. Use the original checkpoint, or convert to"
            + " safetensors with Python: AutoModelForCausalLM.from_pretrained(folder, gguf_file=name)"
            + ".save_pretrained(folder)";

    private static final String SUFFIX = ".safetensors";
    private static final int MAX_ENTRIES_LOOKED_AT = 10_000;

    static CheckpointFiles locate(Path directory, String baseName) {
        if (!Files.isDirectory(directory)) {
            throw GatunException.invalid("%s: %s; expected a folder with %s", directory,
                    Files.exists(directory) ? "not a folder" : "no such folder", baseName + SUFFIX);
        }
        Path single = directory.resolve(baseName + SUFFIX);
        if (Files.exists(single, LinkOption.NOFOLLOW_LINKS)) { // a broken link is a broken download, not another layout
            return new CheckpointFiles(single, null, Map.of());
        }
        for (String name : indexNames(baseName)) {
            Path index = directory.resolve(name);
            if (Files.exists(index)) {
                return new CheckpointFiles(null, index, readIndex(index));
            }
        }
        throw nothingToOpen(directory, baseName);
    }

    /// A variant sits before the suffix in the name of a file (`model.fp16.safetensors`), but most libraries put it at
    /// the end of the name of an index (`model.safetensors.index.fp16.json`).
    private static List<String> indexNames(String baseName) {
        List<String> names = new ArrayList<>(List.of(baseName + SUFFIX + ".index.json"));
        int dot = baseName.lastIndexOf('.');
        if (dot > 0) {
            names.add(baseName.substring(0, dot) + SUFFIX + ".index" + baseName.substring(dot) + ".json");
        }
        return names;
    }

    private static Map<String, String> readIndex(Path index) {
        byte[] text;
        try {
            if (Files.size(index) > StrictJson.MAX_BYTES) {
                throw GatunException.invalid("%s: %,d bytes, expected an index of at most %,d", index,
                        Files.size(index), StrictJson.MAX_BYTES);
            }
            text = Files.readAllBytes(index);
        } catch (IOException e) {
            throw SafetensorsFile.unreadable(index, e);
        }
        return StrictJson.parse(index, "the index", text, json -> {
            Map<String, String> weightMap = null;
            while (json.nextToken() != JsonToken.END_OBJECT) {
                boolean isWeightMap = json.currentName().equals("weight_map");
                json.nextToken();
                if (isWeightMap) {
                    weightMap = readWeightMap(json);
                } else {
                    json.skipChildren();
                }
            }
            if (weightMap == null) {
                throw new JsonParseException(json, "expected a weight_map");
            }
            return weightMap;
        });
    }

    private static Map<String, String> readWeightMap(JsonParser json) throws IOException {
        StrictJson.expect(json, JsonToken.START_OBJECT, "weight_map to be an object of file names");
        Map<String, String> weightMap = new LinkedHashMap<>();
        Map<String, String> shards = new HashMap<>();
        while (json.nextToken() != JsonToken.END_OBJECT) {
            String name = StrictJson.name(json);
            json.nextToken();
            String shard = StrictJson.string(json, "weight_map to hold file names");
            if (weightMap.size() == SafetensorsHeader.MAX_TENSORS) {
                throw new JsonParseException(json, "more than " + SafetensorsHeader.MAX_TENSORS + " tensors");
            }
            if (!shards.containsKey(shard) && !isPlainFileName(shard)) {
                throw new JsonParseException(json, "tensor " + TensorInfo.quote(name) + " lies in "
                        + TensorInfo.quote(shard) + ", expected the plain name of a .safetensors file in this folder");
            }
            weightMap.put(name, shards.computeIfAbsent(shard, s -> s)); // one string per shard, not per tensor
        }
        return weightMap;
    }

    /// The only strings from a file that are ever used to open another: they cannot leave the folder.
    private static boolean isPlainFileName(String name) {
        return name.endsWith(SUFFIX)
                && name.chars().allMatch(c -> c >= ' ' && c <= '~' && c != '/' && c != '\\' && c != ':');
    }

    private static GatunException nothingToOpen(Path directory, String baseName) {
        TreeSet<String> pickles = new TreeSet<>();
        TreeSet<String> ggufs = new TreeSet<>();
        TreeSet<String> others = new TreeSet<>();
        try (DirectoryStream<Path> entries = Files.newDirectoryStream(directory)) {
            int looked = 0;
            for (Path entry : entries) {
                String name = entry.getFileName().toString();
                String lower = name.toLowerCase(Locale.ROOT);
                if (lower.endsWith(".bin") || lower.endsWith(".pt") || lower.endsWith(".pth")
                        || lower.endsWith(".ckpt")) {
                    pickles.add(name);
                } else if (lower.endsWith(".gguf")) {
                    ggufs.add(name);
                } else if (lower.contains(SUFFIX)) {
                    others.add(name);
                }
                if (++looked == MAX_ENTRIES_LOOKED_AT) {
                    break;
                }
            }
        } catch (IOException e) {
            throw SafetensorsFile.unreadable(directory, e);
        }
        String problem = !others.isEmpty() ? "there is " + first(others) + ", which goes by another name: pass that"
                + " base name, or rename it"
                : !pickles.isEmpty() ? "there is only " + first(pickles) + ". " + CONVERT_PICKLE
                : !ggufs.isEmpty() ? "there is only " + first(ggufs) + ". " + CONVERT_GGUF
                : "there is no checkpoint";
        return GatunException.invalid("%s: expected %s, or its index and shards; %s", directory, baseName + SUFFIX,
                problem);
    }

    private static String first(TreeSet<String> names) {
        String more = names.size() == 1 ? "" : " and " + (names.size() - 1) + " more";
        return TensorInfo.quote(names.first()) + more;
    }
}
