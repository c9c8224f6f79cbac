"""Celery: starts and reconciles, never owns a run. A node's worker consumes "platform" and the queue named after it."""

from __future__ import annotations

import os
from typing import Any

from celery import Celery
from celery.signals import worker_ready

os.environ.setdefault("DJANGO_SETTINGS_MODULE", "r1platform.settings")
app = Celery("r1platform")
app.config_from_object("django.conf:settings", namespace="CELERY")
app.autodiscover_tasks()


@worker_ready.connect
def register_node(**_: Any) -> None:
    """The worker that starts is this node: it says so, and `up` sees that it is ready."""
    from r1platform.nodes import node_register, ready_mark

    node_register()
    ready_mark().parent.mkdir(parents=True, exist_ok=True)
    ready_mark().write_text(str(os.getpid()))
