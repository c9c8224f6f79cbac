"""Brings the attempts of this node to a safe end when the node ends; their runs wait for the next start."""

from __future__ import annotations

import logging
import time

from django.conf import settings
from django.db.models.functions import Now

from model_core.rundir import RunDir
from r1platform.lib.storage import run_dir
from training_app.models import RunAttempt
from training_app.states import LIVE_ATTEMPTS

logger = logging.getLogger(__name__)
WAIT_SECONDS = 90.0
_POLL_SECONDS = 0.1
REASON = "The node is shutting down."


def attempts_release(*, node: str = "", seconds: float = WAIT_SECONDS) -> bool:
    """Asks by stop file, which the trainer reads at its next step, waits, and says whether all attempts have ended.

    Nothing is changed in what people want of the run, so its supervisor queues it again.
    """
    living = RunAttempt.objects.filter(node__name=node or settings.R1_NODE_NAME, state__in=LIVE_ATTEMPTS)
    deadline = time.monotonic() + seconds
    asked: set[int] = set()
    while rows := list(living.values_list("pk", "run_id", "number")):
        for pk, run_id, number in rows:
            rundir = RunDir(run_dir(run_id, number))
            if pk not in asked and rundir.path.is_dir():
                rundir.ask_to_stop(REASON)
                RunAttempt.objects.filter(pk=pk, stop_asked_at=None).update(stop_asked_at=Now())
                asked.add(pk)
        if time.monotonic() > deadline:
            logger.warning("%s attempts are still there after %.0f s; the next start adopts them.", len(rows), seconds)
            return False
        time.sleep(_POLL_SECONDS)
    return True
