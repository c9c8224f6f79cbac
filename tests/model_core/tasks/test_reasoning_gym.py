"""The adapter of reasoning-gym: every dataset that is offered is reproducible, verifies its own answers and runs no text."""

from __future__ import annotations

import hashlib
import inspect
import json
import os
import re
import subprocess
import sys
from pathlib import Path
from typing import Any, get_args

import pytest

from model_core.config import PrepareConfig, RewardConfig
from model_core.errors import ConfigError, ModelCoreError
from model_core.rewards._types import Sample
from model_core.rewards.solution_accuracy import SolutionAccuracy
from model_core.scoring import Rubric
from model_core.sources.generated import Generated
from model_core.tasks import TASKS
from model_core.tasks._problems import is_held_out
from model_core.tasks.reasoning_gym import _NO_ANSWER, _RUNS_ANSWERS, LEFT_OUT, Dataset, ReasoningGym, _entry

OFFERED: tuple[str, ...] = get_args(Dataset)
CANARY = "__import__('pathlib').Path('ran').touch()"


def made_by(name: str, index: int = 0, **values: Any) -> dict[str, Any]:
    return {"dataset": name, "settings": {}, "level": 0, "seed": 11, "index": index, **values}


def rows(num_train: int = 12, num_held_out: int = 4, seed: int = 0, **values: Any) -> list[tuple[str, dict[str, Any]]]:
    return list(ReasoningGym(ReasoningGym.Config.parse(values)).generate(seed, num_train, num_held_out))


def digests() -> dict[str, str]:
    """Of each dataset that is offered, what its first problem is."""
    kept = {name: {key: _entry(made_by(name))[key] for key in ("question", "answer")} for name in OFFERED}
    return {name: hashlib.sha256(json.dumps(entry).encode()).hexdigest() for name, entry in kept.items()}


def test_what_is_offered_and_what_is_left_out_is_the_library() -> None:
    from reasoning_gym.factory import DATASETS

    assert sorted([*OFFERED, *LEFT_OUT]) == sorted(DATASETS)
    assert list(OFFERED) == sorted(OFFERED)


@pytest.mark.parametrize("name", OFFERED)
def test_a_dataset_takes_its_own_answers_and_no_others(name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    task, wrong = ReasoningGym(), "zzz 987654321"
    for index in range(2):
        meta = made_by(name, index)
        entry = _entry(meta)
        assert isinstance(entry["question"], str) and entry["answer"] and isinstance(entry["answer"], str)
        assert entry.keys() == {"question", "answer", "metadata"}, "text only"
        assert task.verify(entry["answer"], entry["answer"], json.loads(json.dumps(meta))) is True
        for text in (wrong, "", CANARY, f"int({CANARY})"):
            score = task.score(entry["answer"], text, meta)
            assert score is not None and 0.0 <= score < 1.0
    assert not (tmp_path / "ran").exists(), "an answer was run as a program"


def test_problems_are_the_same_in_another_process() -> None:
    code = "import json; from tests.model_core.tasks.test_reasoning_gym import digests; print(json.dumps(digests()))"
    done = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, check=True, timeout=120,
        env={**os.environ, "PYTHONHASHSEED": "12345"},
    )
    assert json.loads(done.stdout) == digests()


@pytest.mark.parametrize("name", LEFT_OUT)
def test_what_is_left_out_is_refused_with_the_reason_and_the_reason_is_true(name: str) -> None:
    from reasoning_gym.factory import DATASETS, create_dataset

    with pytest.raises(ConfigError, match="is not offered: ") as refused:
        ReasoningGym.Config.parse({"dataset": name})
    assert refused.value.field == "dataset" and LEFT_OUT[name] in refused.value.message
    if LEFT_OUT[name] == _RUNS_ANSWERS:
        assert re.search(r"\b(eval|parse_expr)\(.*answer", inspect.getsource(DATASETS[name][0]))
    if LEFT_OUT[name] == _NO_ANSWER:
        assert create_dataset(name, seed=1, size=3)[0]["answer"] is None


def test_rows_have_no_demonstration_are_seeded_and_split_by_construction() -> None:
    first = rows(dataset="basic_arithmetic")
    assert first == rows(dataset="basic_arithmetic") != rows(dataset="basic_arithmetic", seed=1)
    assert len({row["prompt"] for _split, row in first}) == 16
    assert all(row["completion"] is None and is_held_out(row["prompt"]) == (split == "held_out") for split, row in first)
    assert [split for split, _row in first].count("held_out") == 4
    assert json.loads(json.dumps(first[0][1])) == first[0][1]


def test_levels_are_those_of_the_librarys_curriculum() -> None:
    found = [row for _split, row in rows(num_train=60, num_held_out=1, dataset="chain_sum", min_level=1, max_level=3)]
    num_terms = {level: {len(re.findall(r"[-+]", row["prompt"])) for row in found if row["level"] == level} for level in (1, 2, 3)}
    assert num_terms == {1: {1}, 2: {2}, 3: {3}}
    task = ReasoningGym()
    assert all(task.verify(row["answer"], row["answer"], row["meta"]) for row in found)


