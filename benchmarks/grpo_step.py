"""One step of GRPO of ours against TRL's `GRPOTrainer`: 512 rollouts, one update, float32, one thread, one process.

Equal weights, prompts (32 of 16 tokens), groups (16), reward and loss (mean over tokens, no KL, AdamW, gradient clipped).
*Equal*: every completion has 48 tokens, because the end token is none that the model has. *Mixed*: it is, so that a
completion ends with a probability of 1/60 a token and after 64 at the latest, as in `rollout`. The peer runs its experts
grouped, with SDPA, and at the micro-batch of `MICRO_BATCHES` that is fastest for it; ours with the phase's defaults. They
take turns; the measure is completions' tokens a second of CPU time of the thread, the median of the steps after the first.
"update" is all that is neither generation nor reward. Goal: 2.5 times the peer's speed.
"""

from __future__ import annotations

import random
import statistics
import tempfile
import time
from collections import defaultdict
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch
from torch import nn

from benchmarks._report import write
from model_core.config import preset
from model_core.data.dataset import Row
from model_core.grpo.rollouts import Group, Rollout, with_advantages
from model_core.grpo.update import MinibatchLosses, Objective, lessons
from model_core.model import Transformer, save_pretrained
from model_core.phases.reinforcement import Reinforcement
from model_core.rollout import Sampler
from model_core.scoring import Scored
from model_core.training.world import World

VOCABULARY, PAD = 60, 0
NUM_PROMPTS, GROUP, PROMPT_TOKENS = 32, 16, 16
MICRO_BATCHES, NUM_STEPS, LR = (32, 64, 128, 256), 4, 1e-4
Stages = dict[str, float]
"""Seconds of one step by stage, and "tokens": of its completions."""


@dataclass(frozen=True)
class Case:
    """Which token ends a completion, and after how many it is cut."""

    eos: int
    new_tokens: int


CASES = {"equal": Case(eos=VOCABULARY, new_tokens=48), "mixed": Case(eos=1, new_tokens=64)}


def main() -> None:
    """Measures both cases and writes the result; the ratio is the worse one's."""
    torch.set_num_threads(1)
    detail = {name: measure(case) for name, case in CASES.items()}
    worst = min(detail.values(), key=lambda one: float(one["ratio"]))
    write(
        "grpo_step", packages=("torch", "transformers", "trl"), ours=worst["ours"], peer=worst["peer"], ratio=worst["ratio"],
        unit="completions' tokens per second of one thread in a step of 512 rollouts; goal 2.5", detail=detail,
    )  # fmt: skip


def measure(case: Case) -> dict[str, Any]:
    """Ours beside the peer at each micro-batch."""
    draw = random.Random(0)
    prompts = [[draw.randrange(2, VOCABULARY) for _ in range(PROMPT_TOKENS)] for _ in range(NUM_PROMPTS)]
    ours: list[Stages] = []
    peers: dict[int, Stages] = {}
    for micro_batch in MICRO_BATCHES:
        torch.manual_seed(0)
        model = Transformer(preset("tiny").model_copy(update={"vocab_size": VOCABULARY}))
        with tempfile.TemporaryDirectory() as directory:
            save_pretrained(model, directory)
            peers[micro_batch] = _medians(_their_steps(directory, prompts, case, micro_batch)[1:])
        ours += _our_steps(model, prompts, case)[1:]
    mine, speeds = _medians(ours), {size: stages["tokens"] / stages["step"] for size, stages in peers.items()}
    best = max(speeds, key=lambda size: speeds[size])
    peer, speed = peers[best], mine["tokens"] / mine["step"]
    return {
        "ours": round(speed), "peer": round(speeds[best]), "ratio": round(speed / speeds[best], 2), "micro_batch": best,
        "stages": {"ours": _rounded(mine), "peer": _rounded(peer)},
        "ratios": {
            stage: round(peer[stage] / peer["tokens"] * mine["tokens"] / mine[stage], 2) for stage in ("generation", "update")
        },
        "peer_by_micro_batch": {size: round(one) for size, one in speeds.items()},
    }  # fmt: skip


def reward(tokens: list[int]) -> float:
    """Share of even tokens: cheap, and different in almost every completion."""
    return sum(token % 2 == 0 for token in tokens) / len(tokens)


def _our_steps(model: Transformer, prompts: list[list[int]], case: Case) -> list[Stages]:
    settings = Reinforcement.Config()
    optimizer = torch.optim.AdamW(model.parameters(), lr=LR, fused=True)
    objective = Objective(settings.clip_low, settings.clip_high, settings.kl_coef, settings.temperature)
    sampler = Sampler(model, eos_token_id=case.eos, pad_token_id=PAD)
    found = []
    for step in range(NUM_STEPS):
        marks = [time.thread_time()]
        drawn = sampler.generate(prompts, num_samples=GROUP, max_new_tokens=case.new_tokens, seed=step)
        marks.append(time.thread_time())
        groups = with_advantages([
            Group(Row(""), prompt, [
                Rollout(one.tokens, one.logprobs, one.finish_reason, "", Scored(reward(one.tokens), {}, None, "")) for one in of_one
            ])
            for prompt, of_one in zip(prompts, drawn, strict=True)
        ], settings.advantage)  # fmt: skip
        marks.append(time.thread_time())
        _update(model, optimizer, MinibatchLosses(lessons(groups), objective, max_tokens=settings.max_micro_tokens,
                                                  world=World(0, 1, torch.device("cpu"))))
        marks.append(time.thread_time())
        found.append({"generation": marks[1] - marks[0], "reward": marks[2] - marks[1], "update": marks[3] - marks[2],
                      "step": marks[3] - marks[0], "tokens": sum(len(one.tokens) for of_one in drawn for one in of_one)})
    return found


