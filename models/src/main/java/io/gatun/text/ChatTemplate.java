package io.gatun.text;

import io.gatun.io.IoReason;
import io.gatun.runtime.GatunException;
import io.gatun.runtime.GatunException.Status;
import io.gatun.text.JinjaNode.Statement;
import java.io.IOException;
import java.nio.file.Files;
import java.nio.file.Path;
import java.time.Clock;
import java.util.ArrayList;
import java.util.HashMap;
import java.util.LinkedHashMap;
import java.util.List;
import java.util.Map;
import java.util.Optional;
import org.jspecify.annotations.Nullable;

/// A model's chat template: the Jinja2 text that turns messages into the prompt the model was trained on, rendered as
/// transformers' `apply_chat_template` does (`trim_blocks`, `lstrip_blocks`, loop controls, `{% generation %}`,
/// `tojson`, `raise_exception`, `strftime_now`, the special tokens of `tokenizer_config.json` as variables).
///
/// The language is Jinja2 3.1 without inheritance, inclusion, recursive loops, `do`, argument unpacking and
/// `str.format`; integers have 64 bits. What is not supported is an error that names it, never another text. Templates
/// come from strangers: they reach nothing but their variables, and work, depth and output (4 M characters) are
/// limited. Immutable; any number of threads may render.
///
/// Encode the result with [Tokenizer.SpecialTokens#OMIT]: the template writes the special tokens itself.
public final class ChatTemplate {
    private static final List<String> SPECIAL_TOKENS = List.of("bos_token", "eos_token", "unk_token", "sep_token",
            "pad_token", "cls_token", "mask_token");
    private static final long MAX_BYTES = 1 << 24;

    /// Whether the beginning of the assistant's turn is added behind the messages.
    public enum GenerationPrompt { ADD, OMIT }

    /// One message: who speaks (`system`, `user`, `assistant`) and the text.
    public record Message(String role, String content) {}

    private final String origin;
    private final List<Statement> template;
    private final Map<String, @Nullable Object> specialTokens;
    private final Clock clock;

    private ChatTemplate(String origin, List<Statement> template, Map<String, @Nullable Object> specialTokens,
            Clock clock) {
        this.origin = origin;
        this.template = template;
        this.specialTokens = specialTokens;
        this.clock = clock;
    }

    /// The template of a model directory: `chat_template.jinja`, else `chat_template` in `tokenizer_config.json` (a
    /// text, or a list of named texts of which `default` counts), else `chat_template.json`. Empty when there is none.
    ///
    /// @throws GatunException `INVALID_ARGUMENT` for a damaged file or template, `UNSUPPORTED` for a construct that is
    ///         not supported
    public static Optional<ChatTemplate> find(Path modelDir) {
        return find(modelDir, Clock.systemDefaultZone());
    }

    static Optional<ChatTemplate> find(Path modelDir, Clock clock) {
        Path configFile = modelDir.resolve("tokenizer_config.json");
        Path jinjaFile = modelDir.resolve("chat_template.jinja");
        Path jsonFile = modelDir.resolve("chat_template.json");
        Map<?, ?> config = Files.exists(configFile) ? object(configFile) : Map.of();
        if (Files.exists(jinjaFile)) {
            return Optional.of(of(jinjaFile, read(jinjaFile), config, clock));
        }
        Object inConfig = config.get("chat_template");
        if (inConfig != null) {
            return Optional.of(of(configFile, text(configFile, inConfig), config, clock));
        }
        Object inJson = Files.exists(jsonFile) ? object(jsonFile).get("chat_template") : null;
        return inJson == null ? Optional.empty() : Optional.of(of(jsonFile, text(jsonFile, inJson), config, clock));
    }

    private static ChatTemplate of(Path file, String text, Map<?, ?> config, Clock clock) {
        Map<String, @Nullable Object> specialTokens = new HashMap<>();
        for (String name : SPECIAL_TOKENS) {
            Object token = config.get(name);
            if ((token instanceof Map<?, ?> added ? added.get("content") : token) instanceof String content) {
                specialTokens.put(name, content);
            }
        }
        try {
            return new ChatTemplate(file.toString(), JinjaParser.parse(text), specialTokens, clock);
        } catch (JinjaException e) {
            throw failure(file.toString(), e);
        } catch (StackOverflowError e) {
            throw tooDeep(file.toString(), e);
        }
    }

