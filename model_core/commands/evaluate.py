"""Measures a model: on a dataset's held-out problems, or on a benchmark; prints the result, or writes it as JSON."""

from __future__ import annotations

import argparse
import json
import os
import sys
from pathlib import Path
from typing import Any

from model_core.config import HeldOutConfig, RewardConfig
from model_core.errors import ConfigError
from model_core.sources._hosts import narrow_as_asked

_SAMPLING = ("prompt", "num_samples", "temperature", "top_p", "max_new_tokens")


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Two forms: CHECKPOINT DATASET, or --benchmark NAME --data FILE and one source of completions."""
    parser.add_argument("held_out", nargs="*", metavar="CHECKPOINT DATASET",
                        help="checkpoint and prepared dataset: its held-out problems are asked and the result is printed")
    parser.add_argument("--benchmark", metavar="NAME", help="gsm8k, math500, arc_challenge, aime24, task, or custom")
    parser.add_argument("--data", type=Path, metavar="FILE", help="the benchmark's JSONL file")
    parser.add_argument("--checkpoint", metavar="DIR", help="a checkpoint answers")
    parser.add_argument("--endpoint", metavar="URL",
                        help="an OpenAI-compatible endpoint answers; its key is the environment's OPENAI_API_KEY")
    parser.add_argument("--completions", metavar="FILE",
                        help='texts that are given: {"row": 0-based row, "completion": text} a line')
    parser.add_argument("--json", type=Path, metavar="OUT",
                        help="where the benchmark's result goes; OUT.samples.jsonl keeps the texts")
    parser.add_argument("--model", default="", help="model of the endpoint; without it the first that it lists")
    parser.add_argument("--limit", type=int, help="only the first problems")
    parser.add_argument("--num-problems", type=int, help="held-out problems that are asked")
    parser.add_argument("--num-samples", type=int, help="completions of each problem of a benchmark")
    parser.add_argument("--temperature", type=float)
    parser.add_argument("--top-p", type=float)
    parser.add_argument("--max-new-tokens", type=int)
    parser.add_argument("--prompt", help="what is asked instead of the benchmark's pinned prompt; {question} is filled in")
    parser.add_argument("--fields", default="{}", metavar="JSON", help='of `custom`: {"answer_field": "solution"}')
    parser.add_argument("--seed", type=int, default=0)


def run(args: argparse.Namespace) -> int:
    """Prints accuracy and quality with their intervals, or writes the benchmark's result and prints one line of it."""
    if args.benchmark:
        return _benchmark(args)
    if len(args.held_out) != 2:
        raise ConfigError("Give CHECKPOINT DATASET, or --benchmark NAME with --data FILE.", field="benchmark")
    print(json.dumps(_held_out(args), indent=1, ensure_ascii=False))
    return 0


def _benchmark(args: argparse.Namespace) -> int:
    from model_core.evaluation.running import Source, evaluate

    if args.held_out:
        raise ConfigError(f"{args.held_out[0]} stands alone; name the source of completions by --checkpoint.", field="checkpoint")
    if args.data is None or args.json is None:
        raise ConfigError("A benchmark needs --data FILE and --json OUT.", field="data" if args.data is None else "json")
    overrides = _fields(args.fields) | {name: value for name in _SAMPLING if (value := getattr(args, name)) is not None}
    source: Source = _source(args)
    result = evaluate(args.benchmark, args.data, source, out=args.json, overrides=overrides, limit=args.limit, seed=args.seed,
                      on_progress=_progress if sys.stderr.isatty() else None)
    print(_line(result))
    return 0


def _fields(given: str) -> dict[str, Any]:
    try:
        fields = json.loads(given)
    except json.JSONDecodeError:
        fields = None
    if not isinstance(fields, dict):
        raise ConfigError(f"fields is {given!r:.80}; give a JSON object of the benchmark's settings.", field="fields")
    return fields


def _source(args: argparse.Namespace) -> Any:
    from model_core.evaluation import sources

    given = [name for name in ("checkpoint", "endpoint", "completions") if getattr(args, name)]
    if len(given) != 1:
        raise ConfigError(f"Completions come from one of --checkpoint, --endpoint and --completions; here are {len(given)}.",
                          field=given[1] if given else "checkpoint")
    if args.checkpoint:
        return sources.Checkpoint(args.checkpoint)
    if args.endpoint:
        narrow_as_asked()
        return sources.Endpoint(args.endpoint, model=args.model, api_key=os.environ.get("OPENAI_API_KEY", ""))
    return sources.Given(args.completions, num_rows=_num_rows(args.data))


def _num_rows(data: Path) -> int:
    from model_core.evaluation.problems import num_rows

    return num_rows(data)


def _line(result: dict[str, Any]) -> str:
    accuracy = result["accuracy"]
    if accuracy is None:
        return f"{result['benchmark']}: nothing could be scored ({result['unscored']} unscored)."
    error = f" ± {result['stderr']:.1%}" if result["stderr"] is not None else ""
    unscored = f", {result['unscored']} unscored" if result["unscored"] else ""
    return f"{result['benchmark']}: {accuracy:.1%}{error} of {result['num_problems']} problems{unscored}."


def _progress(done: int, total: int) -> None:
    sys.stderr.write(f"\r{done} of {total} problems" + ("\n" if done == total else ""))
    sys.stderr.flush()


def _held_out(args: argparse.Namespace) -> dict[str, Any]:
    import torch

    from model_core.data.dataset import read_rows
    from model_core.scoring import Rubric
    from model_core.training.families import family_of
    from model_core.training.measuring import measure
    from model_core.training.students import load_answering
    from model_core.training.world import World

    checkpoint, dataset = args.held_out
    names = ("num_problems", "temperature", "max_new_tokens")
    config = HeldOutConfig.parse({name: value for name in names if (value := getattr(args, name)) is not None}, prefix="held_out")
    device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    start = load_answering(checkpoint)
    sampler = family_of(start.model_config).sampler(start.model.to(device), start.tokenizer)
    rows = read_rows(dataset, "held_out", limit=config.num_problems)
    return measure(sampler, start.tokenizer, rows, config=config, rubric=Rubric(RewardConfig()),
                   world=World(0, 1, device), seed=args.seed)
