"""Ends the engines of this node when the node ends; what is wanted stays, so the next start brings them back."""

from __future__ import annotations

import logging
import time

from django.conf import settings

from serving_app.models import Replica
from serving_app.placement import DRAIN_SECONDS
from serving_app.states import REPLICA_ENDS, ReplicaState

logger = logging.getLogger(__name__)
WAIT_SECONDS = 60.0
_POLL_SECONDS = 0.1


def stop_engines(*, seconds: float = WAIT_SECONDS) -> bool:
    """Asks every supervisor of this node to end its engine, waits, and says whether all have."""
    living = Replica.objects.filter(node__name=settings.R1_NODE_NAME).exclude(state__in=REPLICA_ENDS)
    living.exclude(state=ReplicaState.QUEUED).update(
        stop_wanted=True, state_reason="The node is shutting down.", drain_seconds=DRAIN_SECONDS
    )
    deadline = time.monotonic() + seconds
    while living.exists():
        if time.monotonic() > deadline:
            logger.warning("%s engines are still there after %.0f s.", living.count(), seconds)
            return False
        time.sleep(_POLL_SECONDS)
    return True
