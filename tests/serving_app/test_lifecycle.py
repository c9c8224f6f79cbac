"""Replicas from wanted to gone: real engine processes, real supervisors, the reconciler in between."""

from __future__ import annotations

import os
import signal
from typing import Any

import httpx
import pytest
from django.contrib.auth.models import User
from django.db.models.functions import Now

from model_core.errors import CheckpointError, ConfigError, MachineError, UnknownName
from r1platform.lib.leases import leases_of
from r1platform.lib.processes import ProcessRef, group_pids, is_alive
from r1platform.lib.storage import replica_dir, run_dir
from r1platform.lib.transitions import IllegalTransition, StaleFence
from r1platform.models import Device, DeviceKind, Node
from serving_app import engine_process, observed, placement, selectors, services, shutdown, supervisor, transitions
from serving_app.gateway import routing
from serving_app.models import Deployment, Replica
from serving_app.placement import reconcile_deployment
from tests.serving_app.conftest import Served, Worker, key_of, reconciled, replicas, until
from tests.serving_app.test_gateway import ask, chat
from training_app.models import Checkpoint

pytestmark = [pytest.mark.django_db(transaction=True), pytest.mark.usefixtures("worker")]


def engine_of(replica: Replica) -> ProcessRef:
    replica.refresh_from_db()
    assert replica.engine_pid is not None and replica.engine_started_at is not None
    return ProcessRef(replica.engine_pid, replica.engine_started_at, replica.boot_id)


def test_deployment_walks_every_phase_and_is_ready_after_a_real_answer(create: Any, node: Node) -> None:
    made = reconciled(create(engine_config={"ready_after": 0.7}), "ready")
    (replica,) = replicas(made)
    assert [t.after for t in replica.transitions.all()] == ["starting", "loading", "warming", "ready"]
    assert [t.after for t in made.transitions.all()] == ["starting", "ready"]
    assert replica.node == node and replica.ready_at is not None and replica.base_url.startswith("http://127.0.0.1:")
    until(lambda: Replica.objects.get(pk=replica.pk).metrics.get("tokens_per_second") == 12.5)
    assert "stub engine starts" in selectors.replica_log(replica)["text"]
    assert selectors.ready_replicas(made) == [replica]
    assert leases_of(f"replica:{replica.pk}") == [], "a node without GPUs gives no lease"


def test_stop_ends_the_whole_group_and_start_brings_it_back(create: Any, alice: User) -> None:
    made = reconciled(create(), "ready")
    ref = engine_of(replicas(made)[0])
    services.deployment_stop(deployment=made, user=alice)
    with pytest.raises(IllegalTransition):
        services.deployment_stop(deployment=made, user=alice)
    reconciled(made, "stopped")
    assert group_pids(ref) == [] and replicas(made)[0].state == "stopped"
    services.deployment_start(deployment=made, user=alice)
    reconciled(made, "ready")
    assert len(replicas(made)) == 2


def test_start_brings_back_as_many_as_before_the_stop(create: Any, alice: User) -> None:
    made = create(replicas=3)
    for asked, then in ((None, 3), (2, 2), (None, 2)):
        services.deployment_stop(deployment=made, user=alice)
        made.refresh_from_db()
        assert made.desired_replicas == 0 and made.state == "stopped"
        services.deployment_start(deployment=made, user=alice, replicas=asked)
        made.refresh_from_db()
        assert made.desired_replicas == then


def test_engine_that_does_not_hear_sigterm_is_killed(create: Any, alice: User) -> None:
    made = reconciled(create(engine_config={"stubborn": True}), "ready")
    ref = engine_of(replicas(made)[0])
    services.deployment_scale(deployment=made, user=alice, replicas=0)
    reconciled(made, "stopped")
    assert group_pids(ref) == []


def test_scaling_adds_and_takes_the_youngest(create: Any, alice: User) -> None:
    made = reconciled(create(), "ready")
    services.deployment_scale(deployment=made, user=alice, replicas=2)
    assert Deployment.objects.get(pk=made.pk).state == "degraded"
    reconciled(made, "ready")
    services.deployment_scale(deployment=made, user=alice, replicas=1)
    until(lambda: reconcile_deployment(made.pk) and [r.state for r in replicas(made)] == ["ready", "stopped"])


