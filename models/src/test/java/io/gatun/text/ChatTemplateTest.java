package io.gatun.text;

import static org.junit.jupiter.api.Assertions.assertEquals;
import static org.junit.jupiter.api.Assertions.assertThrows;
import static org.junit.jupiter.api.Assertions.assertTrue;

import io.gatun.runtime.GatunException;
import io.gatun.runtime.GatunException.Status;
import io.gatun.text.ChatTemplate.GenerationPrompt;
import io.gatun.text.ChatTemplate.Message;
import java.io.IOException;
import java.nio.file.Files;
import java.nio.file.Path;
import java.time.Clock;
import java.time.Instant;
import java.time.ZoneOffset;
import java.util.List;
import java.util.Map;
import java.util.stream.Collectors;
import org.junit.jupiter.api.Test;
import org.junit.jupiter.api.io.TempDir;

/// Renderings against Jinja2 3.1.6 in the environment of transformers; `expected.py` beside the templates wrote them.
class ChatTemplateTest {
    private static final Clock CLOCK = Clock.fixed(Instant.parse("2026-03-04T15:06:07Z"), ZoneOffset.UTC);
    private static final List<Message> MESSAGES = List.of(new Message("system", " Be nice. "),
            new Message("user", "Hi <b> {{ x }} 'q' \n"), new Message("assistant", "Yo"));

    @TempDir
    Path folder;

    private ChatTemplate template(String text) {
        try {
            Files.writeString(folder.resolve("chat_template.jinja"), text);
            Files.writeString(folder.resolve("tokenizer_config.json"),
                    "{\"bos_token\": \"<s>\", \"eos_token\": {\"content\": \"</s>\"}, \"model_max_length\": 1"
                            + "0".repeat(30) + "}");
        } catch (IOException e) {
            throw new IllegalStateException(e);
        }
        return ChatTemplate.find(folder, CLOCK).orElseThrow();
    }

    private String render(String text) {
        return template(text).render(MESSAGES, GenerationPrompt.ADD);
    }

    private GatunException failure(String text) {
        return assertThrows(GatunException.class, () -> render(text), text);
    }

    @Test
    void render_templatesOfModels() throws IOException {
        for (Map<?, ?> c : Tokenizers.objects(Tokenizers.json(Tokenizers.resource("chat/templates.json")))) {
            ChatTemplate template = template(Files.readString(Tokenizers.resource("chat/" + c.get("template"))));
            List<Message> messages = Tokenizers.objects(c.get("messages")).stream().map(
                    m -> new Message((String) m.get("role"), (String) m.get("content"))).toList();
            GenerationPrompt prompt = (Boolean) c.get("add_generation_prompt") ? GenerationPrompt.ADD
                    : GenerationPrompt.OMIT;
            Map<String, Object> variables = ((Map<?, ?>) c.get("variables")).entrySet().stream().collect(
                    Collectors.toMap(e -> (String) e.getKey(), Map.Entry::getValue));
            if (c.get("expected") == null) {
                assertThrows(GatunException.class, () -> template.render(messages, prompt, variables), c::toString);
            } else {
                assertEquals(c.get("expected"), template.render(messages, prompt, variables), c::toString);
            }
        }
    }

    @Test
    void render_language() {
        for (Map<?, ?> c : Tokenizers.objects(Tokenizers.json(Tokenizers.resource("chat/language.json")))) {
            String text = (String) c.get("template");
            if (c.get("expected") == null) {
                failure(text);
            } else {
                assertEquals(c.get("expected"), render(text), text);
            }
        }
    }

    @Test
    void render_refusedMessagesNameReasonFileAndLine() {
        GatunException e = failure("a\nb\n{{ raise_exception('roles must alternate') }}");
        assertEquals(Status.INVALID_ARGUMENT, e.status());
        assertTrue(e.getMessage().contains("roles must alternate") && e.getMessage().contains("line 3")
                && e.getMessage().contains("chat_template.jinja"), e.getMessage());
    }

    @Test
    void find_unsupportedConstructIsNamed() {
        for (String text : List.of("{% include 'x' %}", "{% extends 'x' %}", "{% for x in y recursive %}{% endfor %}",
                "{{ f(*x) }}", "{{ 'a'|nosuchfilter }}", "{{ 'a' is nosuchtest }}")) {
            assertEquals(Status.UNSUPPORTED, failure(text).status(), text);
        }
    }

