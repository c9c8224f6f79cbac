"""The article's gates separate what was learnt from what was not: decided on real trainings with the default recipe."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from model_core.config import PrepareConfig, RunConfig, RunPaths
from model_core.preparation import prepare
from model_core.recipes import article_recipe
from model_core.rundir import RunDir
from tests.model_core import forked
from training_app.gates import gate_decide
from training_app.models import PhaseRun
from training_app.pipeline_templates.article import Article
from training_app.states import GateVerdict

pytestmark = pytest.mark.timeout(280)


@pytest.fixture(scope="module")
def dataset(tmp_path_factory: pytest.TempPathFactory) -> Path:
    directory = tmp_path_factory.mktemp("gates") / "data"
    prepare(PrepareConfig.parse(Article().prepare()), out=directory)
    return directory


def trained(directory: Path, dataset: Path, **phase_config: Any) -> dict[str, Any]:
    """result.json of the recipe's cold start."""
    (recipe,) = (one for one in article_recipe() if one.name == "cold-start")
    config = {**recipe.config, "phase_config": {**recipe.config.get("phase_config", {}), **phase_config}}
    rundir = RunDir.create(directory / "run", run=RunConfig.parse(config), paths=RunPaths(dataset=str(dataset)))
    forked.run(["train", str(rundir.path)], output=rundir.log, seconds=270)
    result = rundir.read_result()
    assert result is not None and result["status"] == "succeeded", rundir.log.read_text()[-2000:]
    assert result["num_problems"] >= 500
    return result


def verdict(result: dict[str, Any], threshold: float) -> str:
    return gate_decide(PhaseRun(gate_metric="quality_low", gate_threshold=threshold), result).verdict


def test_a_short_cold_start_is_held_at_its_gate(tmp_path: Path, dataset: Path) -> None:
    result = trained(tmp_path, dataset, steps=60)
    assert verdict(result, 0.75) == GateVerdict.HELD


@pytest.mark.slow
def test_a_cold_start_passes_its_gate_and_not_that_of_reinforcement(tmp_path: Path, dataset: Path) -> None:
    result = trained(tmp_path, dataset)
    assert verdict(result, 0.75) == GateVerdict.PASSED
    assert verdict(result, 0.85) == GateVerdict.HELD
