"""Sends a Celery task by its name once the transaction is committed."""

from __future__ import annotations

import logging
from typing import Any

from django.db import transaction
from kombu.exceptions import OperationalError

from r1platform.celery import app

logger = logging.getLogger(__name__)


def send_on_commit(name: str, *args: int, **options: Any) -> None:
    """A broker that is away costs only the wait: the beat looks at everything every few seconds."""

    def send() -> None:
        try:
            app.send_task(name, args=args, retry=False, ignore_result=True, **options)
        except OperationalError as error:
            logger.warning("%s%s was not sent and waits for the next beat: %s.", name, args, error)

    transaction.on_commit(send)
