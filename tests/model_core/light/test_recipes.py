"""The article's chain can be run as it stands: each phase has what it needs from phases before it."""

from __future__ import annotations

import json

import pytest

from model_core.config import RunConfig
from model_core.phases import PHASES
from model_core.recipes import PhaseRecipe, article_recipe, distillation_recipe, r1_recipe

CHAIN = article_recipe()
CHAINS = {"article": article_recipe, "r1": r1_recipe, "distillation": distillation_recipe}
PLACES = [(chain, place) for chain, recipe in CHAINS.items() for place in range(len(recipe()))]


def test_compute_and_gates_are_the_articles() -> None:
    assert [recipe.phase for recipe in CHAIN] == ["cold_start", "reinforcement", "rejection_sampling"]
    assert [recipe.budget_fraction for recipe in CHAIN] == [0.15, 0.70, 0.15] and sum(recipe.budget_fraction for recipe in CHAIN) == 1
    assert [recipe.gate_threshold for recipe in CHAIN] == [0.75, 0.85, 0.90]


@pytest.mark.parametrize(("chain", "place"), PLACES)
def test_a_phase_starts_from_earlier_ones_as_it_needs(chain: str, place: int) -> None:
    phases = CHAINS[chain]()
    recipe, earlier = phases[place], [before.name for before in phases[:place]]
    needs = PHASES.get(recipe.phase).needs
    for name, source in (("start_from", recipe.starts_from), ("rollouts_from", recipe.rollouts_from)):
        assert source is None or source in earlier
        assert source is not None or needs[name] != "required"
        assert source is None or needs[name] != "no"


@pytest.mark.parametrize("recipe", CHAIN + r1_recipe() + distillation_recipe(), ids=lambda recipe: recipe.name)
def test_a_recipe_is_data_that_a_run_takes(recipe: PhaseRecipe) -> None:
    config = RunConfig.parse(json.loads(json.dumps(recipe.config)))
    assert config.phase == recipe.phase and RunConfig.parse(config.resolved()) == config
    assert recipe.summary.endswith(".") and recipe.num_rows > 0
    metrics = RunConfig.model_fields["checkpoint"].annotation
    assert metrics is not None and metrics.parse({"metric": recipe.gate_metric}).metric == recipe.gate_metric


def test_the_seed_is_every_phases_and_changes_nothing_else() -> None:
    for recipe in CHAINS.values():
        for seeded, plain in zip(recipe(seed=5), recipe(), strict=True):
            assert seeded.config == {**plain.config, "seed": 5} and seeded.name == plain.name
        assert len({phase.name for phase in recipe()}) == len(recipe())


def test_the_papers_chain_has_its_order_and_its_reward() -> None:
    chain = r1_recipe()
    assert [phase.phase for phase in chain] == ["cold_start", "reinforcement", "rejection_sampling", "reinforcement", "distillation"]
    assert sum(phase.budget_fraction for phase in chain) == pytest.approx(1) and chain[2].starts_from is None
    weights = RunConfig.parse(chain[1].config).reward.weights
    assert set(weights) == {"solution_accuracy", "language_consistency", "format"} and len(set(weights.values())) == 1
