"""Every state of this app and which moves are allowed; nothing else knows the order of states.

The writer is `r1platform.lib.transitions`; the tables here are data. A state that is in no `MOVES` key is final.
"""

from __future__ import annotations

from django.db.models import TextChoices


class VersionState(TextChoices):
    """A dataset version: prepared once, then immutable."""

    QUEUED = "queued", "Queued"
    PREPARING = "preparing", "Preparing"
    READY = "ready", "Ready"
    FAILED = "failed", "Failed"
    STOPPED = "stopped", "Stopped"


VERSION_MOVES: dict[str, set[str]] = {
    VersionState.QUEUED: {VersionState.PREPARING, VersionState.STOPPED, VersionState.FAILED},
    VersionState.PREPARING: {VersionState.READY, VersionState.FAILED, VersionState.STOPPED, VersionState.QUEUED},
}


class LaunchState(TextChoices):
    """One launch of a pipeline."""

    RUNNING = "running", "Running"
    HELD = "held", "Held at a gate"
    PAUSED = "paused", "Paused"
    SUCCEEDED = "succeeded", "Succeeded"
    FAILED = "failed", "Failed"
    STOPPED = "stopped", "Stopped"


LAUNCH_MOVES: dict[str, set[str]] = {
    LaunchState.RUNNING: {
        LaunchState.HELD,
        LaunchState.PAUSED,
        LaunchState.SUCCEEDED,
        LaunchState.FAILED,
        LaunchState.STOPPED,
    },
    LaunchState.HELD: {LaunchState.RUNNING, LaunchState.STOPPED},
    LaunchState.PAUSED: {LaunchState.RUNNING, LaunchState.STOPPED},
    LaunchState.FAILED: {LaunchState.RUNNING},
    LaunchState.STOPPED: {LaunchState.RUNNING},
}
LIVE_LAUNCHES = frozenset({LaunchState.RUNNING, LaunchState.HELD, LaunchState.PAUSED})
"""A pipeline has at most one of these."""


class RunState(TextChoices):
    """One phase run: a phase with a configuration, executed by one or more attempts."""

    WAITING = "waiting", "Waiting for the phase before"
    QUEUED = "queued", "Queued"
    STARTING = "starting", "Starting"
    RUNNING = "running", "Running"
    STOPPING = "stopping", "Stopping"
    PAUSED = "paused", "Paused"
    SUCCEEDED = "succeeded", "Succeeded"
    GATE_FAILED = "gate_failed", "Held at its gate"
    FAILED = "failed", "Failed"
    LOST = "lost", "Lost"
    STOPPED = "stopped", "Stopped"


RUN_MOVES: dict[str, set[str]] = {
    RunState.WAITING: {RunState.QUEUED, RunState.STOPPED},
    RunState.QUEUED: {RunState.STARTING, RunState.STOPPED, RunState.PAUSED, RunState.FAILED},
    RunState.STARTING: {
        RunState.RUNNING,
        RunState.FAILED,
        RunState.STOPPING,
        RunState.LOST,
        RunState.QUEUED,
        RunState.STOPPED,
        RunState.PAUSED,
        RunState.SUCCEEDED,
        RunState.GATE_FAILED,
    },
    RunState.RUNNING: {
        RunState.STOPPING,
        RunState.SUCCEEDED,
        RunState.GATE_FAILED,
        RunState.FAILED,
        RunState.LOST,
        RunState.STOPPED,
        RunState.PAUSED,
        RunState.QUEUED,
    },
    RunState.STOPPING: {
        RunState.STOPPED,
        RunState.PAUSED,
        RunState.SUCCEEDED,
        RunState.GATE_FAILED,
        RunState.FAILED,
        RunState.LOST,
        RunState.QUEUED,
    },
    RunState.PAUSED: {RunState.QUEUED, RunState.STOPPED},
    RunState.GATE_FAILED: {RunState.SUCCEEDED, RunState.QUEUED},
    RunState.FAILED: {RunState.QUEUED},
    RunState.LOST: {RunState.QUEUED},
    RunState.STOPPED: {RunState.QUEUED, RunState.WAITING},
}
LIVE_RUNS = frozenset({RunState.STARTING, RunState.RUNNING, RunState.STOPPING})
"""An attempt of the run holds devices."""


class Desired(TextChoices):
    """What people want of a run; the observed state follows."""

    RUN = "run", "Run"
    PAUSE = "pause", "Pause"
    STOP = "stop", "Stop"


class AttemptState(TextChoices):
    """One execution of a run on devices, owned by one supervisor."""

    CLAIMED = "claimed", "Claimed"
    RUNNING = "running", "Running"
    STOPPING = "stopping", "Stopping"
    SUCCEEDED = "succeeded", "Succeeded"
    FAILED = "failed", "Failed"
    LOST = "lost", "Lost"
    STOPPED = "stopped", "Stopped"


ATTEMPT_MOVES: dict[str, set[str]] = {
    AttemptState.CLAIMED: {AttemptState.RUNNING, AttemptState.FAILED, AttemptState.LOST, AttemptState.STOPPED},
    AttemptState.RUNNING: {
        AttemptState.STOPPING,
        AttemptState.SUCCEEDED,
        AttemptState.FAILED,
        AttemptState.LOST,
        AttemptState.STOPPED,
    },
    AttemptState.STOPPING: {AttemptState.STOPPED, AttemptState.SUCCEEDED, AttemptState.FAILED, AttemptState.LOST},
}
LIVE_ATTEMPTS = frozenset({AttemptState.CLAIMED, AttemptState.RUNNING, AttemptState.STOPPING})
"""Its supervisor and its devices are its own."""


class GateVerdict(TextChoices):
    """What the gate of a run said; of `overridden` and `rolled_back` the run's history keeps who and why."""

    NONE = "none", "No gate"
    PENDING = "pending", "Not decided yet"
    PASSED = "passed", "Passed"
    HELD = "held", "Held"
    OVERRIDDEN = "overridden", "Overridden"
    ROLLED_BACK = "rolled_back", "Rolled back"


class GateDirection(TextChoices):
    """On which side of its threshold a gate's metric has to be."""

    AT_LEAST = "at_least", "At least"
    AT_MOST = "at_most", "At most"


class GateAction(TextChoices):
    """What follows when a gate's metric is on the wrong side of its threshold."""

    HOLD = "hold", "Hold the pipeline"
    RETRY = "retry", "Retry the phase"
    GO_ON = "go_on", "Go on and say so"


class EvaluationState(TextChoices):
    """One benchmark asked of one model; what was answered is kept, so one that ended badly can go on."""

    QUEUED = "queued", "Queued"
    RUNNING = "running", "Running"
    SUCCEEDED = "succeeded", "Succeeded"
    FAILED = "failed", "Failed"
    LOST = "lost", "Lost"
    STOPPED = "stopped", "Stopped"


EVALUATION_MOVES: dict[str, set[str]] = {
    EvaluationState.QUEUED: {EvaluationState.RUNNING, EvaluationState.STOPPED, EvaluationState.FAILED},
    EvaluationState.RUNNING: {
        EvaluationState.SUCCEEDED,
        EvaluationState.FAILED,
        EvaluationState.LOST,
        EvaluationState.STOPPED,
        EvaluationState.QUEUED,
    },
    EvaluationState.FAILED: {EvaluationState.QUEUED},
    EvaluationState.LOST: {EvaluationState.QUEUED},
    EvaluationState.STOPPED: {EvaluationState.QUEUED},
}
MOVING_EVALUATIONS = frozenset({EvaluationState.QUEUED, EvaluationState.RUNNING})
"""Something is still to come of it."""
