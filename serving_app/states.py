"""Every state of this app and which moves are allowed. The writer is `r1platform.lib.transitions`."""

from __future__ import annotations

from django.db.models import TextChoices


class DeploymentState(TextChoices):
    """What people see of a deployment as a whole; follows from its replicas."""

    PENDING = "pending", "Pending"
    STARTING = "starting", "Starting"
    READY = "ready", "Ready"
    DEGRADED = "degraded", "Degraded"
    ASLEEP = "asleep", "Asleep"
    FAILED = "failed", "Failed"
    STOPPING = "stopping", "Stopping"
    STOPPED = "stopped", "Stopped"


ANSWERING = frozenset({DeploymentState.READY, DeploymentState.DEGRADED, DeploymentState.ASLEEP})
"""States of a deployment in which a question gets an answer; what sleeps starts for it."""

DEPLOYMENT_MOVES: dict[str, set[str]] = {
    DeploymentState.PENDING: {DeploymentState.STARTING, DeploymentState.STOPPING, DeploymentState.STOPPED,
                              DeploymentState.FAILED},
    DeploymentState.STARTING: {DeploymentState.READY, DeploymentState.DEGRADED, DeploymentState.FAILED,
                               DeploymentState.STOPPING},
    DeploymentState.READY: {DeploymentState.DEGRADED, DeploymentState.FAILED, DeploymentState.STOPPING,
                            DeploymentState.ASLEEP},
    DeploymentState.DEGRADED: {DeploymentState.READY, DeploymentState.FAILED, DeploymentState.STOPPING,
                               DeploymentState.ASLEEP},
    DeploymentState.ASLEEP: {DeploymentState.PENDING, DeploymentState.STOPPING},
    DeploymentState.FAILED: {DeploymentState.PENDING, DeploymentState.STARTING, DeploymentState.STOPPING,
                             DeploymentState.STOPPED},
    DeploymentState.STOPPING: {DeploymentState.STOPPED},
    DeploymentState.STOPPED: {DeploymentState.PENDING},
}


class ImportState(TextChoices):
    """How far the hashing of an imported model is."""

    CHECKING = "checking", "Being hashed"
    READY = "ready", "Imported"
    FAILED = "failed", "Failed"


IMPORT_MOVES: dict[str, set[str]] = {ImportState.CHECKING: {ImportState.READY, ImportState.FAILED}}
"""Another try is another row."""


class RevisionState(TextChoices):
    """Where a revision stands between being made and being replaced; at most one is current, at most one on its way."""

    WARMING = "warming", "Warming up"
    SHIFTING = "shifting", "Taking over"
    CURRENT = "current", "Current"
    RETIRED = "retired", "Replaced"
    ROLLED_BACK = "rolled_back", "Rolled back"


REVISION_MOVES: dict[str, set[str]] = {
    RevisionState.WARMING: {RevisionState.SHIFTING, RevisionState.CURRENT, RevisionState.ROLLED_BACK},
    RevisionState.SHIFTING: {RevisionState.SHIFTING, RevisionState.CURRENT, RevisionState.ROLLED_BACK},
    RevisionState.CURRENT: {RevisionState.RETIRED},
    RevisionState.RETIRED: {RevisionState.WARMING},
    RevisionState.ROLLED_BACK: {RevisionState.WARMING},
}
"""A step of the traffic is a move from shifting to shifting; an earlier revision comes back through warming up."""


class ReplicaState(TextChoices):
    """One engine process."""

    QUEUED = "queued", "Queued"
    STARTING = "starting", "Starting"
    LOADING = "loading", "Loading weights"
    WARMING = "warming", "Warming up"
    READY = "ready", "Ready"
    UNREACHABLE = "unreachable", "Unreachable"
    STOPPING = "stopping", "Stopping"
    STOPPED = "stopped", "Stopped"
    FAILED = "failed", "Failed"
    LOST = "lost", "Lost"


