"""What a trainer tells: one JSON line each in events.jsonl, written by rank 0 only.

A line is {"seq": int, "time": seconds since the epoch, "kind": str, "payload": {…}}; seq starts at 1 and has no gap.
The kinds and the keys of their payloads are `KINDS`. Readers ignore an unfinished last line. The metric names that
`scalars` may carry, with unit and meaning, are `METRICS`. A number that is not finite is the string "nan", "inf" or "-inf",
wherever it stands. When rank 0 is killed, the next one writes the end.
"""

from __future__ import annotations

import errno
import json
import math
import os
import time
from pathlib import Path
from typing import Any

KINDS: dict[str, str] = {
    "started": "phase, num_processes, device, num_parameters, num_active_parameters, versions",
    "stage": "stage (loading | measuring | sampling | updating | saving), step",
    "progress": "stage, step, total, fraction, remaining_seconds",
    "scalars": "step, tokens, process_seconds, values {metric name: number, null, or “nan”, “inf”, “-inf” as a string}",
    "evaluation": "step, when (before | during | after), accuracy, accuracy_low, accuracy_high, quality, quality_low, "
                  "quality_high, num_problems, components {reward component: mean}, measures {metric: value stderr low high num}, "
                  "unscored, examples",
    "benchmark": "step, name, accuracy, stderr, low, high, num_problems, num_samples, unscored, no_answer, truncated; after the "
                 "last step, when the gate names a benchmark",
    "chains": "num_prompts (asked), num_kept, refused {reason: completions}; once, when rejection sampling has sampled",
    "rollouts": "step, file (relative path), num_groups, num_rollouts, num_stored_groups (fewer than all when they are many)",
    "experts": "step, layers [[share of tokens per expert]], bias [[value per expert]], max_violation [per layer]",
    "checkpoint": "step, path (relative), metrics, size_bytes, sha256, is_final; the last one is told again when measured",
    "checkpoint_removed": "step",
    "fallback": "message: something was done another way than configured",
    "warning": "message, sign (the detector of `model_core.detectors` that speaks; of other warnings there is none)",
    "stopping": "reason, step; also when the gate is safely passed early",
    "error": "type, message, field, rank, stage, step",
    "finished": "the content of result.json",
}

