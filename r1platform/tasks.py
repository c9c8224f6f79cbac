"""Celery tasks of the plumbing: the heartbeat of every node, each on its own queue; what webhooks are sent; what is kept
for a day goes.

A delivery may take the seconds that `r1platform.lib.outbound` gives a stranger to answer; everything else is under one.
"""

from __future__ import annotations

from celery import shared_task

from r1platform import idempotency, nodes, webhooks
from r1platform.models import Node


@shared_task
def nodes_ask() -> None:
    """Asks every known node to say that it is up; one that is down lets the message expire."""
    for name in Node.objects.values_list("name", flat=True):
        node_heartbeat.apply_async(queue=name, expires=20)


@shared_task
def node_heartbeat() -> None:
    """Runs on the node's own worker."""
    nodes.node_heartbeat()


@shared_task
def webhooks_due() -> None:
    """Asks for another attempt at what has not arrived."""
    for delivery_id in webhooks.deliveries_due():
        webhook_deliver.apply_async((delivery_id,), expires=30)


@shared_task
def webhook_deliver(delivery_id: int) -> None:
    """One attempt; one that comes second finds the row claimed."""
    webhooks.webhook_deliver(delivery_id)


@shared_task
def request_keys_forget() -> None:
    """Frees `Idempotency-Key`s whose day is over."""
    idempotency.request_keys_forget()