_ENDS = {ReplicaState.STOPPING, ReplicaState.STOPPED, ReplicaState.FAILED, ReplicaState.LOST}
REPLICA_MOVES: dict[str, set[str]] = {
    ReplicaState.QUEUED: {ReplicaState.STARTING, ReplicaState.STOPPED, ReplicaState.FAILED},
    ReplicaState.STARTING: {ReplicaState.LOADING, ReplicaState.WARMING, *_ENDS},
    ReplicaState.LOADING: {ReplicaState.WARMING, *_ENDS},
    ReplicaState.WARMING: {ReplicaState.READY, *_ENDS},
    ReplicaState.READY: {ReplicaState.UNREACHABLE, *_ENDS},
    ReplicaState.UNREACHABLE: {ReplicaState.READY, *_ENDS},
    ReplicaState.STOPPING: {ReplicaState.STOPPED, ReplicaState.FAILED, ReplicaState.LOST},
}


class GenerationState(TextChoices):
    """One answer of the playground; it belongs to the server, not to a socket."""

    QUEUED = "queued", "Queued"
    THINKING = "thinking", "Thinking"
    ANSWERING = "answering", "Answering"
    DONE = "done", "Done"
    STOPPED = "stopped", "Stopped"
    FAILED = "failed", "Failed"
    INTERRUPTED = "interrupted", "Interrupted"


_GENERATION_ENDS: set[str] = {
    GenerationState.DONE, GenerationState.STOPPED, GenerationState.FAILED, GenerationState.INTERRUPTED,
}
GENERATION_MOVES: dict[str, set[str]] = {
    GenerationState.QUEUED: {GenerationState.THINKING, GenerationState.ANSWERING, *_GENERATION_ENDS},
    GenerationState.THINKING: {GenerationState.ANSWERING, *_GENERATION_ENDS},
    GenerationState.ANSWERING: _GENERATION_ENDS,
}


class ReviewState(TextChoices):
    """What an editor made of a judgement; only accepted ones become data."""

    PENDING = "pending", "Waiting for review"
    ACCEPTED = "accepted", "Accepted"
    REJECTED = "rejected", "Left out"


REVIEW_MOVES: dict[str, set[str]] = {
    ReviewState.PENDING: {ReviewState.ACCEPTED, ReviewState.REJECTED},
    ReviewState.ACCEPTED: {ReviewState.REJECTED, ReviewState.PENDING},
    ReviewState.REJECTED: {ReviewState.ACCEPTED, ReviewState.PENDING},
}


class BenchmarkState(TextChoices):
    """One benchmark of a revision. Its levels stay as they were measured; to measure again is another benchmark."""

    QUEUED = "queued", "Queued"
    RUNNING = "running", "Running"
    SUCCEEDED = "succeeded", "Succeeded"
    FAILED = "failed", "Failed"
    LOST = "lost", "Lost"
    STOPPED = "stopped", "Stopped"


BENCHMARK_MOVES: dict[str, set[str]] = {
    BenchmarkState.QUEUED: {BenchmarkState.RUNNING, BenchmarkState.FAILED, BenchmarkState.STOPPED},
    BenchmarkState.RUNNING: {BenchmarkState.SUCCEEDED, BenchmarkState.FAILED, BenchmarkState.LOST, BenchmarkState.STOPPED},
}
MOVING_BENCHMARKS = frozenset({BenchmarkState.QUEUED, BenchmarkState.RUNNING})
"""Something is still to come of it."""

REVISION_ON_ITS_WAY = frozenset({RevisionState.WARMING, RevisionState.SHIFTING})
"""States of a revision that is to take over."""

REPLICA_ENDS = frozenset({ReplicaState.STOPPED, ReplicaState.FAILED, ReplicaState.LOST})
"""States that a replica does not leave; a restart is a new row."""

GENERATION_ENDS = frozenset(_GENERATION_ENDS)
"""States that an answer does not leave."""