def test_settings_are_the_datasets_own() -> None:
    found = rows(dataset="chain_sum", settings={"min_terms": 6, "max_terms": 6})
    assert {len(re.findall(r" [-+] ", row["prompt"])) for _split, row in found} == {5}


@pytest.mark.parametrize(("values", "sentence"), [
    ({"dataset": "magic"}, "dataset: Input should be 'ab'"),
    ({"max_level": 2}, "set min_level 1"),
    ({"min_level": 2, "max_level": 1}, "min_level is 2, above max_level 1"),
    ({"min_level": 1, "max_level": 40}, "has 11 levels; 12 is above"),
    ({"dataset": "gsm_symbolic", "min_level": 1, "max_level": 1}, "has no levels"),
    ({"dataset": "caesar_cipher", "min_level": 3, "max_level": 3}, "no problems of level 3 of caesar_cipher"),
    ({"settings": {"magic": 1}}, "no setting “magic”. It has: .*max_terms"),
    ({"settings": {"seed": 1}}, "no setting “seed”"),
    ({"settings": {"min_terms": 0}}, "min_terms must be positive"),
    ({"settings": {"min_terms": "many"}}, "reasoning-gym makes no problems of chain_sum"),
])  # fmt: skip
def test_what_the_library_would_not_take_is_refused_before_anything_is_made(values: dict[str, Any], sentence: str) -> None:
    asked = {"source": "generated", "source_config": {"task": "reasoning_gym", "task_config": values}}
    with pytest.raises(ModelCoreError, match=sentence) as refused:
        PrepareConfig.parse(asked)
    assert refused.value.field.startswith("source_config.task_config")


def test_a_level_that_breaks_while_it_makes_problems_and_a_dataset_that_runs_out_are_told() -> None:
    with pytest.raises(ConfigError, match="no problems of level 5 of spell_backward"):
        rows(dataset="spell_backward", min_level=5, max_level=5, num_train=50)
    with pytest.raises(ConfigError, match=r"num_train is 9000, but only .* choose another dataset or harder levels") as refused:
        rows(num_train=9000, dataset="chain_sum", settings={"min_terms": 2, "max_terms": 2, "min_digits": 1, "max_digits": 1})
    assert refused.value.field == "source_config.num_train"


def test_what_cannot_be_asked_is_unscored_and_what_cannot_be_read_is_wrong() -> None:
    [(_split, row)] = rows(num_train=1, num_held_out=0)
    reward = SolutionAccuracy()

    def value(answer: str, *, expected: str = row["answer"], meta: dict[str, Any] = row["meta"]) -> float | None:
        completion = f"<think></think>{answer}"
        return reward(Sample(row["prompt"], completion, expected, "reasoning_gym", 5, "stop", meta)).value

    assert value(row["answer"]) == 1.0 and value("no number") == 0.0
    assert value(row["answer"], meta={}) is None, "a row of unknown origin"
    assert value("5", expected="another problem's") is None, "made by another release"
    meta = made_by("prime_factorization")
    assert value("no factors", expected=_entry(meta)["answer"], meta=meta) == 0.0, "its verifier raises on such a text"


def test_a_rubric_asks_the_library_in_a_process_that_it_can_end() -> None:
    [(_split, row)] = rows(num_train=1, num_held_out=0)
    rubric = Rubric(RewardConfig.parse({"weights": {"solution_accuracy": 1.0}, "settings": {"solution_accuracy": {"deadline_seconds": 60.0}}}))
    samples = [
        Sample(row["prompt"], f"<think></think>{answer}", row["answer"], "reasoning_gym", 5, "stop", row["meta"])
        for answer in (row["answer"], "no number")
    ]
    assert [(scored.total, scored.correct) for scored in rubric.score(samples)] == [(1.0, True), (0.0, False)]


def test_equations_of_a_reasoning_are_checked_and_nothing_else_is_claimed() -> None:
    task = ReasoningGym()
    assert task.check_steps("any", "1+1=2 and 2*3=7") == (1, 1)
    assert task.check_steps("any", "so it is") == (0, 0) and task.conclusion("any", "1+1=2") is None


def test_looking_at_the_tasks_does_not_load_the_library() -> None:
    code = (
        "import sys\nfrom model_core.tasks import TASKS\nTASKS.get('reasoning_gym').Config.parse({'dataset': 'sudoku'})\n"
        "print('reasoning_gym' in sys.modules)"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True, timeout=60)
    assert done.stdout == "False\n"


@pytest.mark.parametrize("name", TASKS.names())
def test_any_task_is_a_source_with_its_own_settings(name: str) -> None:
    config = Generated.Config.parse({"task": name, "num_train": 5, "num_held_out": 2})
    assert config.task_config == TASKS.get(name).Config.parse({}).resolved()
    found = list(Generated(config).split_rows(0))
    assert sorted(split for split, _row in found) == ["held_out"] * 2 + ["train"] * 5
    assert {row["task"] for _split, row in found} == {name} and all(isinstance(row["level"], int) for _split, row in found)
