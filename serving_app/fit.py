"""Whether a model has its place on the devices that are up: what an engine with its settings needs, and what they have.

Only what a device has at all is compared: who holds it now is the placement's question, and a device that says no size is taken
to be large enough.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

from django.db.models import Count, Min, Q, QuerySet
from django.db.models.functions import Now

from model_core.errors import ModelCoreError
from model_core.planner import Load, Need, ServedModel, devices_that_fit, need
from model_core.planner.devices import USABLE_FRACTION
from model_core.published.files import read_object
from model_core.serving.engines import ENGINES
from r1platform.lib.leases import NODE_ALIVE
from r1platform.models import DeviceKind, Node
from r1platform.templatetags.r1 import as_bytes
from serving_app.model_directories import directory_of
from serving_app.models import Artifact, DeploymentRevision, ImportedModel
from training_app.selectors import run_shape


@dataclass(frozen=True)
class Place:
    """A node that could serve: what one of its devices has, and how many GPUs there are; without any its processor serves."""

    node: Node
    device_bytes: int
    """Of its smallest GPU, or of the machine; 0 when it is not known."""
    num_gpus: int

    @property
    def usable_bytes(self) -> int:
        """What is planned with."""
        return int(self.device_bytes * USABLE_FRACTION)


@dataclass(frozen=True)
class Fit:
    """What one replica takes, and the place that has most room for it."""

    model: ServedModel
    load: Load
    need: Need
    place: Place | None
    settings: frozenset[str]
    """Names of the engine's settings: only those that there are can be the remedy."""

    @property
    def fits(self) -> bool | None:
        """None when no node says what it has."""
        if self.place is None or not self.place.device_bytes:
            return None
        return self.need.least <= self.room and not self.num_devices > self.place.num_gpus > 0

    @property
    def num_devices(self) -> int:
        """Of all copies."""
        return self.load.devices * self.load.copies

    @property
    def room(self) -> int:
        """Usable bytes of one device; without GPUs all parts of the replica share the machine."""
        assert self.place is not None
        return self.place.usable_bytes if self.place.num_gpus else self.place.usable_bytes // self.num_devices

    @property
    def rows_within(self) -> int:
        """Requests of full length that have their place together."""
        return self.need.rows_within(self.room)

    @property
    def is_tight(self) -> bool:
        """Whether it fits, but not with as many requests as are to run."""
        return bool(self.fits) and self.rows_within < self.need.rows

    @property
    def words(self) -> str:
        """What is needed, what there is, and what to change."""
        each = "on each device " if self.num_devices > 1 else ""
        parts = [f"weights {as_bytes(self.need.weights)}"]
        if self.need.laid_out:
            parts.append(f"cache of {self.load.cache_tokens} tokens {as_bytes(self.need.laid_out)}")
        elif self.need.request:
            parts.append(f"cache of a request of {self.load.tokens} tokens {as_bytes(self.need.request)}")
        what = f"{each}{', '.join(parts)}"
        if self.place is None:
            return f"{what}; no node is up to compare it with."
        if self.fits is None:
            return f"{what}; {self.place.node.name} does not say what it has."
        if not self.fits:
            return f"{what}; {_has(self.place)}. {self.remedy}"
        if self.is_tight:
            many = f"of {self.need.rows} requests of full length {self.rows_within} have their place, the others wait"
            what += f"; {many if self.rows_within else f'no request of {self.load.tokens} tokens has its place'}"
        return f"{what}; {_has(self.place)}."

    @property
    def remedy(self) -> str:
        """What would make it fit there."""
        assert self.place is not None
        place, room = self.place, self.room
        if self.num_devices > place.num_gpus > 0:
            return (
                f"tensor_parallel_size times data_parallel_size is {self.num_devices}, but no node has more than {place.num_gpus} "
                "GPUs. Lower one of them."
            )
        half = need(self.model, replace(self.load, number_bytes=2, cache_number_bytes=min(self.load.cache_number_bytes or 2, 2)))
        if self.load.number_bytes == 4 and "dtype" in self.settings and place.num_gpus and half.least <= room:
            return "Set dtype to bfloat16."
        if "tensor_parallel_size" in self.settings:
            devices = devices_that_fit(self.model, self.load, room=room, most=place.num_gpus)
            if devices is not None:
                return f"Set tensor_parallel_size to {devices}."
        if self.need.weights < room and "context_length" in self.settings:
            return "Set a smaller context_length or fewer max_total_tokens."
        return "Choose a smaller model, or a node with larger devices."


def _has(place: Place) -> str:
    """What the place has, with what stays free for others."""
    whose = f"the smallest GPU of {place.node.name}" if place.num_gpus else place.node.name
    return f"{whose} has {as_bytes(place.device_bytes)}, of which {USABLE_FRACTION:.0%} are planned with"


def fit_of(revision: DeploymentRevision, places: Sequence[Place]) -> Fit | None:
    """One replica of the revision on the best of these places; None where the model's sizes cannot be known."""
    return fit(revision.served.artifact, revision.engine, revision.engine_config, places)


def fit(artifact: Artifact, engine: str, engine_config: dict[str, Any], there: Sequence[Place]) -> Fit | None:
    """One replica with these settings on the best of these places; None where the model's sizes cannot be known."""
    try:
        model = size_of(artifact)
        config = ENGINES.get(engine).Config.parse(engine_config)
    except ModelCoreError:
        return None
    on_gpu = any(place.num_gpus for place in there)
    load = ENGINES.get(engine)().load(model, config, on_gpu=on_gpu)
    enough = [place for place in there if place.num_gpus >= load.devices * load.copies] or list(there)
    best = max(enough, key=lambda place: (place.device_bytes or float("inf"), place.num_gpus), default=None)
    return Fit(model, load, need(model, load), best, frozenset(type(config).model_fields))


def size_of(artifact: Artifact) -> ServedModel:
    """Of a checkpoint by its run's settings, of an imported model by what was counted. Raises ModelCoreError."""
    if not isinstance(artifact, ImportedModel):
        return ServedModel.of(run_shape(artifact.run))
    try:
        config = read_object(directory_of(artifact.name) / "config.json")
    except ModelCoreError:
        config = {}  # the files lie on another node: the weights are known all the same
    return ServedModel.published(
        config, num_parameters=artifact.num_parameters, context=artifact.context or 0, stored_as=artifact.stored_as
    )


def places_up() -> list[Place]:
    """Of nodes that take work; where any has GPUs, only of those that have."""
    found = [place_of(node) for node in nodes_with_room()]
    return [place for place in found if place.num_gpus] or found


def nodes_with_room() -> QuerySet[Node]:
    """Living nodes that take work, by name, each with the number of its GPUs and the memory of the smallest."""
    cuda = Q(devices__kind=DeviceKind.CUDA)
    nodes = Node.objects.filter(draining=False, heartbeat_at__gt=Now() - NODE_ALIVE).order_by("name")
    return nodes.annotate(
        gpus=Count("devices", filter=cuda, distinct=True), gpu_bytes=Min("devices__memory_bytes", filter=cuda)
    )


def place_of(node: Any) -> Place:
    """Of one of `nodes_with_room`."""
    if node.gpus:
        return Place(node, node.gpu_bytes or 0, node.gpus)
    said = node.hardware.get("memory_bytes", 0)
    return Place(node, said if isinstance(said, int) else 0, 0)
