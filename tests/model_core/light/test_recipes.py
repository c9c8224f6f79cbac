"""The article's chain can be run as it stands: each phase has what it needs from phases before it."""

from __future__ import annotations

import json

import pytest

from model_core.config import RunConfig
from model_core.phases import PHASES
from model_core.recipes import PhaseRecipe, article_recipe

CHAIN = article_recipe()


def test_compute_and_gates_are_the_articles() -> None:
    assert [recipe.phase for recipe in CHAIN] == ["cold_start", "reinforcement", "rejection_sampling"]
    assert [recipe.budget_fraction for recipe in CHAIN] == [0.15, 0.70, 0.15] and sum(recipe.budget_fraction for recipe in CHAIN) == 1
    assert [recipe.gate_threshold for recipe in CHAIN] == [0.75, 0.85, 0.90]


@pytest.mark.parametrize("place", range(len(CHAIN)))
def test_a_phase_starts_from_earlier_ones_as_it_needs(place: int) -> None:
    recipe, earlier = CHAIN[place], [before.name for before in CHAIN[:place]]
    needs = PHASES.get(recipe.phase).needs
    for name, source in (("start_from", recipe.starts_from), ("rollouts_from", recipe.rollouts_from)):
        assert source is None or source in earlier
        assert source is not None or needs[name] != "required"
        assert source is None or needs[name] != "no"


@pytest.mark.parametrize("recipe", CHAIN, ids=lambda recipe: recipe.name)
def test_a_recipe_is_data_that_a_run_takes(recipe: PhaseRecipe) -> None:
    config = RunConfig.parse(json.loads(json.dumps(recipe.config)))
    assert config.phase == recipe.phase and RunConfig.parse(config.resolved()) == config
    assert recipe.summary.endswith(".") and recipe.num_rows > 0
    metrics = RunConfig.model_fields["checkpoint"].annotation
    assert metrics is not None and metrics.parse({"metric": recipe.gate_metric}).metric == recipe.gate_metric


def test_the_seed_is_every_phases_and_changes_nothing_else() -> None:
    for seeded, plain in zip(article_recipe(seed=5), CHAIN, strict=True):
        assert seeded.config == {**plain.config, "seed": 5} and seeded.name == plain.name
    assert len({recipe.name for recipe in CHAIN}) == len(CHAIN)