def test_engine_killed_is_failed_with_its_last_words_and_replaced(create: Any) -> None:
    made = reconciled(create(), "ready")
    (first,) = replicas(made)
    os.killpg(engine_of(first).pid, signal.SIGKILL)
    until(lambda: Replica.objects.get(pk=first.pk).state == "failed")
    made.refresh_from_db()
    assert made.state == "degraded" and "No replica is ready" in made.state_reason
    reconciled(made, "ready")
    first.refresh_from_db()
    assert "stub engine starts" in first.state_reason and first.finished_at is not None


def test_engine_that_never_starts_is_given_up_with_its_reason(create: Any, alice: User) -> None:
    made = reconciled(create(engine_config={"crash": True}), "failed", seconds=40)
    assert len(replicas(made)) == observed.MAX_FAILURES
    assert "size mismatch for lm_head.weight" in made.state_reason and "code 1" in made.state_reason
    assert reconcile_deployment(made.pk) and len(replicas(made)) == observed.MAX_FAILURES
    services.revision_create(deployment=made, user=alice, engine_config={})
    reconciled(made, "ready")


def test_engine_that_gives_up_is_not_tried_again(create: Any) -> None:
    """An engine that says of itself that it has failed is not waited for, whether or not its process ends."""
    made = reconciled(create(engine_config={"gives_up": True}), "failed")
    (replica,) = replicas(made)
    assert replica.state == "failed" and replica.permanent and replica.state_reason == "model.safetensors is damaged."
    assert group_pids(engine_of(replica)) == []


def test_damaged_checkpoint_on_the_builtin_engine_fails_with_its_sentence(create: Any) -> None:
    made = reconciled(create(engine="builtin"), "failed", seconds=60)
    (replica,) = replicas(made)
    assert replica.permanent and replica.state_reason == made.state_reason
    assert "\n" not in made.state_reason and "model.safetensors is damaged" in made.state_reason


def test_engine_listens_where_other_machines_reach_its_node(create: Any, node: Node) -> None:
    Node.objects.update(address="127.0.0.2")
    made = reconciled(create(), "ready")
    (replica,) = replicas(made)
    assert replica.base_url.startswith("http://127.0.0.2:"), "the stub is reached there and nowhere else"


def test_addresses_of_nodes_become_numbers(monkeypatch: pytest.MonkeyPatch) -> None:
    assert engine_process.bind_address("127.0.0.1") == engine_process.bind_address("localhost") == "127.0.0.1"
    assert engine_process.bind_address("10.1.2.3") == "10.1.2.3" and engine_process.bind_address("fd00::1") == "fd00::1"
    with pytest.raises(MachineError, match="R1_NODE_ADDRESS"):
        engine_process.bind_address("no.such.host.invalid")


def test_checkpoint_that_vanished_is_not_tried_again(create: Any, checkpoint: Checkpoint) -> None:
    made = create()
    directory = run_dir(checkpoint.run_id, 1) / "checkpoints" / "step_00000012"
    (directory / "COMPLETE").unlink()
    reconciled(made, "failed")
    assert len(replicas(made)) == 1 and "COMPLETE" in made.state_reason


