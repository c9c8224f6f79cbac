"""The REST resources of serving; what they do is in `serving_app.services`."""

from __future__ import annotations

from rest_framework.routers import BaseRouter

from serving_app.api.benchmarks import DeploymentBenchmarks
from serving_app.api.conversations import Conversations
from serving_app.api.deployments import Deployments
from serving_app.api.engines import Engines
from serving_app.api.imports import ImportedModels
from serving_app.api.judgements import Judgements
from serving_app.api.presets import Presets
from serving_app.api.usage import Usage


def register(router: BaseRouter) -> None:
    """Adds them to the platform's router."""
    router.register("deployments", Deployments, basename="deployment")
    router.register("deployment-benchmarks", DeploymentBenchmarks, basename="deployment-benchmark")
    router.register("imported-models", ImportedModels, basename="imported-model")
    router.register("conversations", Conversations, basename="conversation")
    router.register("judgements", Judgements, basename="judgement")
    router.register("presets", Presets, basename="preset")
    router.register("engines", Engines, basename="engine")
    router.register("usage", Usage, basename="usage")
