"""Celery tasks of the plumbing: the heartbeat of every node, each on its own queue."""

from __future__ import annotations

from celery import shared_task

from r1platform import nodes
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
