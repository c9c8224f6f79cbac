"""A model is placed where it has room; the form and a replica that waits say what it needs, what there is and what to change."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from django.contrib.auth.models import User
from django.test import Client
from django.urls import reverse

from model_core.config import PRESETS, ModelConfig
from model_core.planner import ServedModel
from r1platform.models import Device, DeviceKind, Node, Project
from serving_app import services
from serving_app.fit import Fit, fit, places_up, size_of
from serving_app.models import Deployment, ImportedModel, Replica
from serving_app.placement import reconcile_deployment
from training_app.models import Checkpoint

pytestmark = pytest.mark.django_db
GIB = 1 << 30


@pytest.fixture
def small(checkpoint: Checkpoint) -> Checkpoint:
    """Of a run of the small preset."""
    checkpoint.run.config = {"model": {**PRESETS["small"], "vocab_size": 2048}}
    checkpoint.run.save()
    return checkpoint


def gpus(node: Node, num_bytes: int, *, count: int = 1) -> None:
    Device.objects.filter(node=node).delete()
    for index in range(count):
        Device.objects.create(node=node, kind=DeviceKind.CUDA, index=index, name="GPU", memory_bytes=num_bytes)


def machine(node: Node, num_bytes: int) -> None:
    Node.objects.filter(pk=node.pk).update(hardware={"num_cpus": 2, "memory_bytes": num_bytes})


def found(checkpoint: Checkpoint, engine: str = "builtin", **settings: Any) -> Fit:
    got = fit(checkpoint, engine, settings, places_up())
    assert got is not None
    return got


def test_a_checkpoint_has_the_size_that_its_run_says(small: Checkpoint) -> None:
    size = size_of(small)
    assert size == ServedModel.of(ModelConfig.parse({**PRESETS["small"], "vocab_size": 2048})) and size.has_latent_cache
    later = Checkpoint.objects.create(
        run=type(small.run).objects.create(project=small.run.project, name="later", phase="reinforcement", config={}, starts_from=small),
        attempt=small.attempt, step=3,
    )  # fmt: skip
    assert size_of(later) == size, "what goes on from it is as large"


def test_an_imported_model_counts_by_its_files_and_its_configuration(project: Project, tmp_path: Path, settings: Any) -> None:
    model = ImportedModel(project=project, name="theirs", num_parameters=77, stored_as="BF16", context=128)
    settings.R1_MODELS = str(tmp_path)
    assert size_of(model) == ServedModel(77, 128, 0, has_latent_cache=False, stored_as="BF16"), "its files lie elsewhere"
    (tmp_path / "theirs").mkdir()
    stored = {"num_hidden_layers": 2, "kv_lora_rank": 8, "qk_rope_head_dim": 4}
    (tmp_path / "theirs" / "config.json").write_text(json.dumps(stored))
    assert size_of(model) == ServedModel(77, 128, 24, has_latent_cache=True, stored_as="BF16")


def test_without_a_size_nothing_is_refused(small: Checkpoint, node: Node) -> None:
    assert found(small).fits is None and "node-1 does not say what it has" in found(small).words
    Node.objects.update(draining=True)
    assert found(small).place is None and "no node is up" in found(small).words


def test_a_machine_without_gpus_is_taken_as_a_whole(small: Checkpoint, node: Node) -> None:
    machine(node, GIB)
    assert found(small).fits and not found(small).is_tight and "node-1 has 1.0" in found(small).words
    machine(node, 1000)
    assert found(small).fits is False and found(small).words.endswith("Choose a smaller model, or a node with larger devices.")


def test_without_gpus_all_parts_share_the_machine(small: Checkpoint, node: Node) -> None:
    need = found(small, "sglang", tensor_parallel_size=2).need
    machine(node, int(need.least * 2.1 / 0.9))
    assert found(small, "sglang", tensor_parallel_size=2).fits
    machine(node, int(need.least * 1.9 / 0.9))
    assert found(small, "sglang", tensor_parallel_size=2).fits is False


def test_a_cache_that_is_laid_out_small_is_no_hindrance_to_starting(small: Checkpoint, node: Node) -> None:
    need = found(small, "sglang", max_total_tokens=64).need
    machine(node, int(need.least * 1.01 / 0.9))
    short = found(small, "sglang", max_total_tokens=64)
    assert short.fits and short.is_tight and "no request of 1024 tokens has its place" in short.words


def test_what_is_tight_says_how_many_requests_have_their_place(small: Checkpoint, node: Node) -> None:
    need = found(small).need
    machine(node, int((need.weights + 3.5 * need.request) / 0.9))
    assert found(small).is_tight
    assert "of 16 requests of full length 3 have their place, the others wait" in found(small).words


def test_the_remedy_is_one_that_helps(small: Checkpoint, node: Node) -> None:
    need = found(small, "sglang", dtype="float32").need
    gpus(node, int(need.least * 0.7 / 0.9), count=4)
    wide = found(small, "sglang", dtype="float32")
    assert wide.fits is False and wide.words.endswith("Set dtype to bfloat16.")
    assert found(small, "sglang", dtype="bfloat16").fits
    gpus(node, int(need.weights * 0.3 / 0.9), count=4)
    split = found(small, "sglang", dtype="bfloat16", context_length=8)
    assert split.fits is False and split.words.endswith("Set tensor_parallel_size to 2.")
    assert found(small, "sglang", dtype="bfloat16", context_length=8, tensor_parallel_size=2).fits
    many = found(small, "sglang", tensor_parallel_size=8)
    assert many.fits is False and "tensor_parallel_size times data_parallel_size is 8, but no node" in many.words
    copies = found(small, "sglang", dtype="bfloat16", context_length=8, tensor_parallel_size=2, data_parallel_size=4)
    assert copies.fits is False and "is 8, but no node has more than 4 GPUs" in copies.words
    gpus(node, int(need.weights * 0.55 / 0.9))
    long = found(small, "sglang", dtype="bfloat16", max_total_tokens=10_000_000)
    assert long.fits is False and long.words.endswith("Set a smaller context_length or fewer max_total_tokens.")


def test_a_place_counts_the_smallest_of_its_gpus(node: Node) -> None:
    gpus(node, 8 * GIB, count=2)
    Device.objects.create(node=node, kind=DeviceKind.CUDA, index=2, name="small", memory_bytes=GIB)
    Node.objects.create(name="without", heartbeat_at=node.heartbeat_at, hardware={"memory_bytes": 1 << 50})
    (place,) = places_up()
    assert (place.node, place.device_bytes, place.num_gpus) == (node, GIB, 3), "nodes without GPUs serve only where none has any"


def test_a_replica_waits_for_a_node_with_room_and_says_why(
    small: Checkpoint, node: Node, alice: User, project: Project, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked: list[str] = []
    monkeypatch.setattr("serving_app.placement.ask_to_supervise", lambda *_args, node_name: asked.append(node_name))
    machine(node, 1000)
    made = services.deployment_create(project=project, user=alice, name="big", checkpoint=small, engine="builtin")
    reconcile_deployment(made.pk)
    replica = Replica.objects.get()
    assert replica.state == "queued" and not asked
    assert replica.state_reason.startswith("No node has room for it: weights ") and "node-1 has 1000" in replica.state_reason
    larger = Node.objects.create(name="node-2", heartbeat_at=node.heartbeat_at, hardware={"memory_bytes": GIB})
    reconcile_deployment(made.pk)
    replica.refresh_from_db()
    assert (replica.state, replica.node, asked) == ("starting", larger, ["node-2"])


def test_the_form_says_whether_it_has_room(small: Checkpoint, node: Node, client_erin: Client, client_bob: Client) -> None:
    machine(node, 1000)
    values = {"checkpoint": small.pk, "engine": "builtin", "config-max_running_requests": 4, "config-num_threads": 1}
    page = client_erin.get(reverse("deployment-fit"), values)
    text = page.content.decode()
    assert page.status_code == 200 and "tone-failed" in text and "Choose a smaller model" in text and "Room for it" in text
    machine(node, GIB)
    assert "tone-succeeded" in client_erin.get(reverse("deployment-fit"), values).content.decode()
    half = client_erin.get(reverse("deployment-fit"), {**values, "config-max_running_requests": "many"})
    assert half.status_code == 200 and not half.content.strip(), "while something is wrong nothing is said"
    assert client_bob.get(reverse("deployment-fit"), values).status_code == 403
    assert not Deployment.objects.exists()