def _update(model: nn.Module, optimizer: torch.optim.Optimizer, losses: MinibatchLosses) -> None:
    optimizer.zero_grad()
    for compute in losses.callables:
        compute(model).backward()  # type: ignore[no-untyped-call]
    nn.utils.clip_grad_norm_(model.parameters(), 1.0)
    optimizer.step()


def _their_steps(directory: str, prompts: list[list[int]], case: Case, micro_batch: int) -> list[Stages]:
    from datasets import Dataset
    from transformers import AutoModelForCausalLM
    from trl.trainer.grpo_config import GRPOConfig
    from trl.trainer.grpo_trainer import GRPOTrainer

    model = AutoModelForCausalLM.from_pretrained(
        directory, dtype=torch.float32, attn_implementation="sdpa", experts_implementation="grouped_mm"
    )
    args = GRPOConfig(
        output_dir=f"{directory}/out", per_device_train_batch_size=micro_batch,
        gradient_accumulation_steps=NUM_PROMPTS * GROUP // micro_batch, num_generations=GROUP,
        max_completion_length=case.new_tokens, temperature=1.0, top_k=0, beta=0.0, loss_type="dapo",
        max_steps=NUM_STEPS, learning_rate=LR, lr_scheduler_type="constant",
        optim="adamw_torch_fused", max_grad_norm=1.0, bf16=False, use_cpu=True, gradient_checkpointing=False, report_to="none",
        save_strategy="no", logging_strategy="no", disable_tqdm=True,
    )  # fmt: skip
    trainer = GRPOTrainer(
        model, reward_funcs=_rewards, args=args,
        train_dataset=Dataset.from_list([{"prompt": " ".join(f"t{token}" for token in prompt)} for prompt in prompts]),
        processing_class=_tokenizer(case.eos),
    )  # fmt: skip
    watch = _Watch(trainer)
    trainer.add_callback(watch.callback())
    trainer.train()
    assert case.eos < VOCABULARY or set(watch.lengths) == {case.new_tokens}, "unequal work"
    return watch.steps


def _rewards(completion_ids: list[list[int]], **_more: Any) -> list[float | None]:
    return [reward(tokens) for tokens in completion_ids]


class _Watch:
    """Takes the seconds of a trainer's stages, step by step."""

    def __init__(self, trainer: Any) -> None:
        self.steps: list[Stages] = []
        self._seconds: dict[str, float] = defaultdict(float)
        self._began = 0.0
        self.lengths: list[int] = []
        generate = trainer._generate_single_turn

        def generated(prompt_ids: list[list[int]], *given: Any, **more: Any) -> Any:
            found = generate(prompt_ids, *given, **more)
            lengths = [len(completion) for completion in found[0]]
            self._seconds["tokens"] += sum(lengths)
            self.lengths += lengths
            return found

        trainer._generate_single_turn = self._timed("generation", generated)
        trainer._calculate_rewards = self._timed("reward", trainer._calculate_rewards)

    def callback(self) -> Any:
        """What tells the trainer's steps apart."""
        from transformers import TrainerCallback

        watch = self

        class Steps(TrainerCallback):
            def on_step_begin(self, *_given: Any, **_more: Any) -> None:
                watch._seconds.clear()
                watch._began = time.thread_time()

            def on_step_end(self, *_given: Any, **_more: Any) -> None:
                total = time.thread_time() - watch._began
                spent = watch._seconds["generation"] + watch._seconds["reward"]
                watch.steps.append({**watch._seconds, "update": total - spent, "step": total})

        return Steps()

    def _timed(self, stage: str, function: Callable[..., Any]) -> Callable[..., Any]:
        def timed(*given: Any, **more: Any) -> Any:
            began = time.thread_time()
            found = function(*given, **more)
            self._seconds[stage] += time.thread_time() - began
            return found

        return timed


def _tokenizer(eos: int) -> Any:
    from tokenizers import Tokenizer, models, pre_tokenizers
    from transformers import PreTrainedTokenizerFast

    words = Tokenizer(models.WordLevel({f"t{number}": number for number in range(VOCABULARY + 1)}, unk_token=f"t{PAD}"))
    words.pre_tokenizer = pre_tokenizers.WhitespaceSplit()
    made: Any = PreTrainedTokenizerFast
    return made(tokenizer_object=words, eos_token=f"t{eos}", pad_token=f"t{PAD}", padding_side="left")


def _medians(steps: list[Stages]) -> Stages:
    return {stage: statistics.median(one[stage] for one in steps) for stage in steps[0]}


def _rounded(stages: Stages) -> Stages:
    return {stage: round(seconds, 4) for stage, seconds in stages.items()}


if __name__ == "__main__":
    main()