METRICS: dict[str, tuple[str, str]] = {
    "loss": ("nats per token", "Cross-entropy on the completion, or the policy loss; of a reward model nats per pair"),
    "loss/mtp": ("nats per token", "Cross-entropy of multi-token prediction on the token after the next"),
    "pairs/accuracy": ("fraction", "Pairs of the step whose chosen answer scored higher"),
    "pairs/margin": ("", "Mean score of chosen answers minus that of rejected ones"),
    "pairs/chosen": ("", "Mean score of the step's chosen answers"),
    "pairs/rejected": ("", "Mean score of the step's rejected answers"),
    "pairs/centre": ("", "Score that the reward “preference” counts from: a running mean of the answers' scores"),
    "pairs/centring": ("", "Mean square of the sum of a pair's scores, which centre_coef keeps small"),
    "lr": ("", "Highest learning rate of all weights: that of the matrices, unless factors say otherwise"),
    "grad_norm": ("", "Norm of the gradient before clipping"),
    "entropy": ("nats per token", "Entropy of the policy on its own rollouts"),
    "kl": ("nats per token", "Estimate of KL(policy ‖ reference)"),
    "distil/reverse_kl": ("nats per token", "KL(student ‖ teacher) on the step's answers, before the update"),
    "distil/forward_kl": ("nats per token", "KL(teacher ‖ student) on the step's answers, before the update"),
    "distil/agreement": ("fraction", "Tokens at which student and teacher find the same one likeliest"),
    "distil/on_policy_fraction": ("fraction", "Prompts of the step that the student answered"),
    "pg_loss": ("", "Clipped policy-gradient loss"),
    "clip/low": ("fraction", "Tokens whose ratio was clipped from below"),
    "clip/high": ("fraction", "Tokens whose ratio was clipped from above"),
    "reward/total": ("", "Mean weighted reward of the step's rollouts"),
    "reward/std": ("", "Standard deviation of the weighted reward"),
    "reward/frac_zero_std_groups": ("fraction", "Groups whose rewards were all equal: they teach nothing"),
    "adv/mean": ("", "Mean advantage"),
    "adv/std": ("", "Standard deviation of the advantage"),
    "len/mean": ("tokens", "Mean length of a completion"),
    "len/max": ("tokens", "Longest completion"),
    "len/min": ("tokens", "Shortest completion"),
    "len/mean_terminated": ("tokens", "Mean length of the completions that came to their end"),
    "temperature": ("", "Temperature of the step's sampling"),
    "refilled_prompts": ("prompts", "Prompts asked beyond the step's own, in place of those whose rewards were all equal"),
    "train_rollout_ratio/mean": ("", "Mean ratio of the trainer's to the sampler's probability of a sampled token"),
    "train_rollout_ratio/max": ("", "Largest such ratio"),
    "train_rollout_ratio/min": ("", "Smallest such ratio"),
    "aborted_ratio": ("fraction", "Completions that ended neither by themselves nor at the length limit"),
    "staleness/avg_age": ("updates", "Updates that the policy had made since it sampled, mean over the sequences trained on"),
    "perf/sync_s": ("s", "Seconds until the sampler had the step's weights"),
    "perf/logprob_s": ("s", "Seconds of the step in which log-probabilities were only judged: by trainer and reference"),
    "truncated_ratio": ("fraction", "Completions that ran into the length limit"),
    "train_rollout_logprob_diff/mean": ("nats", "Mean |log-probability of trainer − of sampler|"),
    "train_rollout_logprob_diff/max": ("nats", "Largest such difference"),
    "accuracy/rollouts": ("fraction", "Rollouts with the right answer"),
    "moe/max_vio": ("", "Busiest expert's load over the mean, minus 1, worst layer"),
    "moe/load_cv": ("", "Coefficient of variation of the expert loads, mean over layers"),
    "moe/bias_norm": ("", "Norm of the routing bias, mean over layers"),
    "moe/balance_loss": ("", "Sequence-wise balance loss, summed over layers; 1 a layer when loads are even"),
    "fp16/loss_scale": ("", "Factor that keeps float16 gradients from vanishing, in the step's last update"),
    "fp16/skipped": ("updates", "Updates left out since the attempt began, for gradients that overflowed under that factor"),
    "perf/memory_bytes": ("bytes", "Most memory that one device of the run held since the step before; on a CPU, one process"),
    "perf/tok_s": ("tokens/s", "Tokens processed per second"),
    "perf/step_s": ("s", "Seconds of the step"),
    "perf/rollout_s": ("s", "Seconds of sampling in the step"),
    "perf/train_s": ("s", "Seconds of the update in the step"),
    "budget/used_fraction": ("fraction", "Used part of the budget; of several limits the one nearest to its end"),
    "budget/forecast_fraction": ("fraction", "The same after the last step, at the present rate; above 1 the budget ends the run"),
    "perf/reward_s": ("s", "Seconds of scoring in the step"),
    "perf/teacher_s": ("s", "Seconds of the update in which a teacher judged the student's tokens"),
    "eval/accuracy": ("fraction", "Held-out problems answered correctly"),
    "eval/quality": ("", "Mean weighted reward on held-out problems"),
    "eval/loss": ("nats", "Mean loss of a token of the demonstrations of held-out problems"),
}
"""Unit and meaning of each scalar. Families are open: `reward/<component>/mean|std|unscored`, `eval/<component>`, and with several
limits of a budget `budget/<unit>/used|forecast`."""


class EventWriter:
    """Appends events; a line is handed to the system when `emit` returns, and on the disk after `close`. One writer a file.

    Going on in a file that exists continues its numbers, and cuts an unfinished last line off first.
    """

    def __init__(self, path: str | Path) -> None:
        self.path = Path(path)
        self.seq = _mend(self.path)
        self._file = self.path.open("ab", buffering=0)

    def emit(self, kind: str, **payload: Any) -> int:
        """Writes one event and returns its number. Non-finite numbers are written as strings "nan", "inf", "-inf".

        Raises OSError when the line does not fit on the disk; nothing of it is then left, and its number is free.
        """
        assert kind in KINDS, kind
        line = {"seq": self.seq + 1, "time": time.time(), "kind": kind, "payload": _finite(payload)}
        data = json.dumps(line, ensure_ascii=False, allow_nan=False).encode() + b"\n"
        written = self._file.write(data)
        if written != len(data):
            os.ftruncate(self._file.fileno(), os.fstat(self._file.fileno()).st_size - (written or 0))
            raise OSError(errno.ENOSPC, f"only {written or 0} of {len(data)} bytes of an event could be written", str(self.path))
        self.seq += 1
        return self.seq

    def close(self) -> None:
        os.fsync(self._file.fileno())
        self._file.close()


def _mend(path: Path) -> int:
    if not path.exists():
        return 0
    with path.open("rb+") as file:
        data = file.read()
        end = data.rfind(b"\n") + 1
        file.truncate(end)
    last = data[:end].splitlines()[-1:]
    return int(json.loads(last[0])["seq"]) if last else 0


def _finite(value: Any) -> Any:
    if isinstance(value, float) and not math.isfinite(value):
        return "nan" if math.isnan(value) else ("inf" if value > 0 else "-inf")
    if isinstance(value, dict):
        return {key: _finite(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [_finite(item) for item in value]
    return value
