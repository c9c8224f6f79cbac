"""The REST resources of training; what they do is in `training_app.services`."""

from __future__ import annotations

from rest_framework.routers import BaseRouter

from training_app.api import datasets
from training_app.api.alerts import AlertRules, Alerts
from training_app.api.costs import Costs
from training_app.api.evaluations import Benchmarks, Evaluations
from training_app.api.measurements import Measurements
from training_app.api.pipelines import Launches, Pipelines, PipelineTemplates
from training_app.api.runs import Checkpoints, Runs
from training_app.api.schemas import Phases, Rewards


def register(router: BaseRouter) -> None:
    """Adds them to the platform's router."""
    datasets.register(router)
    router.register("pipeline-templates", PipelineTemplates, basename="pipeline-template")
    router.register("pipelines", Pipelines, basename="pipeline")
    router.register("launches", Launches, basename="launch")
    router.register("runs", Runs, basename="run")
    router.register("checkpoints", Checkpoints, basename="checkpoint")
    router.register("alert-rules", AlertRules, basename="alert-rule")
    router.register("alerts", Alerts, basename="alert")
    router.register("costs", Costs, basename="cost")
    router.register("measurements", Measurements, basename="measurement")
    router.register("benchmarks", Benchmarks, basename="benchmark")
    router.register("evaluations", Evaluations, basename="evaluation")
    router.register("phases", Phases, basename="phase")
    router.register("rewards", Rewards, basename="reward")
