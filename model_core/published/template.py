"""The chat template of a directory: where it stands, whether it can be parsed, and an example conversation written by it.

A template is a program. Parsing runs nothing of it; `rendered` runs it in transformers' sandbox, in a process of its own with
little time and memory, since a sandbox does not end a loop.
"""

from __future__ import annotations

import json
import subprocess
import sys
from functools import lru_cache
from pathlib import Path
from typing import Any

import jinja2.ext
import jinja2.nodes
import jinja2.parser
from jinja2 import TemplateSyntaxError
from jinja2.sandbox import ImmutableSandboxedEnvironment

from model_core.errors import CheckpointError
from model_core.published.files import read_object

FILE = "chat_template.jinja"
FIELD = "chat_template"
EXAMPLE: tuple[dict[str, str], ...] = (
    {"role": "user", "content": "What is 2 + 3?"},
    {"role": "assistant", "content": "<think>2 + 3 is 5.</think>5"},
    {"role": "user", "content": "And 17 + 25?"},
)
"""The conversation that is shown; what follows it is the model's to say."""
RENDER_SECONDS = 20.0
MAX_TEMPLATE_CHARS = 200_000
_SPECIAL = ("bos_token", "eos_token", "pad_token", "unk_token")


class _Generation(jinja2.ext.Extension):
    """The tag with which transformers marks what the assistant says; to be parsed it needs to be known."""

    tags = {"generation"}

    def parse(self, parser: jinja2.parser.Parser) -> list[jinja2.nodes.Node]:
        next(parser.stream)
        return parser.parse_statements(("name:endgeneration",), drop_needle=True)


def template_of(directory: Path) -> str:
    """The text of the one chat template. Raises CheckpointError at `chat_template` when there is none, or more than one."""
    found: dict[str, str] = {}
    if (directory / FILE).is_file():
        found[FILE] = (directory / FILE).read_text(encoding="utf-8", errors="replace")
    for name in ("tokenizer_config.json", "chat_template.json"):
        said = read_object(directory / name).get(FIELD) if (directory / name).is_file() else None
        if said is not None:
            found[name] = _one(said, name)
    if (directory / "additional_chat_templates").exists():
        raise _refusal("additional_chat_templates holds chat templates beside the one that would be approved. Remove it.")
    if not found:
        raise _refusal(
            f"There is no chat template: neither a {FILE} nor a “{FIELD}” in tokenizer_config.json. Without one nobody knows how a "
            "conversation is written for this model; add the one that it was trained with."
        )
    if len(set(found.values())) > 1:
        raise _refusal(f"{' and '.join(found)} have chat templates that differ. Leave one of them.")
    return next(iter(found.values()))


def special_tokens(directory: Path) -> dict[str, str]:
    """The special tokens that a template may name, as tokenizer_config.json writes them."""
    file = directory / "tokenizer_config.json"
    said = read_object(file) if file.is_file() else {}
    found = {name: said[name]["content"] if isinstance(said.get(name), dict) else said.get(name) for name in _SPECIAL}
    return {name: token for name, token in found.items() if isinstance(token, str)}


def parsed(template: str) -> None:
    """Raises CheckpointError at `chat_template` when it is no Jinja template."""
    if len(template) > MAX_TEMPLATE_CHARS:
        raise _refusal(f"The chat template has {len(template)} characters; at most {MAX_TEMPLATE_CHARS} are read.")
    environment = ImmutableSandboxedEnvironment(extensions=[_Generation, jinja2.ext.loopcontrols], autoescape=False)
    try:
        environment.parse(template)
    except TemplateSyntaxError as error:
        raise _refusal(f"The chat template cannot be parsed, line {error.lineno}: {error.message}. Mend it.") from None
    except RecursionError:
        raise _refusal("The chat template is nested too deeply to be parsed.") from None


def rendered(template: str, special: dict[str, str]) -> str:
    """EXAMPLE as the template writes it, up to where the assistant goes on. Raises CheckpointError at `chat_template`."""
    return _rendered(template, tuple(sorted(special.items())))


@lru_cache(maxsize=64)
def _rendered(template: str, special: tuple[tuple[str, str], ...]) -> str:
    asked = json.dumps({"template": template, "special": dict(special)})
    root = str(Path(__file__).resolve().parents[2])
    argv, env = [sys.executable, "-m", "model_core", "template"], {"PYTHONPATH": root, "HF_HUB_OFFLINE": "1", "PATH": ""}
    try:
        done = subprocess.run(argv, input=asked, capture_output=True, text=True, timeout=RENDER_SECONDS, check=False, env=env)
        told: dict[str, Any] = json.loads(done.stdout)
    except subprocess.TimeoutExpired:
        raise _refusal(f"The chat template did not end within {RENDER_SECONDS:.0f} seconds on a conversation of three.") from None
    except ValueError:
        raise _refusal("The chat template ended its process, by too much time or memory, on a conversation of three.") from None
    if "error" in told:
        raise _refusal(f"The chat template does not write the example conversation: {told['error']}")
    return str(told["text"])


def _one(said: Any, name: str) -> str:
    """The text of a “chat_template” in JSON, which may be a list of named ones."""
    if isinstance(said, list):
        if len(said) != 1 or not isinstance(said[0], dict):
            raise _refusal(f"{name} has {len(said)} named chat templates, of which only one would be approved. Leave one.")
        said = said[0].get("template")
    if not isinstance(said, str):
        raise _refusal(f"The “{FIELD}” of {name} is a {type(said).__name__}, not a text.")
    return said


def _refusal(sentence: str) -> CheckpointError:
    return CheckpointError(sentence, field=FIELD)
