"""The plot of layer-wise learning rates: the trainer's own factors, on a run's page and beside the forms."""

from __future__ import annotations

import json
from typing import Any

import pytest
from django.contrib.auth.models import User
from django.test import Client
from django.urls import reverse

from model_core.config import RunConfig
from model_core.config.rates import RateFactors, rate_factor_of
from model_core.planner import DenseModel, shape_of
from r1platform.models import Node, Project
from tests.pages.b_rows import make_checkpoint, make_run
from tests.pages.test_a_pipelines import pipeline, sent_by
from training_app import selectors
from training_app.models import Pipeline

__all__ = ["pipeline"]
pytestmark = pytest.mark.django_db
RATES = {"layer_lr_decay": 0.5, "lr_factors": {"attention": 0.25, "head": 0.0, "router": 2.0}}
NAMES = {
    "embedding": "model.embed_tokens.weight", "attention": "model.layers.{}.self_attn.o_proj.weight", "head": "lm_head.weight",
    "mlp": "model.layers.{}.mlp.down_proj.weight", "experts": "model.layers.{}.mlp.experts.down_proj",
    "router": "model.layers.{}.mlp.gate.weight", "norm": "model.layers.{}.input_layernorm.weight",
}  # fmt: skip


def config_of(phase: str, **values: Any) -> RunConfig:
    return RunConfig.parse({"phase": phase, "phase_config": {**RATES, **values.pop("phase_config", {})}, **values})


@pytest.mark.parametrize("phase", ["cold_start", "reinforcement", "distillation"])
def test_the_factors_are_those_of_the_trainers_groups(phase: str) -> None:
    config = config_of(phase)
    shape, found = shape_of(config), selectors.rate_plot(config, shape_of(config))
    assert found is not None and found["parts"][0] == "embedding" and found["parts"][-1] == "head" and not found["is_even"]
    seen = 0
    for line in found["kinds"]:
        for part, factor in zip(found["parts"], line["factors"], strict=True):
            if factor is None or (part == "head" and line["kind"] == "norm"):
                continue
            name = NAMES[line["kind"]].format(part.removeprefix("block "))
            wanted = rate_factor_of(name, shape, layer_lr_decay=0.5, lr_factors=RateFactors.parse(RATES["lr_factors"]))
            assert factor == pytest.approx(wanted), (part, line["kind"])
            seen += 1
    assert seen >= 3 * shape.num_hidden_layers + 2
    assert isinstance(shape, DenseModel) == (phase == "distillation") == ("experts" not in {k["kind"] for k in found["kinds"]})


def test_equal_rates_say_so() -> None:
    config = RunConfig.parse({"phase": "cold_start"})
    found = selectors.rate_plot(config, shape_of(config))
    assert found is not None and found["is_even"]


def test_a_run_has_the_shape_that_it_goes_back_to(project: Project, node: Node) -> None:
    first = make_run(project, phase="cold_start", config={"model": {"num_hidden_layers": 5}})
    second = make_run(project, starts_from=make_checkpoint(first, node), config={"phase_config": RATES})
    third = make_run(project, starts_from=make_checkpoint(second, node), config={"phase_config": RATES})
    for run in (second, third):
        found = selectors.run_rates(run)
        assert found is not None and found["parts"] == ["embedding", *(f"block {n}" for n in range(5)), "head"]
    assert selectors.run_rates(make_run(project, config={"phase_config": {"of_an_older_version": 1}})) is None


def test_the_config_tab_draws_them(project: Project, client_alice: Client) -> None:
    run = make_run(project, phase="cold_start", config={"phase_config": RATES})
    page = client_alice.get(reverse("run-detail", args=[run.pk, "config"])).content.decode()
    assert "js/rates.js" in page and json.dumps(selectors.run_rates(run)) in page.replace("\\u003C", "<")


def test_beside_the_form_they_follow_what_is_filled_in(
    project: Project, node: Node, client_erin: Client, client_charlie: Client
) -> None:
    page = client_erin.get(reverse("run-new"), {"phase": "cold_start"})
    url, sent = page.context["rates_url"], {}
    for name in page.context["config"].fields:
        value = page.context["config"][name].value()
        if value not in (None, False):
            sent[f"config-{name}"] = str(value)
    told = client_erin.post(url, {**sent, "config-phase_config.layer_lr_decay": "0.5", "config-model.num_hidden_layers": "2"}).json()
    assert told["parts"] == ["embedding", "block 0", "block 1", "head"]
    assert next(k["factors"] for k in told["kinds"] if k["kind"] == "attention") == [None, 0.5, 1.0, None]
    start = make_checkpoint(make_run(project, phase="cold_start", config={"model": {"num_hidden_layers": 7}}), node)
    assert len(client_erin.post(url, {**sent, "starts_from": start.pk}).json()["parts"]) == 9
    assert len(client_charlie.post(url, {**sent, "starts_from": start.pk}).json()["parts"]) == 5, "not theirs, so not taken"
    refused = client_erin.post(url, {**sent, "config-phase_config.layer_lr_decay": "7"}).json()
    assert "mended" in refused["detail"] and "parts" not in refused


def test_a_phases_form_has_them_too_and_only_for_members(
    pipeline: Pipeline, alice: User, client_alice: Client, client_bob: Client, client_charlie: Client
) -> None:
    later = pipeline.phases.exclude(starts_from=None).first()
    assert later is not None
    page = client_alice.get(reverse("phase-edit", args=[pipeline.pk, later.pk]))
    url = page.context["rates_url"]
    told = client_alice.post(url, sent_by(page, **{"phase_config.layer_lr_decay": "0.5"})).json()
    assert told["parts"][1:-1] == ["block 0", "block 1", "block 2"] and not told["is_even"]
    assert client_bob.post(url).json()["is_even"], "whoever may only look sees those that are stored"
    assert client_charlie.post(url).status_code == 404
    assert Client().post(url).status_code == 302
