"""The command line as a whole: every word is a file, says what it does, and tells errors in one line with status 2."""

from __future__ import annotations

import importlib
import json
import subprocess
import sys
from pathlib import Path

import pytest

from model_core import commands
from model_core.__main__ import words
from model_core.errors import ConfigError, EngineError
from tests.model_core.commands.conftest import Say

WORDS = ["chat", "convert", "evaluate", "inspect", "plan", "prepare", "rescore", "serve", "train"]
ROOT = Path(__file__).parents[3]


def test_every_file_of_the_folder_is_a_word() -> None:
    files = {path.stem for path in Path(commands.__path__[0]).glob("*.py") if not path.stem.startswith("_")}
    assert words() == sorted(files) and files >= set(WORDS)


def test_the_help_lists_every_word_with_its_first_line(say: Say) -> None:
    said = say("--help")
    assert said.status == 0
    for word in words():
        doc = importlib.import_module(f"model_core.commands.{word}").__doc__
        assert f"    {word}" in said.out and doc is not None
        assert doc.splitlines()[0].split()[-1] in said.out, f"the line of {word} is whole"


@pytest.mark.parametrize("word", WORDS)
def test_each_word_explains_its_options(word: str, say: Say) -> None:
    said = say(word, "--help")
    module = importlib.import_module(f"model_core.commands.{word}")
    assert said.status == 0 and said.out.startswith(f"usage: python -m model_core {word} ")
    assert " ".join((module.__doc__ or "").splitlines()[0].split()) in " ".join(said.out.split())


@pytest.mark.parametrize("argv", [[], ["dance"], ["chat"], ["plan"], ["convert", "one"], ["train", "a", "b"],
                                  ["serve", "fake", "--port", "many"], ["plan", "tiny", "--nonsense"],
                                  ["convert", "a", "b", "--dtype", "int8"], ["evaluate", "a", "b", "--seed", "x"]])
def test_a_line_that_cannot_be_read_is_a_usage_error(argv: list[str], say: Say) -> None:
    said = say(*argv)
    assert said.status == 2 and said.out == "" and said.err.startswith("usage: python -m model_core")


@pytest.mark.parametrize(("error", "line"), [
    (ConfigError("It is 3; give 4.", field="model.size"), "ConfigError (model.size): It is 3; give 4.\n"),
    (EngineError("It has failed."), "EngineError: It has failed.\n"),
])  # fmt: skip
def test_an_error_that_the_user_can_mend_is_one_line(
    error: Exception, line: str, say: Say, monkeypatch: pytest.MonkeyPatch
) -> None:
    def failing(_args: object) -> int:
        raise error

    monkeypatch.setattr("model_core.commands.inspect.run", failing)
    said = say("inspect", "jsonl", "file")
    assert (said.status, said.out, said.err) == (2, "", line)


def test_a_mistake_of_ours_is_not_hidden(say: Say, monkeypatch: pytest.MonkeyPatch) -> None:
    def broken(_args: object) -> int:
        raise ZeroDivisionError

    monkeypatch.setattr("model_core.commands.inspect.run", broken)
    with pytest.raises(ZeroDivisionError):
        say("inspect", "jsonl", "file")


LIGHT = """
import sys
from pathlib import Path
from model_core.__main__ import main
place = Path(sys.argv[1])
statuses = [main(["prepare", str(place)]), main(["inspect", "jsonl", str(place / "data" / "train.jsonl")])]
heavy = {"torch", "transformers", "deepspeed", "uvicorn"} & set(sys.modules)
import resource
print(); print(statuses, heavy, resource.getrlimit(resource.RLIMIT_AS)[0] >> 30, resource.getrlimit(resource.RLIMIT_CPU)[0])
"""


def test_words_that_need_no_model_load_none(tmp_path: Path) -> None:
    """And who looks into a file of a stranger has bound its memory and its time."""
    asked = {"source": "generated", "source_config": {"num_train": 20, "num_held_out": 5}}
    (tmp_path / "config.json").write_text(json.dumps({"prepare": asked}))
    argv = [sys.executable, "-c", LIGHT, str(tmp_path)]
    done = subprocess.run(argv, cwd=ROOT, capture_output=True, text=True, timeout=60, check=True)
    assert done.stdout.splitlines()[-1] == "[0, 0] set() 4 30"
