"""An address of every kind of page, on the rows of one demo: what is photographed, and what is checked for accessibility."""

from __future__ import annotations

from collections.abc import Mapping

PAGES: dict[str, str] = {
    "overview": "/", "datasets": "/datasets/", "dataset-new": "/datasets/new/?from=generated", "dataset": "/datasets/{dataset}/",
    "version": "/datasets/{dataset}/versions/{number}/", "pipelines": "/pipelines/", "pipeline-new": "/pipelines/new/",
    "pipeline": "/pipelines/{pipeline}/", "phase": "/pipelines/{pipeline}/phases/{phase}/", "launch": "/launches/{launch}/",
    "runs": "/runs/", "run-charts": "/runs/{run}/", "run-rollouts": "/runs/{run}/rollouts/", "run-rewards": "/runs/{run}/rewards/",
    "run-experts": "/runs/{run}/experts/", "run-logs": "/runs/{run}/logs/", "run-checkpoints": "/runs/{run}/checkpoints/",
    "run-config": "/runs/{run}/config/", "run-history": "/runs/{run}/history/", "run-new": "/runs/new/?phase=reinforcement",
    "compare": "/runs/compare/?runs={run}", "run-report": "/runs/{run}/report/", "version-new": "/datasets/{dataset}/versions/new/",
    "benchmark-files": "/datasets/benchmarks/", "held-out": "/evaluations/held-out/",
    "pipeline-code": "/pipelines/{pipeline}/code/", "phase-new": "/pipelines/{pipeline}/phases/new/",
    "evaluations": "/evaluations/", "evaluation-new": "/evaluations/new/", "cost": "/usage/training/",
    "deployments": "/deployments/", "deployment": "/deployments/{deployment}/",
    "deployment-new": "/deployments/new/", "imported-models": "/deployments/models/",
    "deployment-revise": "/deployments/{deployment}/revise/",
    "load-benchmarks": "/deployments/{deployment}/benchmarks/", "load-benchmark-new": "/deployments/{deployment}/benchmarks/new/",
    "load-benchmark": "/deployments/{deployment}/benchmarks/{load}/",
    "playground": "/playground/", "conversation": "/playground/{conversation}/", "review": "/playground/review/",
    "judged-datasets": "/playground/datasets/", "win-rates": "/playground/win-rates/",
    "alerts": "/runs/alerts/", "settings-alerts": "/settings/alerts/", "settings-webhooks": "/settings/webhooks/",
    "usage": "/usage/", "nodes": "/nodes/", "settings": "/settings/", "settings-keys": "/settings/keys/",
    "settings-audit": "/settings/audit/", "styleguide": "/styleguide/", "api-docs": "/api/v1/docs/",
}  # fmt: skip
"""Name of a page → its address, with the ids that it needs in braces."""


def addresses(ids: Mapping[str, int]) -> dict[str, str]:
    """Every page with its ids filled in."""
    return {name: path.format_map(ids) for name, path in PAGES.items()}
