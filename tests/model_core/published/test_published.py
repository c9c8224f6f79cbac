"""Looking at directories of others: what is told of a whole one, and everything that is refused."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from model_core.errors import CheckpointError
from model_core.model import load_pretrained
from model_core.published import Unhashed, digest, files_of, look
from model_core.published.marks import CHAT_TEMPLATE
from model_core.published.template import EXAMPLE, rendered
from model_core.serving.engines import ENGINES
from model_core.training.start import load_tokenizer
from tests.model_core.published.made import make_directory, say

INDEX = "model.safetensors.index.json"


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_directory(tmp_path_factory.mktemp("published") / "whole", max_shard_bytes=40_000)


@pytest.fixture
def directory(whole: Path, tmp_path: Path) -> Path:
    """A copy that a test may spoil."""
    return Path(shutil.copytree(whole, tmp_path / "copy"))


def test_a_whole_directory_is_told_as_it_is(whole: Path) -> None:
    found = look(whole)
    assert not found.refusals and found.architecture == "DeepseekV3ForCausalLM" and found.context == 128
    assert found.num_parameters == sum(weight.numel() for weight in load_pretrained(whole).state_dict().values())
    assert found.stored_as == "F32" and found.template == CHAT_TEMPLATE
    assert found.num_bytes == sum(path.stat().st_size for path in whole.iterdir())
    assert all(engine().refuses(found) is None for _name, engine in ENGINES.items())


def shard(directory: Path) -> Path:
    return sorted(directory.glob("*.safetensors"))[1]


def cut(path: Path, size: int) -> None:
    with path.open("r+b") as opened:
        opened.truncate(size)


def link_out(directory: Path) -> None:
    (directory / "notes.txt").symlink_to("/etc/hostname")


SPOILT: dict[str, tuple[Callable[[Path], Any], str, str]] = {
    "code": (lambda d: (d / "modeling.py").write_text(""), "files", "modeling.py.*could run code"),
    "code below": (lambda d: (d / "a").mkdir() or (d / "a" / "x.PKL").write_bytes(b""), "files", "x.PKL.*could run code"),  # type: ignore[func-returns-value]
    "auto_map": (lambda d: say(d / "config.json", auto_map={"AutoConfig": "x.Y"}), "config", "auto_map"),
    "auto_map of the tokenizer": (lambda d: say(d / "tokenizer_config.json", auto_map={}), "tokenizer", "auto_map"),
    "a link": (link_out, "files", "notes.txt.*leads out"),
    "a linked folder": (lambda d: (d / "more").symlink_to(d.parent), "files", "more.*leads out"),
    "a pipe": (lambda d: os.mkfifo(d / "pipe"), "files", "pipe.*is no file"),
    "no config": (lambda d: (d / "config.json").unlink(), "config", "has no config.json"),
    "config of nothing": (lambda d: say(d / "config.json", architectures=None), "config", "does not say"),
    "config that is none": (lambda d: (d / "config.json").write_text("{"), "config", "not valid JSON"),
    "no tokenizer": (lambda d: (d / "tokenizer.json").unlink(), "tokenizer", "no tokenizer"),
    "no tokenizer_config": (lambda d: (d / "tokenizer_config.json").unlink(), "tokenizer", "tokenizer_config.json"),
    "no weights": (lambda d: [p.unlink() for p in (*d.glob("*.safetensors"), d / INDEX)], "weights", "lacks the weights file"),
    "a shard that is not there": (lambda d: shard(d).unlink(), "weights", "lacks the weights file model-00002"),
    "a shard of no use": (lambda d: shutil.copy(shard(d), d / "other.safetensors"), "weights", "does not name"),
    "a cut header": (lambda d: cut(shard(d), 20), "weights", "is damaged"),
    "a cut shard": (lambda d: cut(shard(d), shard(d).stat().st_size - 4), "weights", "is damaged"),
    "no template": (lambda d: (d / "chat_template.jinja").unlink(), "chat_template", "There is no chat template"),
    "two templates": (lambda d: say(d / "tokenizer_config.json", chat_template="{{ 1 }}"), "chat_template", "that differ"),
    "a template that is none": (lambda d: (d / "chat_template.jinja").write_text("{% if %}"), "chat_template", "cannot be parsed, line 1"),
}  # fmt: skip


@pytest.mark.parametrize("name", SPOILT)
def test_each_fault_is_refused_at_its_field_and_without_our_paths(name: str, directory: Path) -> None:
    spoil, field, words = SPOILT[name]
    spoil(directory)
    refusals = look(directory).refusals
    message = next(one.message for one in refusals if one.field == field)
    assert re.search(words, message), message
    assert not any(str(directory.parent) in one.message for one in refusals)


def test_the_builtin_engine_refuses_classes_and_templates_that_it_does_not_know(directory: Path) -> None:
    builtin, sglang = ENGINES.get("builtin")(), ENGINES.get("sglang")()
    (directory / "chat_template.jinja").write_text("{{ messages[0].content }}")
    assert "chat template" in str(builtin.refuses(look(directory)))
    say(directory / "config.json", model_type="gemma3")
    assert "not gemma3" in str(builtin.refuses(look(directory))) and sglang.refuses(look(directory)) is None


def test_a_template_writes_what_the_tokenizer_writes(whole: Path) -> None:
    found = look(whole)
    expected = load_tokenizer(whole).apply_chat_template(list(EXAMPLE), tokenize=False, add_generation_prompt=True)
    assert rendered(found.template, found.special) == expected


@pytest.mark.parametrize("template", [
    "{{ raise_exception('no such role') }}", "{{ ''.__class__.__mro__[1].__subclasses__() }}", "{{ messages.append(1) }}",
    pytest.param("{% for a in range(99999) %}{% for b in range(99999) %}{% endfor %}{% endfor %}", marks=pytest.mark.slow),
])  # fmt: skip
def test_a_template_that_fails_escapes_or_does_not_end_is_refused(template: str) -> None:
    with pytest.raises(CheckpointError, match="chat template") as caught:
        rendered(template, {})
    assert caught.value.field == "chat_template"


def test_the_digest_is_that_of_sha256sum(whole: Path) -> None:
    names, told = sorted(files_of(whole)), list[int]()
    found = digest(whole, names, told=lambda done: told.append(done) is None)
    listed = subprocess.run(["sha256sum", *names], cwd=whole, capture_output=True, text=True, check=True).stdout
    assert "".join(f"{sha256}  {name}\n" for name, _bytes, sha256 in found.files) == listed
    whole_of = subprocess.run(["sha256sum"], input=listed, capture_output=True, text=True, check=True).stdout
    assert found.sha256 == whole_of.split()[0] and told[-1] == found.num_bytes == look(whole).num_bytes
    with pytest.raises(Unhashed):
        digest(whole, names, told=lambda _done: False)
