"""What a run starts with: which checkpoint it goes on from, which rows and model it gets, and what is refused at its field."""

from __future__ import annotations

import json
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import torch

from model_core.config import RunConfig, RunPaths
from model_core.data.dataset import Row
from model_core.errors import CheckpointError, ConfigError, DataError
from model_core.rundir import COMPLETE, RunDir
from model_core.training.checkpoints import seal
from model_core.training.frame import Outcome
from model_core.training.start import (
    answerable,
    begin,
    check_machine,
    encode_fitting,
    load_start,
    load_tokenizer,
    needs_answers,
    new_or_loaded,
    resumed,
    training_rows,
)
from model_core.training.world import World
from tests.model_core.training.in_process import ROWS, SHAPE, Run, attempts, model_start, write_dataset
from tests.model_core.training.ranks import ALONE, CPU, each_rank

CONFIG = RunConfig.parse({"phase": "cold_start", "model": SHAPE})


@pytest.fixture(scope="module")
def trained(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Run]:
    """A run of three steps with a checkpoint after each."""
    with pytest.MonkeyPatch.context() as patch, attempts(patch, tmp_path_factory.mktemp("trained")) as attempt:
        run = attempt(phase_config={"steps": 3}, checkpoint={"every_steps": 1, "keep_last": 9, "keep_best": 0})
        run.frame.run(lambda _step: Outcome(5, 0.5))
        yield run


@pytest.fixture
def copied(trained: Run, tmp_path: Path) -> RunDir:
    """The same run in a directory of its own."""
    shutil.copytree(trained.rundir.path, tmp_path / "copy")
    return RunDir(tmp_path / "copy")


class Told:
    """The messages that a start tells of."""

    def __init__(self) -> None:
        self.messages: list[str] = []

    def emit(self, _kind: str, *, message: str) -> None:
        self.messages.append(message)


def found(rundir: RunDir, *, resume_from: Path | None = None, world: World = ALONE) -> tuple[str | None, list[str]]:
    told: Any = Told()
    paths = resumed(rundir, RunPaths(resume_from=str(resume_from) if resume_from else None), world, told)
    return paths.resume_from, told.messages


def damage(checkpoint: Path) -> None:
    (checkpoint / "state" / "trainer.json").write_text("{")


def test_a_new_directory_begins_anew(tmp_path: Path) -> None:
    assert found(RunDir(tmp_path)) == (None, [])


def test_its_own_newest_checkpoint_goes_before_the_one_that_was_asked_for(copied: RunDir, trained: Run) -> None:
    chosen, messages = found(copied, resume_from=trained.rundir.checkpoint(1))
    assert chosen == str(copied.checkpoint(3)) and len(messages) == 1 and "step_00000003" in messages[0]


def test_damaged_ones_are_passed_over_and_each_is_said(copied: RunDir) -> None:
    for step in (2, 3):
        damage(copied.checkpoint(step))
    (copied.checkpoints / "part_00000009").mkdir()
    chosen, messages = found(copied)
    assert chosen == str(copied.checkpoint(1)) and not list(copied.checkpoints.glob("part_*"))
    assert [message.endswith("An older one is taken.") for message in messages] == [True, True, False]
    assert "step_00000003/state/trainer.json is missing or damaged" in messages[0] and "step_00000002" in messages[1]


def test_older_ones_beside_the_one_asked_for_serve_when_it_is_damaged_and_newer_ones_never(copied: RunDir, tmp_path: Path) -> None:
    damage(copied.checkpoint(2))
    chosen, messages = found(RunDir(tmp_path / "new"), resume_from=copied.checkpoint(2))
    assert chosen == str(copied.checkpoint(1)) and len(messages) == 1
    damage(copied.checkpoint(1))
    with pytest.raises(CheckpointError, match=r"step_00000002/state/trainer\.json is missing or damaged"):
        found(RunDir(tmp_path / "new"), resume_from=copied.checkpoint(2))


def test_the_first_rank_looks_for_all_and_all_hear_the_same(copied: RunDir, tmp_path: Path) -> None:
    ranks = each_rank(2, lambda world: found(copied, world=world))
    assert ranks[0] == ranks[1]

    def refused(world: World) -> str:
        with pytest.raises(CheckpointError) as error:
            found(RunDir(tmp_path / "new"), resume_from=tmp_path / "nothing", world=world)
        return error.value.message

    messages = each_rank(3, refused)
    assert len(set(messages)) == 1 and "no COMPLETE marker" in messages[0]


def test_a_checkpoint_gives_back_the_model_and_its_tokenizer(trained: Run) -> None:
    checkpoint = trained.rundir.checkpoint(3)
    loaded, config = load_start(checkpoint), trained.start.model_config
    assert loaded.model_config == config
    theirs = trained.frame.policy().state_dict()
    assert all(torch.equal(tensor, theirs[name]) for name, tensor in loaded.model.state_dict().items())
    assert loaded.tokenizer.get_vocab() == trained.start.tokenizer.get_vocab()
    other = new_or_loaded(CONFIG.model_copy(update={"seed": 9}), RunPaths(start_from=str(checkpoint)), [])
    assert torch.equal(other.model.lm_head.weight, loaded.model.lm_head.weight), "a loaded model is not drawn anew"
    assert begin(RunPaths(resume_from=str(checkpoint), start_from="/nowhere")).model_config == config


