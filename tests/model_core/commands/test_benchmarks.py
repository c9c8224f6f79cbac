"""A checkpoint on a benchmark by the command line: the same texts each time, and a prompt without room is no wrong answer."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from model_core.evaluation import sources
from tests.model_core.commands.conftest import Say

QUESTIONS = ["What is 17 + 25?", "17 + " * 60, "What is 25 + 17?"]


def test_a_checkpoint_answers_what_fits_and_answers_alike_again(
    say: Say, checkpoint: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    data = tmp_path / "test.jsonl"
    data.write_text("".join(json.dumps({"question": one, "answer": "#### 42"}) + "\n" for one in QUESTIONS))
    words = ["evaluate", "--benchmark", "gsm8k", "--data", data, "--checkpoint", checkpoint, "--prompt", "{question}", "--max-new-tokens", 8, "--num-samples", 2]
    results = []
    for name, chunk in (("whole", 32), ("again", 32), ("chunks", 2)):
        monkeypatch.setattr(sources, "CHUNK_ROWS", chunk)
        said = say(*words, "--json", tmp_path / name)
        assert said.status == 0 and said.out.startswith("gsm8k: "), said.err
        results.append(json.loads((tmp_path / name).read_text()))
    whole, again, _chunks = results
    assert whole == again and whole["num_problems"] == 3 and whole["num_samples"] == 6 and whole["unscored"] == 2
    (reason,) = whole["unscored_reasons"]
    assert "tokens and the model's context 64" in reason
    assert [one["row"] for one in results[2]["problems"]] == [0, 1, 2] and results[2]["unscored"] == 2


def test_a_call_that_was_cut_off_draws_what_a_whole_one_draws(
    say: Say, checkpoint: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Cut in the middle of a chunk and of a line."""
    monkeypatch.setattr(sources, "CHUNK_ROWS", 3)
    data = tmp_path / "test.jsonl"
    data.write_text("".join(json.dumps({"question": f"{n}+{n}=", "answer": f"#### {2 * n}"}) + "\n" for n in range(1, 9)))
    words = ["evaluate", "--benchmark", "gsm8k", "--data", data, "--checkpoint", checkpoint, "--prompt", "{question}",
             "--max-new-tokens", 8, "--num-samples", 3]  # fmt: skip
    assert say(*words, "--json", tmp_path / "whole").status == 0
    kept = (tmp_path / "whole.samples.jsonl").read_bytes()
    lines = kept.splitlines(keepends=True)
    (tmp_path / "cut.samples.jsonl").write_bytes(b"".join(lines[:3]) + lines[3][:20])
    assert say(*words, "--json", tmp_path / "cut").status == 0
    assert (tmp_path / "cut.samples.jsonl").read_bytes() == kept and (tmp_path / "cut").read_bytes() == (tmp_path / "whole").read_bytes()
    assert set(json.loads((tmp_path / "whole").read_text())["pass_at_k"]) == {"1", "2", "3"}
    refused = say(*words, "--json", tmp_path / "whole", "--seed", 1)
    assert refused.status == 2 and "seed 0 there and 1 here" in refused.err
    (tmp_path / "odd.samples.jsonl").write_text('{"problems": 3}\n')
    refused = say(*words, "--json", tmp_path / "odd")
    assert refused.status == 2 and "line 1: not a line of an evaluation" in refused.err


def test_a_checkpoint_that_is_none_is_a_sentence(say: Say, tmp_path: Path) -> None:
    data = tmp_path / "test.jsonl"
    data.write_text('{"question": "x", "answer": "#### 1"}\n')
    said = say("evaluate", "--benchmark", "gsm8k", "--data", data, "--checkpoint", tmp_path, "--json", tmp_path / "out")
    assert said.status == 2 and said.err.startswith("CheckpointError") and not (tmp_path / "out").exists()
