"""`chat` and `evaluate`: the same greedy answers as the sampler, thinking apart, and refusals in a sentence."""

from __future__ import annotations

import io
import json
import shutil
import sys
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file

from model_core.commands.chat import GREY, PLAIN
from model_core.config import HeldOutConfig, RewardConfig
from model_core.data.dataset import read_rows
from model_core.data.tokenizer import decode, prompt_ids
from model_core.rollout import Sampler
from model_core.rundir import COMPLETE
from model_core.scoring import Rubric
from model_core.serving.reasoning import ReasoningSplitter
from model_core.training.measuring import measure
from model_core.training.start import load_start
from model_core.training.world import World
from tests.model_core.commands.conftest import Say

QUESTIONS = ["17 + 25", "", "  Über 😀 ", *(f"{number} + {number * 7}" for number in range(6))]


def sampler_of(checkpoint: Path) -> tuple[Sampler, Any]:
    start = load_start(checkpoint)
    words: Any = start.tokenizer
    return Sampler(start.model, eos_token_id=words.eos_token_id, pad_token_id=words.pad_token_id), words


def answers(checkpoint: Path, questions: list[str], num_tokens: int) -> list[tuple[str, str]]:
    """What is thought and what is said, by the sampler."""
    sampler, words = sampler_of(checkpoint)
    prompts = [prompt_ids(words, question.strip()) for question in questions]
    groups = sampler.generate(prompts, max_new_tokens=num_tokens, temperature=0)
    return [ReasoningSplitter().feed(decode(words, completion.tokens), last=True) for (completion,) in groups]


class Terminal(io.StringIO):
    """An output on which a person looks."""

    def isatty(self) -> bool:
        return True


@pytest.fixture
def asked(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "stdin", io.StringIO("".join(f"{question}\n" for question in QUESTIONS)))


@pytest.mark.usefixtures("asked")
def test_each_question_has_one_answer_in_order(checkpoint: Path, say: Say) -> None:
    said = say("chat", checkpoint / "model", "--max-tokens", 12)
    assert said.status == 0
    assert said.out == "".join(f"{thought}{answer}\n" for thought, answer in answers(checkpoint, QUESTIONS, 12))


@pytest.mark.usefixtures("asked")
def test_thinking_is_grey_on_a_terminal(checkpoint: Path, say: Say, monkeypatch: pytest.MonkeyPatch) -> None:
    expected = answers(checkpoint, QUESTIONS, 12)
    assert any(thought for thought, _ in expected) and not all(thought for thought, _ in expected)
    shown = Terminal()
    monkeypatch.setattr(sys, "stdout", shown)
    assert say("chat", checkpoint / "model", "--max-tokens", 12).status == 0
    lines = shown.getvalue().replace(f"{PLAIN}{GREY}", "")  # a thought may come in pieces
    assert lines == "".join(f"{GREY}{thought}{PLAIN}{said}\n" if thought else f"{said}\n" for thought, said in expected)


@pytest.mark.parametrize(("option", "value"), [
    ("--temperature", -0.1), ("--temperature", 2.1), ("--temperature", "nan"), ("--temperature", "inf"), ("--max-tokens", 0), ("--max-tokens", -1),
])  # fmt: skip
def test_nobody_talks_with_numbers_that_cannot_be(option: str, value: object, tmp_path: Path, say: Say) -> None:
    """Said before a model is looked for."""
    said = say("chat", tmp_path, option, value)
    assert said.status == 2 and said.out == "" and said.err.startswith(f"ConfigError ({option[2:].replace('-', '_')}): ")
    assert f" is {value}; give " in said.err


@pytest.mark.parametrize("size", ["abc", "0", "-1", "nan", "inf", "1e-10"])
def test_a_file_holds_a_byte_at_least(size: str, tmp_path: Path, say: Say) -> None:
    said = say("convert", tmp_path, tmp_path / "out", f"--max-shard-gb={size}")
    assert said.status == 2 and f"{size} is not a size" in said.err and not (tmp_path / "out").exists()


def test_no_question_has_no_answer(checkpoint: Path, say: Say, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "stdin", io.StringIO(""))
    said = say("chat", checkpoint / "model")
    assert (said.status, said.out) == (0, "")


@pytest.mark.parametrize(("harm", "words"), [("everything", "is not a directory with a model"), ("tokenizer", "cannot be read")])
def test_nobody_talks_to_a_model_that_cannot_be_loaded(
    harm: str, words: str, checkpoint: Path, tmp_path: Path, say: Say, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sys, "stdin", io.StringIO("17\n"))
    if harm == "tokenizer":
        shutil.copytree(checkpoint / "model", tmp_path / "model", ignore=shutil.ignore_patterns("*tokenizer*"))
    said = say("chat", tmp_path / "model")
    assert said.status == 2 and said.out == "" and "CheckpointError: " in said.err and words in said.err


