"""Writes the expected renderings beside the templates with Jinja2 3.1, in the environment of transformers."""
import json
import pathlib

import jinja2
import jinja2.ext
import jinja2.sandbox

HERE = pathlib.Path(__file__).parent


class Generation(jinja2.ext.Extension):
    tags = {"generation"}

    def parse(self, parser):
        line = next(parser.stream).lineno
        body = parser.parse_statements(["name:endgeneration"], drop_needle=True)
        return jinja2.nodes.CallBlock(self.call_method("_body"), [], [], body).set_lineno(line)

    def _body(self, caller):
        return caller()


def tojson(value, ensure_ascii=False, indent=None, separators=None, sort_keys=False):
    return json.dumps(value, ensure_ascii=ensure_ascii, indent=indent, separators=separators, sort_keys=sort_keys)


def raise_exception(message):
    raise jinja2.exceptions.TemplateError(message)


def environment():
    env = jinja2.sandbox.ImmutableSandboxedEnvironment(
        trim_blocks=True, lstrip_blocks=True, extensions=[Generation, jinja2.ext.loopcontrols])
    env.filters["tojson"] = tojson
    env.globals["raise_exception"] = raise_exception
    env.globals["strftime_now"] = lambda pattern: __import__("datetime").datetime(2026, 3, 4, 15, 6, 7).strftime(pattern)
    return env


def render(template, messages, prompt, variables):
    values = dict(tools=None, documents=None, bos_token="<s>", eos_token="</s>")
    values.update(messages=messages, add_generation_prompt=prompt, **variables)
    try:
        return environment().from_string(template).render(values)
    except Exception:  # Any failure is a failure to reproduce.
        return None


def message(role, content):
    return {"role": role, "content": content}


SYSTEM = message("system", " Be nice. ")
USER = message("user", "Hi <b> {{ x }} 'q' \n")
ASSISTANT = message("assistant", "Yo")
THINKING = message("assistant", "<think>\nhm\n</think>\n\n4.")
TOOLS = [{"type": "function", "function": {"name": "add", "parameters": {"a": {"type": "number", "text": "Ü <&>"}}}}]
CONVERSATIONS = [[USER], [SYSTEM, USER], [USER, ASSISTANT, message("user", " And 日本語 😀? ")],
                 [SYSTEM, USER, THINKING, message("user", "2+2"), THINKING], [USER, USER]]
VARIABLES = [{}, {"enable_thinking": False}, {"tools": TOOLS}, {"date_string": "1 Jan 2020"}]

cases = []
for path in sorted(HERE.glob("*.jinja")):
    for messages in CONVERSATIONS:
        for variables in VARIABLES:
            for prompt in (True, False):
                cases.append({"template": path.name, "messages": messages, "add_generation_prompt": prompt,
                              "variables": variables,
                              "expected": render(path.read_text(), messages, prompt, variables)})
(HERE / "templates.json").write_text(json.dumps(cases, indent=0))

cases = []
for line in (HERE / "language.txt").read_text().splitlines():
    template = line.replace("⏎", "\n")
    cases.append({"template": template, "expected": render(template, [SYSTEM, USER, ASSISTANT], True, {})})
(HERE / "language.json").write_text(json.dumps(cases, indent=0))