def test_new_revision_takes_over_and_no_request_fails(
    create: Any, alice: User, web: Served, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The web process learns of the change from the database only, as one of several does."""
    monkeypatch.setattr(supervisor, "SEEN_SECONDS", 2 * routing.FRESH_SECONDS)
    monkeypatch.setattr(transitions, "TABLE", routing.RoutingTable())
    made = reconciled(create(), "ready")
    (old,) = replicas(made)
    at_once = {"mode": "at_once"}
    services.revision_create(deployment=made, user=alice, engine_config={"ready_after": 0.6}, plan=at_once)
    seen, key, answers = set(), key_of(alice), []

    def taken_over() -> bool:
        reconcile_deployment(made.pk)
        answers.append(ask(web, key, chat("say hi")))
        seen.add(len(selectors.ready_replicas(made)))
        made.refresh_from_db()
        assert made.state == "ready"
        return [r.state for r in replicas(made)] == ["stopped", "ready"]

    until(taken_over)
    answers += [ask(web, key, chat("say hi")) for _ in range(20)]
    assert {answer.status_code for answer in answers} == {200}, [a.text for a in answers if a.status_code != 200]
    assert seen == {1}, "somebody answered at every moment"
    assert selectors.ready_replicas(made) == [replicas(made)[1]] and old.pk != replicas(made)[1].pk


def test_revision_that_does_not_start_leaves_the_old_one(create: Any, alice: User) -> None:
    made = reconciled(create(), "ready")
    services.revision_create(deployment=made, user=alice, engine_config={"crash": True})
    refused = made.revisions.get(number=2)

    def rolled_back() -> bool:
        reconcile_deployment(made.pk)
        refused.refresh_from_db()
        return refused.state == "rolled_back"

    until(rolled_back, seconds=40)
    assert refused.state_reason.startswith("It does not start. ") and "size mismatch" in refused.state_reason
    made.refresh_from_db()
    assert made.state == "ready" and selectors.ready_replicas(made) == [replicas(made)[0]]


def test_replaced_replica_lets_its_stream_end_and_survives_its_supervisor(
    create: Any, alice: User, web: Served, worker: Worker
) -> None:
    """kill -9 of the supervisor in the middle of draining: the next one drains on."""
    made = reconciled(create(), "ready")
    (old,) = replicas(made)
    body = chat("count 60 0.05", stream=True)
    headers = {"Authorization": f"Bearer {key_of(alice)}"}
    with httpx.stream("POST", f"{web.url}/v1/chat/completions", json=body, headers=headers, timeout=30) as stream:
        lines = stream.iter_lines()
        next(lines)
        services.revision_create(deployment=made, user=alice, plan={"mode": "at_once"})
        until(lambda: reconcile_deployment(made.pk) and replicas(made)[0].state == "stopping")
        Replica.objects.filter(pk=old.pk).update(fence=50, heartbeat_at=Now() - 2 * placement.SILENT)
        until(lambda: not worker.threads[0].is_alive())
        reconcile_deployment(made.pk)
        text = "".join(lines)
    assert '"59 "' in text and text.endswith("[DONE]")
    until(lambda: replicas(made)[0].state == "stopped")
    assert made.revisions.get(number=2).state == "current"


def test_silent_supervisor_is_replaced_and_the_engine_lives_on(create: Any, worker: Worker) -> None:
    """kill -9 of the supervisor: a true status, the same engine, no orphan."""
    made = reconciled(create(), "ready")
    (replica,) = replicas(made)
    ref = engine_of(replica)
    Replica.objects.filter(pk=replica.pk).update(fence=50, heartbeat_at=Now() - 2 * placement.SILENT)
    until(lambda: not worker.threads[0].is_alive())
    assert is_alive(ref), "a supervisor that lost its fence leaves the engine alone"
    reconcile_deployment(made.pk)
    until(lambda: len(worker.threads) == 2 and Replica.objects.get(pk=replica.pk).metrics)
    replica.refresh_from_db()
    assert replica.fence == 51 and replica.state == "ready" and engine_of(replica) == ref and is_alive(ref)


def test_engine_that_was_never_written_down_is_found_and_ended(create: Any, worker: Worker) -> None:
    made = reconciled(create(), "ready")
    (replica,) = replicas(made)
    ref = engine_of(replica)
    Replica.objects.filter(pk=replica.pk).update(fence=50, supervisor_pid=None, engine_pid=None, state="starting")
    until(lambda: not worker.threads[0].is_alive())
    worker.supervise(replica.pk, 50, node_name="node-1")
    until(lambda: Replica.objects.get(pk=replica.pk).state == "ready")
    assert group_pids(ref) == [] and is_alive(engine_of(replica))


def test_the_same_task_delivered_twice_has_one_owner(create: Any, worker: Worker) -> None:
    made = reconciled(create(engine_config={"ready_after": 0.5}), "starting")
    (replica,) = replicas(made)
    for _ in range(3):
        worker.supervise(replica.pk, replica.fence, node_name="node-1")
    reconciled(made, "ready")
    until(lambda: sum(thread.is_alive() for thread in worker.threads) == 1)
    assert len(replicas(made)) == 1


def test_stale_fence_writes_nothing(create: Any) -> None:
    made = reconciled(create(), "ready")
    (replica,) = replicas(made)
    with pytest.raises(StaleFence):
        services.replica_transition(replica=replica, to="unreachable", fence=replica.fence + 1)
    assert Replica.objects.get(pk=replica.pk).state == "ready"


def test_silent_node_makes_unreachable_then_lost_then_elsewhere(create: Any, node: Node, worker: Worker) -> None:
    """Its device stays held until the node is heard again and has ended the engine that it kept."""
    Device.objects.filter(node=node).update(kind=DeviceKind.CUDA)
    made = reconciled(create(), "ready")
    (replica,) = replicas(made)
    ref, holder = engine_of(replica), f"replica:{replica.pk}"
    Node.objects.update(heartbeat_at=Now() - 2 * placement.NODE_ALIVE)
    stale = {"fence": 9, "heartbeat_at": Now() - 2 * placement.SILENT}
    Replica.objects.filter(pk=replica.pk).update(**stale)
    until(lambda: not worker.threads[0].is_alive())
    Replica.objects.filter(pk=replica.pk).update(**stale)
    reconcile_deployment(made.pk)
    replica.refresh_from_db()
    assert replica.state == "unreachable" and "node-1 has not been heard of" in replica.state_reason
    Replica.objects.filter(pk=replica.pk).update(heartbeat_at=Now() - 2 * placement.LOST)
    reconcile_deployment(made.pk)
    replica.refresh_from_db()
    assert replica.state == "lost" and is_alive(ref) and len(leases_of(holder)) == 1
    reconcile_deployment(made.pk)
    assert replicas(made)[-1].state == "queued" and "No node is up" in replicas(made)[-1].state_reason
    assert len(worker.threads) == 1 and made.pk in placement.deployments_to_reconcile()
    Deployment.objects.update(desired_replicas=0)
    Node.objects.update(heartbeat_at=Now())
    until(lambda: reconcile_deployment(made.pk) and not leases_of(holder))
    assert group_pids(ref) == [] and Replica.objects.get(pk=replica.pk).state == "lost"
    until(lambda: made.pk not in placement.deployments_to_reconcile())


def test_gpu_nodes_lease_and_say_who_holds(create: Any, node: Node, alice: User) -> None:
    Device.objects.filter(node=node).update(kind=DeviceKind.CUDA)
    Device.objects.filter(node=node, index=1).delete()
    first = reconciled(create(), "ready")
    (replica,) = replicas(first)
    assert [lease.device.kind for lease in leases_of(f"replica:{replica.pk}")] == ["cuda"]
    second = reconciled(create(name="second"), "pending")
    assert f"held by replica:{replica.pk}" in second.state_reason
    services.deployment_stop(deployment=first, user=alice)
    reconciled(first, "stopped")
    assert leases_of(f"replica:{replica.pk}") == []
    reconciled(second, "ready")


def test_hung_engine_is_unreachable_and_ready_again(create: Any) -> None:
    made = reconciled(create(), "ready")
    ref = engine_of(replicas(made)[0])
    os.kill(ref.pid, signal.SIGSTOP)
    try:
        until(lambda: replicas(made)[0].state == "unreachable", seconds=60)  # three probes of 2 s, on a busy machine
    finally:
        os.kill(ref.pid, signal.SIGCONT)
    until(lambda: replicas(made)[0].state == "ready", seconds=30)


def test_shutdown_of_the_node_ends_engines_and_keeps_what_is_wanted(create: Any, settings: Any) -> None:
    settings.R1_NODE_NAME = "node-1"
    made = reconciled(create(), "ready")
    ref = engine_of(replicas(made)[0])
    assert shutdown.stop_engines(seconds=15)
    assert group_pids(ref) == []
    made.refresh_from_db()
    assert made.desired_replicas == 1
    reconciled(made, "ready")


def test_secrets_of_the_platform_do_not_reach_the_engine(create: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("R1_SECRET_KEY", "hush")
    monkeypatch.setenv("DATABASE_URL", os.environ.get("DATABASE_URL", "postgres://secret"))
    made = reconciled(create(), "ready")
    with open(f"/proc/{engine_of(replicas(made)[0]).pid}/environ", "rb") as file:
        names = {entry.split(b"=")[0] for entry in file.read().split(b"\0")}
    assert not names & {b"R1_SECRET_KEY", b"DATABASE_URL", b"REDIS_URL"}


def test_bad_input_is_a_sentence_at_its_field_and_creates_nothing(
    create: Any, charlie: User, checkpoint: Checkpoint
) -> None:
    create()
    cases: list[tuple[dict[str, Any], type[Exception], str]] = [
        ({"name": "sums"}, ConfigError, "name"),
        ({"name": "../etc"}, ConfigError, "name"),
        ({"name": ""}, ConfigError, "name"),
        ({"name": "a", "engine": "vllm"}, UnknownName, "engine"),
        ({"name": "a", "engine_config": {"speed": 1}}, ConfigError, "engine_config.speed"),
        ({"name": "a", "engine_config": {"crash": "maybe"}}, ConfigError, "engine_config.crash"),
        ({"name": "a", "replicas": 0}, ConfigError, "replicas"),
        ({"name": "a", "replicas": 99}, ConfigError, "replicas"),
    ]
    for options, kind, field in cases:
        with pytest.raises(kind) as caught:
            create(**options)
        assert caught.value.field == field, options  # type: ignore[attr-defined]
    checkpoint.removed_at = checkpoint.created_at
    with pytest.raises(CheckpointError, match="removed"):
        create(name="b", checkpoint=checkpoint)
    assert list(Deployment.objects.values_list("name", flat=True)) == ["sums"]


@pytest.mark.parametrize("name", ["modeling.py", "pytorch_model.bin", "x.pkl", "weights.pt", "sub/evil.PY"])
def test_checkpoints_with_code_are_refused(create: Any, checkpoint: Checkpoint, name: str) -> None:
    """code in checkpoints: safetensors only, no .py, no pickle."""
    path = run_dir(checkpoint.run_id, 1) / "checkpoints" / "step_00000012" / "model" / name
    path.parent.mkdir(exist_ok=True)
    path.write_bytes(b"x")
    try:
        with pytest.raises(CheckpointError, match=path.name):
            create()
    finally:
        path.unlink()


def test_checkpoints_with_auto_map_or_without_weights_are_refused(create: Any, checkpoint: Checkpoint) -> None:
    """code in checkpoints: no auto_map."""
    directory = run_dir(checkpoint.run_id, 1) / "checkpoints" / "step_00000012" / "model"
    (directory / "tokenizer_config.json").write_text('{"auto_map": {"AutoTokenizer": "x.Y"}}')
    with pytest.raises(CheckpointError, match="auto_map"):
        create()
    (directory / "tokenizer_config.json").unlink()
    (directory / "model.safetensors").rename(directory / "model.txt")
    with pytest.raises(CheckpointError, match="safetensors"):
        create()


def test_checkpoint_of_another_project_is_refused(create: Any, charlie: User, checkpoint: Checkpoint) -> None:
    checkpoint.run.project = charlie.memberships.get().project
    checkpoint.run.save()
    with pytest.raises(CheckpointError, match="another project"):
        create(checkpoint=Checkpoint.objects.get(pk=checkpoint.pk))


def test_delete_frees_the_name_and_ends_the_engine(create: Any, alice: User) -> None:
    made = reconciled(create(), "ready")
    ref = engine_of(replicas(made)[0])
    services.deployment_delete(deployment=made, user=alice)
    again = create()
    reconciled(made, "stopped")
    assert group_pids(ref) == [] and again.name == "sums" and made.deleted_at is not None
    reconciled(again, "ready")


def test_log_is_read_piece_by_piece(create: Any) -> None:
    made = create()
    reconcile_deployment(made.pk)
    (replica,) = replicas(made)
    path = replica_dir(replica.pk) / "engine.log"
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text("".join(f"line {n}\n" for n in range(1000)))
    text, offset = "", 0
    while piece := selectors.replica_log(replica, offset=offset, max_bytes=100):
        if not piece["text"]:
            break
        text, offset = text + piece["text"], piece["next_offset"]
    assert text == path.read_text()
    assert selectors.replica_log(replica, max_bytes=100)["text"].endswith("line 999\n")