@pytest.mark.usefixtures("asked")
def test_a_converted_model_says_the_same(checkpoint: Path, tmp_path: Path, say: Say, monkeypatch: pytest.MonkeyPatch) -> None:
    """Through bfloat16 the weights lose digits once: a second way through it loses none."""
    for source, target, dtype in ((checkpoint / "model", "again", "float32"), (checkpoint / "model", "half", "bfloat16"),
                                  (tmp_path / "half", "whole", "float32"), (tmp_path / "whole", "half_again", "bfloat16")):
        assert say("convert", source, tmp_path / target, "--dtype", dtype).status == 0
    weights = {name: load_file(tmp_path / name / "model.safetensors") for name in ("half", "half_again")}
    assert all(torch.equal(tensor, weights["half_again"][name]) for name, tensor in weights["half"].items())
    first = say("chat", checkpoint / "model", "--max-tokens", 8).out
    monkeypatch.setattr(sys, "stdin", io.StringIO("".join(f"{question}\n" for question in QUESTIONS)))
    assert say("chat", tmp_path / "again", "--max-tokens", 8).out == first != ""


def test_what_is_measured_by_hand_is_what_a_run_measures(checkpoint: Path, dataset: Path, say: Say) -> None:
    said = say("evaluate", checkpoint, dataset, "--num-problems", 6, "--max-new-tokens", 8, "--seed", 3)
    sampler, words = sampler_of(checkpoint)
    expected = measure(
        sampler, words, read_rows(dataset, "held_out", limit=6), config=HeldOutConfig(num_problems=6, max_new_tokens=8),
        rubric=Rubric(RewardConfig()), world=World(0, 1, torch.device("cpu")), seed=3,
    )  # fmt: skip
    assert said.status == 0 and json.loads(said.out) == json.loads(json.dumps(expected))
    assert json.loads(said.out)["num_problems"] == 6


def test_all_problems_are_asked_where_there_are_fewer(checkpoint: Path, dataset: Path, say: Say) -> None:
    """Greedily, so that the seed draws no token."""
    found = [json.loads(say("evaluate", checkpoint, dataset, "--max-new-tokens", 6, "--seed", seed).out) for seed in (0, 1)]
    assert [one["num_problems"] for one in found] == [10, 10] and found[0]["examples"] == found[1]["examples"]
    warm = [json.loads(say("evaluate", checkpoint, dataset, "--max-new-tokens", 6, "--temperature", 1, "--seed", seed).out)
            for seed in (0, 0, 1)]
    assert warm[0] == warm[1] and warm[0]["examples"] != warm[2]["examples"]


def test_without_held_out_problems_nothing_is_claimed(checkpoint: Path, tmp_path: Path, say: Say) -> None:
    (tmp_path / "held_out.jsonl").touch()
    found = json.loads(say("evaluate", checkpoint, tmp_path).out)
    assert found["num_problems"] == 0 and found["examples"] == []
    assert all(found[name] is None for name in found if name.startswith(("accuracy", "quality")))


@pytest.mark.parametrize(("options", "line"), [
    (["--num-problems", 0], "ConfigError (held_out.num_problems): "), (["--temperature", 3], "ConfigError (held_out.temperature): "),
    (["--temperature", "nan"], "ConfigError (held_out.temperature): "), (["--max-new-tokens", 0], "ConfigError (held_out.max_new_tokens): "),
    (["--max-new-tokens", 60], "ConfigError (held_out.max_new_tokens): A prompt has "),
])  # fmt: skip
def test_what_cannot_be_measured_is_said_at_its_option(
    options: list[Any], line: str, checkpoint: Path, dataset: Path, say: Say
) -> None:
    said = say("evaluate", checkpoint, dataset, *options)
    assert said.status == 2 and said.out == "" and said.err.startswith(line)


def test_only_a_whole_checkpoint_on_a_prepared_dataset_is_measured(
    checkpoint: Path, dataset: Path, tmp_path: Path, say: Say
) -> None:
    said = say("evaluate", checkpoint, tmp_path)
    assert said.status == 2 and said.err.startswith("DataError (dataset): ") and "not prepared" in said.err
    copy = tmp_path / "copy"
    shutil.copytree(checkpoint, copy)
    weights = bytearray((copy / "model" / "model.safetensors").read_bytes())
    weights[-1] ^= 1
    (copy / "model" / "model.safetensors").write_bytes(weights)
    said = say("evaluate", copy, dataset)
    assert said.status == 2 and said.err.startswith("CheckpointError: ") and "model.safetensors is missing or damaged" in said.err
    (copy / COMPLETE).unlink()
    said = say("evaluate", copy, dataset)
    assert said.status == 2 and f"has no {COMPLETE} marker" in said.err
