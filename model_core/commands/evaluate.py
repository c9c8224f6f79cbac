"""Measures a checkpoint on held-out problems and prints the result as JSON."""

from __future__ import annotations

import argparse
import json

from model_core.config import HeldOutConfig, RewardConfig


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """What is measured on what, and how."""
    defaults = HeldOutConfig()
    parser.add_argument("checkpoint", help="checkpoint directory with a COMPLETE marker")
    parser.add_argument("dataset", help="prepared dataset directory; its held-out problems are asked")
    parser.add_argument("--num-problems", type=int, default=defaults.num_problems)
    parser.add_argument("--temperature", type=float, default=defaults.temperature)
    parser.add_argument("--max-new-tokens", type=int, default=defaults.max_new_tokens)
    parser.add_argument("--seed", type=int, default=0)


def run(args: argparse.Namespace) -> int:
    """Prints accuracy and quality with their intervals."""
    import torch

    from model_core.data.dataset import read_rows
    from model_core.rollout import Sampler
    from model_core.scoring import Rubric
    from model_core.training.measuring import measure
    from model_core.training.start import load_start
    from model_core.training.world import World

    config = HeldOutConfig.parse({
        "num_problems": args.num_problems, "temperature": args.temperature, "max_new_tokens": args.max_new_tokens,
    }, prefix="held_out")
    device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    start = load_start(args.checkpoint)
    sampler = Sampler(start.model.to(device), eos_token_id=int(start.tokenizer.eos_token_id),
                      pad_token_id=int(start.tokenizer.pad_token_id))
    rows = read_rows(args.dataset, "held_out", limit=config.num_problems)
    result = measure(sampler, start.tokenizer, rows, config=config, rubric=Rubric(RewardConfig()),
                     world=World(0, 1, device), seed=args.seed)
    print(json.dumps(result, indent=1, ensure_ascii=False))
    return 0
