"""Who may use which device. A claim takes all it asks for or nothing; a unique constraint is the second wall."""

from __future__ import annotations

from datetime import timedelta

from django.db import transaction
from django.db.models import Max, QuerySet
from django.db.models.functions import Now

from r1platform.models import Device, DeviceKind, DeviceLease, Node

NODE_ALIVE = timedelta(seconds=60)
"""A node that has not been heard of for longer gets no new work."""


class NoDevice(Exception):
    """Not enough free devices; the message says who holds them. Wait, stop something, or ask for fewer."""


def leases_claim(
    *, holder: str, num: int, node: Node | None = None, kind: DeviceKind | None = None
) -> list[DeviceLease]:
    """Claims `num` devices for `holder`, on one node when one has enough, else over several.

    Claiming again what the holder has returns the same leases. GPUs are taken before CPU shares. Raises NoDevice.
    """
    assert num >= 1, "a claim of nothing"
    with transaction.atomic():
        devices = list(_candidates(node, kind).select_for_update(of=("self",)).select_related("node"))
        live = {lease.device_id: lease for lease in _live().filter(device__in=devices)}
        mine = [lease for lease in live.values() if lease.holder == holder]
        if mine:
            assert len(mine) == num, f"{holder} holds {len(mine)} devices and asks for {num}"
            return mine
        chosen = _choose([device for device in devices if device.pk not in live], num)
        if chosen is None:
            raise NoDevice(_why(num, devices, live))
        return [_lease(device, holder) for device in chosen]


def leases_release(*, holder: str) -> int:
    """Ends all leases of `holder`; call it when the process group is proven gone. Returns how many there were."""
    return _live().filter(holder=holder).update(released_at=Now())


def leases_of(holder: str) -> list[DeviceLease]:
    """Live leases of `holder` with device and node, in the order of the devices."""
    return list(_live().filter(holder=holder).select_related("device__node").order_by("device__node_id", "device__index"))


def _live() -> QuerySet[DeviceLease]:
    return DeviceLease.objects.filter(released_at=None)


def _candidates(node: Node | None, kind: DeviceKind | None) -> QuerySet[Device]:
    devices = Device.objects.filter(node__draining=False, node__heartbeat_at__gt=Now() - NODE_ALIVE).order_by("pk")
    if node is not None:
        devices = devices.filter(node=node)
    return devices if kind is None else devices.filter(kind=kind)


def _choose(free: list[Device], num: int) -> list[Device] | None:
    """Devices of one kind: on the node with the smallest sufficient number of free ones, else on as few as possible."""
    for kind in (DeviceKind.CUDA, DeviceKind.CPU):
        by_node: dict[int, list[Device]] = {}
        for device in free:
            if device.kind == kind:
                by_node.setdefault(device.node_id, []).append(device)
        enough = [devices for devices in by_node.values() if len(devices) >= num]
        if enough:
            smallest = sorted(enough, key=len)[0]
            return sorted(smallest, key=lambda device: device.index)[:num]
        together = [device for devices in sorted(by_node.values(), key=len, reverse=True) for device in devices]
        if len(together) >= num:
            return together[:num]
    return None


def _lease(device: Device, holder: str) -> DeviceLease:
    last = DeviceLease.objects.filter(device=device).aggregate(fence=Max("fence"))["fence"] or 0
    lease = DeviceLease.objects.create(device=device, holder=holder, fence=last + 1)
    lease.refresh_from_db(fields=["claimed_at"])
    return lease


def _why(num: int, devices: list[Device], live: dict[int, DeviceLease]) -> str:
    if not devices:
        return "No node is up: none has sent a heartbeat in the last minute, or all are draining."
    held = "; ".join(f"{device} is held by {live[device.pk].holder}" for device in devices if device.pk in live)
    free = len(devices) - len(live)
    return f"{num} devices are wanted and {free} of {len(devices)} are free{': ' + held if held else ''}."
