"""Sampling in rounds: what is kept, when it ends, and that a stopped attempt keeps the very chains of one never stopped."""

from __future__ import annotations

import json
from collections import Counter
from functools import cache
from pathlib import Path
from typing import Any

import pytest
import torch

from model_core.data.dataset import Row
from model_core.data.tokenizer import encode_rows
from model_core.errors import DataError
from model_core.grpo import chains
from model_core.grpo.chains import Kept, chains_of
from model_core.training.frame import Outcome
from model_core.training.start import Start
from tests.model_core.reference.plain_training import _mean_loss
from tests.model_core.training.in_process import Attempt, Run, model_start

ROWS = [Row("1+2=", "<think>1+2=3</think>3", "3", "sums", {"number": number}) for number in range(8)]


@cache
def knowing() -> Start:
    """A model that knows this sum by heart, most of the time."""
    start = model_start(ROWS[:1])
    examples = encode_rows(start.tokenizer, ROWS[:1])
    optimizer = torch.optim.AdamW(start.model.parameters(), lr=0.02)
    for _ in range(40):
        optimizer.zero_grad()
        _mean_loss(start.model, examples).backward()  # type: ignore[no-untyped-call]
        optimizer.step()
    start.model.eval()
    return start


@pytest.fixture(autouse=True)
def sampled_from(monkeypatch: pytest.MonkeyPatch) -> None:
    """The model that samples is at hand instead of in a checkpoint."""
    monkeypatch.setattr(chains, "load_start", lambda _checkpoint: knowing())


def sampling(attempt: Attempt, name: str = "run", *, resume_from: Path | None = None, rows: list[Row] = ROWS, **settings: Any) -> Run:
    values = {"steps": 2, "batch_size": 2, "num_samples": 2, "num_chains": 100, "prompts_per_round": 3, "max_new_tokens": 14, **settings}
    return attempt(name, start=model_start(ROWS[:1]), rows=rows, resume_from=resume_from, phase="rejection_sampling", phase_config=values)


def test_every_prompt_is_asked_once_in_rounds_and_the_tokens_are_counted(attempt: Attempt) -> None:
    run = sampling(attempt)
    kept = chains_of(run.frame, run.settings, ROWS)
    assert [told["num_groups"] for told in run.told("rollouts")] == [3, 3, 2] and [told["num_rollouts"] for told in run.told("rollouts")] == [6, 6, 4]
    assert [told["fraction"] for told in run.told("progress")] == pytest.approx([3 / 8, 6 / 8, 1.0])
    assert kept and all(row.completion == "<think>1+2=3</think>3" and row.answer == "3" for row in kept) and len(kept) <= 8
    prompt = len(encode_rows(knowing().tokenizer, ROWS[:1])[0][0])
    assert run.frame.counters.tokens > 16 * prompt
    (told,) = run.told("chains")
    assert (told["num_prompts"], told["num_kept"]) == (8, len(kept)) and len(kept) + sum(told["refused"].values()) == 16
    assert json.loads(run.frame.extra_state["sampling.json"]) == {"next_row": 8, "is_done": True, "refused": told["refused"]}


@pytest.mark.parametrize("wanted", [1, 4])
def test_no_more_rounds_than_are_needed_and_no_more_chains_than_wanted(attempt: Attempt, wanted: int) -> None:
    run = sampling(attempt, num_chains=wanted, num_samples=6)
    assert len(chains_of(run.frame, run.settings, ROWS)) == wanted
    assert len(run.told("rollouts")) == -(-wanted // 3) and run.told("progress")[-1]["fraction"] == 1.0


@pytest.mark.parametrize("stop_after", [0, 1, 2])
def test_a_stopped_attempt_goes_on_with_the_very_same_chains(attempt: Attempt, monkeypatch: pytest.MonkeyPatch, stop_after: int) -> None:
    whole = sampling(attempt, "whole")
    expected = chains_of(whole.frame, whole.settings, ROWS)
    first = sampling(attempt, "first")
    one_round = chains._one_round

    def counted(*given: Any) -> None:
        one_round(*given)
        if len(first.told("rollouts")) == stop_after:
            first.rundir.ask_to_stop("pause")

    monkeypatch.setattr(chains, "_one_round", counted)
    if not stop_after:
        first.rundir.ask_to_stop("pause")
    early = chains_of(first.frame, first.settings, ROWS)
    assert early == expected[: len(early)] and len(first.told("rollouts")) == stop_after
    assert first.frame.run(lambda _step: pytest.fail("no step is made"))["ended_by"] == "stop"
    then = sampling(attempt, "then", resume_from=first.rundir.checkpoint(0))
    assert chains_of(then.frame, then.settings, ROWS) == expected
    assert then.frame.counters.tokens == whole.frame.counters.tokens
    assert then.frame.extra_state == whole.frame.extra_state


def test_a_run_that_has_all_its_chains_samples_no_more(attempt: Attempt) -> None:
    whole = sampling(attempt, "whole")
    kept = chains_of(whole.frame, whole.settings, ROWS)
    whole.frame.run(lambda _step: Outcome(1, 0.5))
    then = sampling(attempt, "then", resume_from=whole.rundir.checkpoint(2))
    assert chains_of(then.frame, then.settings, ROWS) == kept and not then.told("rollouts")


def test_not_one_right_chain_is_refused_with_its_remedy(attempt: Attempt) -> None:
    wrong = [Row("1+2=", None, "9", "sums")] * 3
    run = sampling(attempt, rows=wrong)
    with pytest.raises(DataError, match="Not one sampled chain could be kept \\(wrong answer: 6\\)") as refused:
        chains_of(run.frame, run.settings, wrong)
    assert refused.value.field == "phase_config.num_samples"


def test_what_was_kept_goes_through_a_checkpoint_unharmed(tmp_path: Path) -> None:
    rows = [Row("p", "c “ü”\n", "a", "sums"), Row("q", "d", None, "")]
    kept = Kept(rows, 7, True, Counter({"cut off": 2}))
    for name, text in kept.files().items():
        (tmp_path / name).write_text(text)
    assert Kept.read(tmp_path) == kept
    assert Kept().files()["chains.jsonl"] == ""
