"""Scores the stored rollouts of a run again under another reward and writes both as JSON."""

from __future__ import annotations

import argparse
import json
from pathlib import Path
from typing import Any

from model_core.config import RewardConfig
from model_core.errors import ConfigError
from model_core.rundir import RunDir, write_json


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Which run, which reward, where to."""
    parser.add_argument("run_dir", type=Path, help="run directory; its samples are read")
    parser.add_argument("--reward", required=True, help="name of a profile (article, r1_zero, r1), or a RewardConfig as JSON")
    parser.add_argument("--json", type=Path, metavar="OUT", help="where every step with its groups goes")


def run(args: argparse.Namespace) -> int:
    """Prints a line a step: mean reward before and after, and in how many groups another completion would be the best."""
    from model_core.rescoring import rescore

    reward = RewardConfig.parse(_asked(args.reward))
    steps = []
    for step in rescore(RunDir(args.run_dir).samples, reward):
        unscored = f"; {step['unscored']} unscored" if step["unscored"] else ""
        print(f"step {step['step']}: {_number(step['before'])} → {_number(step['after'])}; another best in "
              f"{step['other_best']} of {len(step['groups'])} groups{unscored}")
        if args.json:
            steps.append(step)
    if args.json:
        write_json(args.json, {"reward": reward.resolved(), "steps": steps})
    return 0


def _asked(text: str) -> dict[str, Any] | str:
    if not text.lstrip().startswith("{"):
        return text
    try:
        asked: dict[str, Any] = json.loads(text)
    except ValueError as error:
        raise ConfigError(f"--reward is neither the name of a profile nor JSON ({error}).", field="reward") from error
    return asked


def _number(value: float | None) -> str:
    return "unscored" if value is None else f"{value:.4f}"
