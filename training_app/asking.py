"""Asks the platform's workers to look at the queue, or a node to start a supervisor, as soon as this is committed."""

from __future__ import annotations

from r1platform.lib.sending import send_on_commit


def ask_to_schedule() -> None:
    """Has `tasks.schedule` run on any worker; without a broker the beat does it within seconds."""
    send_on_commit("training_app.tasks.schedule", expires=10)


def ask_to_supervise(attempt_id: int, fence: int, *, node_name: str) -> None:
    """Has `tasks.supervise` run on the node that holds the attempt's devices."""
    send_on_commit("training_app.tasks.supervise", attempt_id, fence, queue=node_name)


def ask_to_reclaim(attempt_id: int, *, node_name: str) -> None:
    """Has `tasks.reclaim` run on the node whose devices an ended attempt still holds."""
    send_on_commit("training_app.tasks.reclaim", attempt_id, queue=node_name)
