"""Asks the platform's workers to look at one deployment, or to start one supervisor, soon.

Sent by name after commit. A broker that is away costs only the wait: the beat looks at everything every few seconds.
"""

from __future__ import annotations

import logging
from typing import Any

from django.db import transaction
from kombu.exceptions import OperationalError

from r1platform.celery import app

logger = logging.getLogger(__name__)


def ask_to_reconcile(deployment_id: int) -> None:
    """Has `tasks.reconcile_one` run on any worker."""
    _send_on_commit("serving_app.tasks.reconcile_one", deployment_id)


def ask_to_supervise(replica_id: int, fence: int, *, node_name: str) -> None:
    """Has `tasks.supervise` run on the node that the replica was placed on."""
    _send_on_commit("serving_app.tasks.supervise", replica_id, fence, queue=node_name)


def _send_on_commit(name: str, *args: int, **options: Any) -> None:
    def send() -> None:
        try:
            app.send_task(name, args=args, retry=False, ignore_result=True, **options)
        except OperationalError as error:
            logger.warning("%s%s was not sent and waits for the next beat: %s.", name, args, error)

    transaction.on_commit(send)