    /// Templates of strangers end with an error, soon, whatever they try.
    @Test
    void render_hostileTemplates() {
        for (String text : List.of(
                "{% for a in range(99999) %}{% for b in range(99999) %}{% endfor %}{% endfor %}",
                "{% macro f() %}{{ f() }}{% endmacro %}{{ f() }}",
                "{% set ns = namespace(x='aaaaaaaa') %}{% for i in range(99) %}"
                        + "{% set ns.x = ns.x + ns.x %}{% endfor %}",
                "{% set ns = namespace(x='a') %}{% for i in range(99) %}{% set ns.x = ns.x ~ ns.x %}{% endfor %}",
                "{{ 'a' * 9999999999 }}", "{{ 'a'|indent(99999999)|replace('a', 'b' * 4000000)|replace('', 'cc') }}",
                "{% for i in range(99999) %}{{ 'aaaaaaaaaa' * 1000 }}{% endfor %}",
                "{% set ns = namespace(x=[], y=[]) %}{% for i in range(99999) %}{% set ns.x = [ns.x] %}"
                        + "{% set ns.y = [ns.y] %}{% endfor %}{{ ns.x == ns.y }}",
                "{% set ns = namespace(x=[1]) %}{% for i in range(99) %}{% set ns.x = ns.x + ns.x %}{% endfor %}",
                "{{ " + "(".repeat(5000) + "1" + ")".repeat(5000) + " }}", "{{ " + "-".repeat(50_000) + "1 }}",
                "{{ 1" + " + 1".repeat(50_000) + " }}", "{% if 1 %}".repeat(5000) + "{% endif %}".repeat(5000),
                "{% if 0 %}" + "{% elif 0 %}".repeat(5000) + "{% endif %}", "{{ 1 % 0 }}",
                "{{ 9223372036854775807 + 1 }}",
                "{{ -9223372036854775807 - 9 }}", "{{ 2 ** 64 }}", "{{ 99999999999999999999 }}", "{{ 'a'.cycle() }}")) {
            failure(text);
        }
    }

    @Test
    void render_manyAssignmentsOfLongText() {
        String text = "{% set ns = namespace(x='') %}{% for i in range(1000) %}{% set ns.x = ns.x + 'x' * 100 %}"
                + "{% endfor %}{{ ns.x|length }}";
        assertEquals("100000", render(text));
    }

    @Test
    void render_variablesOfOtherTypesAreRefused() {
        ChatTemplate template = template("{{ x }}");
        assertEquals("[1, 2.5, None]", template.render(MESSAGES, GenerationPrompt.OMIT,
                Map.of("x", java.util.Arrays.asList(1, 2.5f, null))));
        assertThrows(GatunException.class, () -> template.render(MESSAGES, GenerationPrompt.OMIT,
                Map.of("x", new StringBuilder("y"))));
    }

    @Test
    void render_date() {
        assertEquals("04 Mar 2026|Wednesday, 4 March 26 03:06:07 PM %", render(
                "{{ strftime_now('%d %b %Y') }}|{{ strftime_now('%A, %-d %B %y %I:%M:%S %p %%') }}"));
        assertEquals(Status.UNSUPPORTED, failure("{{ strftime_now('%Q') }}").status());
    }

    @Test
    void find_places() throws IOException {
        assertTrue(ChatTemplate.find(folder).isEmpty());
        Path config = folder.resolve("tokenizer_config.json");
        Files.writeString(config, "{}");
        assertTrue(ChatTemplate.find(folder).isEmpty());
        Files.writeString(folder.resolve("chat_template.json"), "{\"chat_template\": \"json\"}");
        assertEquals("json", found());
        Files.writeString(config, "{\"chat_template\": \"config\"}");
        assertEquals("config", found());
        Files.writeString(config, "{\"chat_template\": [{\"name\": \"tool_use\", \"template\": \"tools\"},"
                + " {\"name\": \"default\", \"template\": \"listed\"}]}");
        assertEquals("listed", found());
        Files.writeString(folder.resolve("chat_template.jinja"), "jinja\n");
        assertEquals("jinja", found());
    }

    private String found() {
        return ChatTemplate.find(folder).orElseThrow().render(MESSAGES, GenerationPrompt.OMIT);
    }

    @Test
    void find_damagedFiles() throws IOException {
        Path config = folder.resolve("tokenizer_config.json");
        for (String text : List.of("", "[]", "{", "{\"chat_template\": 1}", "{\"chat_template\": \"{{\"}",
                "{\"chat_template\": [{\"name\": \"a\", \"template\": \"\"},"
                        + " {\"name\": \"b\", \"template\": \"\"}]}")) {
            Files.writeString(config, text);
            GatunException e = assertThrows(GatunException.class, () -> ChatTemplate.find(folder), text);
            assertEquals(Status.INVALID_ARGUMENT, e.status());
            assertTrue(e.getMessage().contains("tokenizer_config.json"), e.getMessage());
        }
    }
}
