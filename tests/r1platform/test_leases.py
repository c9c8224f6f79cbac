"""A device has one holder; a claim takes all it asks for or nothing."""

from __future__ import annotations

import threading
from datetime import timedelta

import pytest
from django.db import IntegrityError, connection, transaction
from django.db.models.functions import Now

from r1platform.lib.leases import NoDevice, leases_claim, leases_of, leases_release
from r1platform.models import Device, DeviceKind, DeviceLease, Node


def add_node(name: str, kind: DeviceKind, num: int) -> Node:
    node = Node.objects.create(name=name, heartbeat_at=Now())
    for index in range(num):
        Device.objects.create(node=node, kind=kind, index=index, name=kind)
    return node


def test_claim_hold_release_claim_again(node: Node) -> None:
    first = leases_claim(holder="attempt:1", num=2)
    assert [lease.device.index for lease in first] == [0, 1]
    with pytest.raises(NoDevice, match=r"1 devices are wanted and 0 of 2 are free: .*attempt:1"):
        leases_claim(holder="attempt:2", num=1)
    assert leases_release(holder="attempt:1") == 2
    assert leases_release(holder="attempt:1") == 0
    again = leases_claim(holder="attempt:2", num=2)
    assert [lease.fence for lease in again] == [lease.fence + 1 for lease in first]
    assert [lease.pk for lease in leases_of("attempt:2")] == [lease.pk for lease in again]


def test_claiming_twice_gives_the_same_leases(node: Node) -> None:
    assert leases_claim(holder="a", num=1) == leases_claim(holder="a", num=1)
    assert DeviceLease.objects.count() == 1


def test_a_refused_claim_leaves_nothing(node: Node) -> None:
    with pytest.raises(NoDevice):
        leases_claim(holder="a", num=3)
    assert not DeviceLease.objects.exists()


@pytest.mark.parametrize("change", [{"draining": True}, {"heartbeat_at": None}])
def test_a_node_that_is_down_or_draining_gets_nothing(node: Node, change: dict[str, object]) -> None:
    Node.objects.update(**change)
    with pytest.raises(NoDevice, match="No node is up"):
        leases_claim(holder="a", num=1)


def test_an_old_heartbeat_is_no_heartbeat(node: Node) -> None:
    Node.objects.update(heartbeat_at=Now() - timedelta(minutes=2))
    with pytest.raises(NoDevice):
        leases_claim(holder="a", num=1)


def test_gpus_first_and_the_fitting_node(node: Node) -> None:
    big, small = add_node("big", DeviceKind.CUDA, 4), add_node("small", DeviceKind.CUDA, 2)
    assert {lease.device.node for lease in leases_claim(holder="a", num=2)} == {small}
    assert {lease.device.node for lease in leases_claim(holder="b", num=1)} == {big}
    spread = leases_claim(holder="c", num=3)
    assert {lease.device.kind for lease in spread} == {DeviceKind.CUDA}
    assert {lease.device.node for lease in leases_claim(holder="d", num=1)} == {node}
    assert {lease.device.node for lease in leases_claim(holder="e", num=1, node=node, kind=DeviceKind.CPU)} == {node}


def test_a_claim_may_spread_over_nodes(db: None) -> None:
    add_node("one", DeviceKind.CUDA, 2)
    add_node("two", DeviceKind.CUDA, 2)
    assert len({lease.device.node_id for lease in leases_claim(holder="a", num=4)}) == 2


def test_the_database_is_the_second_wall(node: Node) -> None:
    device = node.devices.first()
    assert device is not None
    DeviceLease.objects.create(device=device, holder="a")
    with pytest.raises(IntegrityError), transaction.atomic():
        DeviceLease.objects.create(device=device, holder="b")


@pytest.mark.django_db(transaction=True)
def test_of_racing_claims_only_as_many_win_as_there_are_devices() -> None:
    add_node("node", DeviceKind.CPU, 3)
    barrier, outcomes = threading.Barrier(8), []

    def claim(number: int) -> None:
        try:
            barrier.wait(timeout=10)
            outcomes.append(len(leases_claim(holder=f"attempt:{number}", num=1)))
        except NoDevice:
            outcomes.append(0)
        finally:
            connection.close()

    threads = [threading.Thread(target=claim, args=[number]) for number in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(timeout=30)
    assert sorted(outcomes) == [0] * 5 + [1] * 3
    assert DeviceLease.objects.filter(released_at=None).values("device").distinct().count() == 3