@pytest.mark.parametrize(("harm", "words"), [
    ("marker", "no COMPLETE marker"), ("shape", "has no model_config"), ("tokenizer", "no readable tokenizer|no fast tokenizer"),
    ("pad", "end and a padding token"),
])
def test_a_checkpoint_that_lacks_something_is_refused(copied: RunDir, harm: str, words: str) -> None:
    checkpoint = copied.checkpoint(3)
    metadata = json.loads((checkpoint / "metadata.json").read_text())
    if harm == "marker":
        (checkpoint / COMPLETE).unlink()
    elif harm == "shape":
        del metadata["model_config"]
    elif harm == "tokenizer":
        (checkpoint / "model" / "tokenizer.json").unlink()
    else:
        path = checkpoint / "model" / "tokenizer_config.json"
        path.write_text(json.dumps({**json.loads(path.read_text()), "pad_token": None}))
    if harm != "marker":
        seal(checkpoint, metadata)
    with pytest.raises(CheckpointError, match=words):
        load_start(checkpoint)


def test_a_new_model_is_drawn_by_the_seed_and_fits_its_tokenizer() -> None:
    first, again = (new_or_loaded(CONFIG, RunPaths(), ROWS) for _ in range(2))
    other = new_or_loaded(CONFIG.model_copy(update={"seed": 1}), RunPaths(), ROWS)
    assert first.model_config.vocab_size == len(first.tokenizer) > 0
    assert torch.equal(first.model.lm_head.weight, again.model.lm_head.weight)
    assert not torch.equal(first.model.lm_head.weight, other.model.lm_head.weight)
    larger = RunConfig.parse({"phase": "cold_start", "model": {**SHAPE, "vocab_size": 100}})
    assert new_or_loaded(larger, RunPaths(), ROWS).model.lm_head.weight.shape[0] == 100
    smaller = RunConfig.parse({"phase": "cold_start", "model": {**SHAPE, "vocab_size": 5}})
    with pytest.raises(ConfigError, match=f"is 5, but the tokenizer has {len(first.tokenizer)} tokens") as refused:
        new_or_loaded(smaller, RunPaths(), ROWS)
    assert refused.value.field == "model.vocab_size"


@pytest.mark.parametrize(("values", "world", "field", "words"), [
    ({"parallel": {"num_processes": 2}}, ALONE, "parallel.num_processes", "launched with 1 processes.*asks for 2"),
    ({}, World(0, 2, CPU), "parallel.num_processes", "launched with 2 processes.*asks for 1"),
    ({"parallel": {"num_processes": 4096}}, World(0, 4096, CPU), "parallel.num_processes", "this machine has [0-9]+ (CPU cores|GPUs)"),
    ({"precision": {"dtype": "float16"}}, ALONE, "precision.dtype", "needs a GPU"),
])
def test_what_the_machine_has_not_is_refused(values: dict[str, Any], world: World, field: str, words: str) -> None:
    with pytest.raises(ConfigError, match=words) as refused:
        check_machine(RunConfig.parse({"phase": "cold_start", **values}), world)
    assert refused.value.field == field
    check_machine(CONFIG, ALONE)


def test_rows_to_learn_from_have_a_completion(tmp_path: Path) -> None:
    mixed = [ROWS[0], Row("p"), Row("q", completion="")]
    paths = RunPaths(dataset=str(write_dataset(tmp_path / "mixed", mixed)))
    assert training_rows(paths, need_completion=True) == ROWS[:1] and training_rows(paths, need_completion=False) == mixed
    for rows, need, words in (([], False, "no training rows"), (mixed[1:], True, "No row .* has a completion")):
        with pytest.raises(DataError, match=words) as refused:
            training_rows(RunPaths(dataset=str(write_dataset(tmp_path / f"rows{len(rows)}", rows))), need_completion=need)
        assert refused.value.field == "dataset"
    with pytest.raises(ConfigError, match="needs a dataset"):
        training_rows(RunPaths(), need_completion=False)


def test_rows_without_an_answer_are_left_out_and_said() -> None:
    told: Any = Told()
    assert answerable([*ROWS, Row("p")], told) == ROWS and told.messages == ["1 of 13 rows have no answer and are left out."]
    assert answerable(ROWS, told) == ROWS and len(told.messages) == 1
    with pytest.raises(DataError, match="No row of the dataset has an answer"):
        answerable([Row("p")], told)


@pytest.mark.parametrize(("weights", "needs"), [
    ({"solution_accuracy": 1.0}, True), ({"efficiency": 0.5, "format": 0.5}, False), ({"format": 1.0, "solution_accuracy": 0.1}, True),
])
def test_whether_answers_are_needed_is_said_by_the_rewards(weights: dict[str, float], needs: bool) -> None:
    assert needs_answers(RunConfig.parse({"phase": "reinforcement", "reward": {"weights": weights}})) is needs


def test_rows_that_do_not_fit_are_counted_with_the_longest() -> None:
    tokenizer = model_start().tokenizer
    encoded = encode_fitting(tokenizer, ROWS, limit=24, field="x")
    longest = max(len(prompt) + len(completion) for prompt, completion in encoded)
    assert encode_fitting(tokenizer, ROWS, limit=longest + 5, reserve=5, field="x") == encoded
    too_long = Row("1+1=1+1=1+1=", "1" * 20, "2")
    with pytest.raises(ConfigError, match=rf"1 of 13 rows do not fit into {longest} positions: the longest has 36 tokens\. ") as refused:
        encode_fitting(tokenizer, [*ROWS, too_long], limit=longest, field="model.max_position_embeddings")
    assert refused.value.field == "model.max_position_embeddings"
    with pytest.raises(ConfigError, match="tokens and 5 tokens of answer"):
        encode_fitting(tokenizer, ROWS, limit=longest + 4, reserve=5, field="x")
    assert encode_fitting(tokenizer, [], limit=1, field="x") == []


def test_no_directory_is_no_tokenizer(tmp_path: Path) -> None:
    with pytest.raises(CheckpointError, match="no readable tokenizer"):
        load_tokenizer(tmp_path)
