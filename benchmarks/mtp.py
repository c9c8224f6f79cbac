"""Self-speculative decoding at batch 1 against plain decoding, on models trained with multi-token prediction.

The demo's task and vocabulary, greedy, one thread, float32; both give the same tokens, which is checked. The two take
turns prompt by prompt; the measure is the CPU time of the thread after the first token, the median of the rounds. A draft
costs one more block, so the gain grows with the number of blocks. Goal: 1.3 times the tokens a second.
"""

from __future__ import annotations

import statistics
import time
from collections import defaultdict
from typing import Any

import torch
import torch.nn.functional as F

from benchmarks._report import write
from model_core.config import ModelConfig, TokenizerConfig, preset
from model_core.data.batches import pack_batch
from model_core.data.dataset import Row
from model_core.data.order import indices_of_step
from model_core.data.tokenizer import encode_rows, train_tokenizer
from model_core.model import Transformer
from model_core.rollout.batch import Batch, Wish
from model_core.rollout.speculative import Speculation
from model_core.tasks.sums import Sums
from model_core.training.muon import MuonWithAdamW

MTP_WEIGHT, NUM_STEPS, BATCH_SIZE, NUM_ROUNDS, NUM_ASKED, NEW_TOKENS = 0.3, 200, 32, 5, 16, 64
GEOMETRIES: dict[str, dict[str, Any]] = {"tiny": {}, "tiny with 6 blocks": {"num_hidden_layers": 6}}
WAYS: dict[str, type[Speculation | Batch]] = {"ours": Speculation, "peer": Batch}
Example = tuple[list[int], list[int]]


def main() -> None:
    """Trains and measures each geometry, and writes the result; the headline is the deeper one's."""
    torch.set_num_threads(1)
    detail = {name: measure(**changes) for name, changes in GEOMETRIES.items()}
    best = max(detail.values(), key=lambda one: float(one["batch 1"]["ratio"]))["batch 1"]
    write(
        "mtp", packages=("torch",), ours=best["ours"], peer=best["peer"], ratio=best["ratio"],
        unit="tokens per second of one thread at batch 1, greedy, after the first; the peer is our plain decoding; goal 1.3",
        detail=detail,
    )  # fmt: skip


def measure(**changes: Any) -> dict[str, Any]:
    """Tokens a second with and without drafts, and how often a draft is right."""
    train, asked, special = _examples()
    config = preset("tiny").model_copy(update={"vocab_size": special["size"], "num_nextn_predict_layers": 1, **changes})
    began = time.thread_time()
    model = _trained(config, train)
    seconds = time.thread_time() - began
    batches = {f"batch {num}": _compared(model, [prompt for prompt, _ in asked], special, num) for num in (1, 2, 4, 8)}
    return {**batches, "training_seconds": round(seconds, 1), "num_training_steps": NUM_STEPS}


def _examples() -> tuple[list[Example], list[Example], dict[str, int]]:
    made = list(Sums().generate(0, 2000, NUM_ASKED))
    rows = {split: [Row(**row) for name, row in made if name == split] for split in ("train", "held_out")}
    tokenizer = train_tokenizer(TokenizerConfig(kind="words"), rows["train"])
    special = {"eos": int(tokenizer.eos_token_id), "pad": int(tokenizer.pad_token_id), "size": len(tokenizer)}
    return encode_rows(tokenizer, rows["train"]), encode_rows(tokenizer, rows["held_out"]), special


def _trained(config: ModelConfig, examples: list[Example]) -> Transformer:
    torch.manual_seed(0)
    model = Transformer(config)
    named = dict(model.named_parameters())
    matrices = [p for name, p in named.items() if p.ndim > 1 and "layers" in name and "gate.weight" not in name]
    rest = [p for p in named.values() if not any(p is matrix for matrix in matrices)]
    groups = [{"params": matrices, "use_muon": True}, {"params": rest, "use_muon": False}]
    optimizer = MuonWithAdamW(groups, clip_norm=1.0)
    for step in range(NUM_STEPS):
        share = min(1.0, (step + 1) / 20, 2 * (1 - step / NUM_STEPS) + 0.02)
        optimizer.param_groups[0]["lr"], optimizer.param_groups[1]["lr"] = 0.02 * share, 3e-3 * share
        chosen = indices_of_step(step, num_examples=len(examples), batch_size=BATCH_SIZE, seed=0)
        batch = pack_batch([examples[i] for i in chosen])
        logits, later = model(batch.tokens_1N, packing=batch.packing, at_M=batch.at_M, next_at_M=batch.next_at_M)
        loss = F.cross_entropy(logits, batch.targets_M) + MTP_WEIGHT * F.cross_entropy(later, batch.next_targets_M)
        model.zero_grad(set_to_none=True)
        loss.backward()
        optimizer.step()
    return model.eval()


@torch.no_grad()
def _compared(model: Transformer, prompts: list[list[int]], special: dict[str, int], num_rows: int) -> dict[str, Any]:
    """Rates after the first token; `whole_ratio` counts the reading of the prompts too."""
    rounds = [_round(model, prompts, special, num_rows) for _ in range(NUM_ROUNDS)]
    rates = {who: statistics.median(one["num_tokens"] / (one[who] - one[f"{who}_first"]) for one in rounds) for who in WAYS}
    ratio = statistics.median((one["peer"] - one["peer_first"]) / (one["ours"] - one["ours_first"]) for one in rounds)
    whole = statistics.median(one["peer"] / one["ours"] for one in rounds)
    return {
        **{who: round(rate) for who, rate in rates.items()}, "ratio": round(ratio, 2), "whole_ratio": round(whole, 2),
        "accepted": round(rounds[0]["accepted"] / rounds[0]["steps"], 3),
    }  # fmt: skip


def _round(model: Transformer, prompts: list[list[int]], special: dict[str, int], num_rows: int) -> dict[str, float]:
    """Seconds of both for all prompts, and for their first tokens alone; drafted steps and drafts that were right."""
    found: dict[str, float] = defaultdict(float)
    for first in range(0, len(prompts), num_rows):
        some = prompts[first : first + num_rows]
        said = {}
        for who, way in WAYS.items():
            for limit, name in ((1, f"{who}_first"), (NEW_TOKENS, who)):
                work = way(model, Wish(some, 1, limit, 0.0, 1.0, 0, special["eos"], special["pad"]), num_rows)
                began = time.thread_time()
                work.run()
                found[name] += time.thread_time() - began
            said[who] = [group[0].tokens for group in work.completions]
            if isinstance(work, Speculation):
                found["steps"], found["accepted"] = found["steps"] + work.num_steps, found["accepted"] + work.num_accepted
        assert said["ours"] == said["peer"]
        found["num_tokens"] += sum(len(tokens) - 1 for tokens in said["ours"])
    return found


if __name__ == "__main__":
    main()