    /// The prompt for a conversation.
    ///
    /// @throws GatunException when the template refuses the messages (`raise_exception`) or cannot be rendered
    public String render(List<Message> messages, GenerationPrompt generationPrompt) {
        return render(messages, generationPrompt, Map.of());
    }

    /// The prompt for a conversation, with more variables for the template, such as `enable_thinking` or `tools`:
    /// strings, numbers, booleans, null, and lists and maps of these. They override the standard ones.
    public String render(List<Message> messages, GenerationPrompt generationPrompt, Map<String, ?> variables) {
        Map<String, @Nullable Object> all = new HashMap<>(specialTokens);
        // transformers always passes these two, so templates ask whether they are none, not whether they are defined.
        all.put("tools", null);
        all.put("documents", null);
        all.put("add_generation_prompt", generationPrompt == GenerationPrompt.ADD);
        List<@Nullable Object> list = new ArrayList<>();
        for (Message message : messages) {
            Map<String, @Nullable Object> map = new LinkedHashMap<>();
            map.put("role", message.role());
            map.put("content", message.content());
            list.add(map);
        }
        all.put("messages", list);
        variables.forEach((name, value) -> all.put(name, templateValue(name, value)));
        try {
            return new JinjaRenderer(new JinjaBuiltins(clock)).render(template, all);
        } catch (JinjaException e) {
            throw failure(origin, e);
        } catch (StackOverflowError e) {
            throw tooDeep(origin, e);
        }
    }

    private static @Nullable Object templateValue(String name, @Nullable Object value) {
        return switch (value) {
            case null -> null;
            case String _, Boolean _, Long _, Double _ -> value;
            case Integer i -> i.longValue();
            case Float f -> f.doubleValue();
            case List<?> list -> {
                List<@Nullable Object> copy = new ArrayList<>();
                list.forEach(item -> copy.add(templateValue(name, item)));
                yield copy;
            }
            case Map<?, ?> map -> {
                Map<@Nullable Object, @Nullable Object> copy = new LinkedHashMap<>();
                map.forEach((key, item) -> copy.put(templateValue(name, key), templateValue(name, item)));
                yield copy;
            }
            default -> throw GatunException.invalid("template variable %s holds a %s: expected strings, numbers,"
                    + " booleans, null, lists and maps", name, value.getClass().getName());
        };
    }

    /// The limits on nesting suit ordinary stacks, but a thread may have less, and a template can nest lists in lists
    /// again and again without being nested itself.
    private static GatunException tooDeep(String origin, StackOverflowError e) {
        return new GatunException(Status.INVALID_ARGUMENT, "chat template of " + origin
                + ": blocks, expressions or values are nested too deeply for this thread's stack", e);
    }

    private static GatunException failure(String origin, JinjaException e) {
        return new GatunException(e.status(), "chat template of " + origin
                + (e.line() > 0 ? ", line " + e.line() : "") + ": " + e.getMessage(), e);
    }

    private static String text(Path file, Object template) {
        if (template instanceof String text) {
            return text;
        }
        if (template instanceof List<?> named) {
            List<@Nullable Object> names = new ArrayList<>();
            for (Object entry : named) {
                if (entry instanceof Map<?, ?> map && map.get("template") instanceof String text) {
                    if ("default".equals(map.get("name")) || named.size() == 1) {
                        return text;
                    }
                    names.add(map.get("name"));
                }
            }
            throw GatunException.invalid("%s: chat_template has no template named default, only %s", file, names);
        }
        throw GatunException.invalid("%s: expected chat_template to be a string or a list of {name, template}", file);
    }

    private static Map<?, ?> object(Path file) {
        try {
            if (Json.read(read(file)) instanceof Map<?, ?> map) {
                return map;
            }
        } catch (IOException e) {
            throw new GatunException(Status.INVALID_ARGUMENT, file + ": not valid JSON: " + e.getMessage(), e);
        }
        throw GatunException.invalid("%s: expected a JSON object", file);
    }

    private static String read(Path file) {
        try {
            if (Files.size(file) > MAX_BYTES) {
                throw GatunException.invalid("%s: %d bytes, expected at most %d", file, Files.size(file), MAX_BYTES);
            }
            return Files.readString(file);
        } catch (IOException e) {
            throw new GatunException(Status.INVALID_ARGUMENT, file + ": cannot be read: " + IoReason.of(e), e);
        }
    }
}
