"""A node's own row and devices: registered when its worker starts, kept fresh by its heartbeat."""

from __future__ import annotations

from pathlib import Path
from typing import Any
from urllib.parse import quote

from django.conf import settings
from django.db import transaction
from django.db.models import Q
from django.db.models.functions import Now

from r1platform.lib.hardware import hardware_find
from r1platform.lib.processes import boot_id
from r1platform.lib.storage import home
from r1platform.models import Device, DeviceKind, Node


def node_register(*, name: str = "", address: str = "") -> Node:
    """Writes down this machine under its name with what it has, and that it is up."""
    found = hardware_find(Path(settings.R1_HOME))
    defaults = {
        "address": address or settings.R1_NODE_ADDRESS,
        "boot_id": boot_id(),
        "hardware": found,
        "heartbeat_at": Now(),
    }
    with transaction.atomic():
        node, _ = Node.objects.update_or_create(name=name or settings.R1_NODE_NAME, defaults=defaults)
        _sync_devices(node, found)
    node.refresh_from_db()
    return node


def node_heartbeat(*, name: str = "") -> None:
    """Says that this node is up; silent while it is being shut down, so that it gets no new work."""
    if not ending_mark().exists():
        node_register(name=name)


def node_leave(*, name: str = "") -> None:
    """The node takes no work from now on; `up` calls it before it asks the running attempts to end."""
    ending_mark().parent.mkdir(parents=True, exist_ok=True)
    ending_mark().touch()
    Node.objects.filter(name=name or settings.R1_NODE_NAME).update(heartbeat_at=None)


def ending_mark() -> Path:
    """Exists from the beginning of a shutdown of this node to its next start; several nodes may share one home."""
    return home() / "nodes" / f"{quote(settings.R1_NODE_NAME, safe='')}.ending"


def ready_mark() -> Path:
    """Written by this node's worker once it consumes; holds its pid."""
    return home() / "nodes" / f"{quote(settings.R1_NODE_NAME, safe='')}.ready"


def _sync_devices(node: Node, found: dict[str, Any]) -> None:
    wanted = _devices(found)
    kept = {(device.kind, device.index): device for device in node.devices.all()}
    for (kind, index), values in wanted.items():
        Device.objects.update_or_create(node=node, kind=kind, index=index, defaults=values)
    gone = [device.pk for key, device in kept.items() if key not in wanted]
    node.devices.filter(pk__in=gone).exclude(Q(leases__isnull=False) & Q(leases__released_at=None)).delete()


def _devices(found: dict[str, Any]) -> dict[tuple[str, int], dict[str, Any]]:
    """GPUs where there are some, else one device per CPU core: a run of two processes needs two."""
    if found["gpus"]:
        return {
            (DeviceKind.CUDA, gpu["index"]): {key: gpu[key] for key in ("name", "memory_bytes", "uuid")}
            for gpu in found["gpus"]
        }
    num = found["num_cpus"]
    share = {"name": found["cpu"][:120], "memory_bytes": found["memory_bytes"] // num, "uuid": ""}
    return {(DeviceKind.CPU, index): share for index in range(num)}
