"""Asks the platform's workers to look at one deployment, start a benchmark or one supervisor, soon after commit."""

from __future__ import annotations

from r1platform.lib.sending import send_on_commit


def ask_to_reconcile(deployment_id: int) -> None:
    """Has `tasks.reconcile_one` run on any worker."""
    send_on_commit("serving_app.tasks.reconcile_one", deployment_id)


def ask_to_benchmark() -> None:
    """Has `tasks.benchmarks` run on any worker."""
    send_on_commit("serving_app.tasks.benchmarks", expires=10)


def ask_to_supervise(replica_id: int, fence: int, *, node_name: str) -> None:
    """Has `tasks.supervise` run on the node that the replica was placed on."""
    send_on_commit("serving_app.tasks.supervise", replica_id, fence, queue=node_name)
