"""Says what a model takes to train and to serve: parameters, memory of a device, FLOPs, time, cost, the smallest layout that fits.

CONFIG is the name of a preset, a JSON file with a RunConfig, a run directory, or the Hugging Face directory of a dense student.
Nothing is built and torch is not loaded.
"""

from __future__ import annotations

import argparse
import json
import math
import os
import sys
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from model_core.config import PRESETS, ModelConfig, PrecisionConfig, RunConfig, RunPaths, preset
from model_core.errors import ConfigError
from model_core.planner.dense import DenseModel
from model_core.planner.devices import Fleet, parse_devices
from model_core.planner.memory import Work
from model_core.planner.parameters import Shape
from model_core.planner.report import Question, plan
from model_core.planner.run import shape_of, with_vocabulary, work_of
from model_core.planner.seconds import Lengths, Rates
from model_core.planner.table import table
from model_core.rundir import RunDir

SEQUENCE_TOKENS = 4096
"""Length of a sequence where the model's context is longer and nothing is said."""
MAX_COUNT = 2**53
"""Above any number of tokens or rows that there can be."""


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """What is planned, on what, and how much of it."""
    parser.add_argument("config", help=f"a preset ({', '.join(PRESETS)}), a JSON file with a RunConfig, a run "
                        "directory, or a dense student's directory")
    parser.add_argument("--devices", help="what there is, like 8xH200 or 2xCPU:16GB: searches the smallest layout that fits")
    parser.add_argument("--tokens", type=float, help="tokens to train on, for time and cost")
    parser.add_argument("--tokens-per-second", type=float, help="measured throughput of all devices together")
    parser.add_argument("--mfu", type=float, help="instead of a throughput: share of the devices' peak that is reached")
    parser.add_argument("--calibration", type=Path, help="instead of both: file of rates that `calibrate` measured on this machine")
    parser.add_argument("--prompt-tokens", type=int, help="with --calibration: mean length of a prompt")
    parser.add_argument("--answer-tokens", type=int, help="with --calibration: mean length of an answer")
    parser.add_argument("--price", type=float, help="price of a device-hour")
    parser.add_argument("--micro-tokens", type=int, help="tokens of one forward pass")
    parser.add_argument("--sequence", type=int, help="length of a sequence in tokens; at most the model's context")
    parser.add_argument("--checkpointing", action="store_true", help="recompute activations in the backward pass")
    parser.add_argument("--dtype", choices=("float32", "bfloat16", "float16"),
                        help="training precision; of a preset bfloat16 on known devices, else float32")
    parser.add_argument("--vocab-size", type=int, help="where the model has none of its own yet")
    parser.add_argument("--rows", type=int, default=16, help="completions that an engine serves at once")
    parser.add_argument("--json", action="store_true", help="print JSON instead of a table")


def run(args: argparse.Namespace) -> int:
    """Prints the plan. Raises ConfigError naming the option that cannot be."""
    _check_numbers(args)
    fleet = parse_devices(args.devices) if args.devices else None
    planned = plan(_question(args, fleet))
    _print(json.dumps(planned.as_json(), indent=1, allow_nan=False) if args.json else table(planned))
    return 0


def _check_numbers(args: argparse.Namespace) -> None:
    for name in ("tokens", "micro_tokens", "sequence", "vocab_size", "rows", "prompt_tokens", "answer_tokens"):
        value = getattr(args, name)
        if value is not None and not 0 < value <= MAX_COUNT:
            raise ConfigError(f"{name} is {value}; give more than 0 and at most 2^53.", field=name)
    for name in ("tokens_per_second", "mfu", "price"):
        value = getattr(args, name)
        if value is not None and not math.isfinite(value):
            raise ConfigError(f"{name} is {value}; give a number.", field=name)


def _print(text: str) -> None:
    """Prints and flushes. A reader that has seen enough, as `head` has, is no error; Python flushes once more at its end."""
    try:
        print(text, flush=True)
    except BrokenPipeError:
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())


@dataclass(frozen=True)
class _Asked:
    """What CONFIG means: a run, the shape of its model, and whether it is a model alone, which has neither layout nor work."""

    config: RunConfig
    shape: Shape
    is_preset: bool = False


def _question(args: argparse.Namespace, fleet: Fleet | None) -> Question:
    asked = _read(args.config)
    config = asked.config.model_copy(update={"precision": _precision(args, asked, fleet)})
    shape = asked.shape.model_copy(update={"vocab_size": args.vocab_size}) if args.vocab_size else asked.shape
    shape = with_vocabulary(shape, config)
    sequence = args.sequence or min(SEQUENCE_TOKENS, shape.max_position_embeddings)
    if sequence > shape.max_position_embeddings:
        raise ConfigError(
            f"sequence is {sequence}, but the model's context is {shape.max_position_embeddings} tokens; lower it.",
            field="sequence",
        )
    work = Work() if asked.is_preset else work_of(config, shape)
    work = replace(work, micro_tokens=args.micro_tokens or max(work.micro_tokens, sequence * asked.is_preset))
    rates = Rates.parse(_json_of(args.calibration, "calibration"), prefix="calibration") if args.calibration else None
    return Question(
        config=config, shape=shape, work=work, sequence_tokens=sequence, rows=args.rows, fleet=fleet,
        has_layout=not asked.is_preset, tokens=args.tokens, tokens_per_second=args.tokens_per_second, mfu=args.mfu,
        price=args.price, rates=rates, lengths=_lengths(args, config, shape),
    )  # fmt: skip


def _lengths(args: argparse.Namespace, config: RunConfig, shape: Shape) -> Lengths | None:
    """What was said of prompts and answers; the longest answer of a step is taken to be as long as it may."""
    if args.prompt_tokens is None or args.answer_tokens is None:
        return None
    room = shape.max_position_embeddings - args.prompt_tokens
    if args.answer_tokens > room:
        raise ConfigError(f"answer_tokens is {args.answer_tokens}, but behind the prompt the model's context has room for {room}; "
                          "lower it.", field="answer_tokens")
    longest = min(room, int(config.phase_config.get("max_new_tokens", args.answer_tokens)))
    return Lengths(args.prompt_tokens, args.answer_tokens, max(longest, args.answer_tokens))


def _precision(args: argparse.Namespace, asked: _Asked, fleet: Fleet | None) -> PrecisionConfig:
    own = asked.config.precision
    on_known_devices = asked.is_preset and fleet is not None and fleet.device.peak_flops is not None
    return PrecisionConfig(
        dtype=args.dtype or ("bfloat16" if on_known_devices else own.dtype),
        gradient_checkpointing=args.checkpointing or own.gradient_checkpointing,
    )


def _read(text: str) -> _Asked:
    if text in PRESETS:
        shape = preset(text)
        return _Asked(RunConfig.parse({"phase": "cold_start", "model": text}), shape, is_preset=True)
    path = Path(text)
    try:
        is_directory, is_file = path.is_dir(), path.is_file()
    except OSError as error:
        raise ConfigError(f"“{text}” cannot be looked at: {error.strerror}.", field="config") from error
    if is_directory:
        return _of_directory(path)
    if is_file:
        config = RunConfig.parse(_json_of(path))
        return _Asked(config, shape_of(config))
    raise ConfigError(
        f"“{text}” is no preset ({', '.join(PRESETS)}), no file and no directory; name one of them.", field="config"
    )


def _of_directory(path: Path) -> _Asked:
    """A run directory, or that of a dense model; both have a config.json."""
    if (path / "config.json").is_file() and "model_type" in (values := _json_of(path / "config.json")):
        shape = DenseModel.of(values, where=str(path / "config.json"))
        return _Asked(RunConfig.parse({"phase": "distillation"}), shape, is_preset=True)
    config, paths = RunDir(path).load()
    return _Asked(config, _shape_of_start(paths) or shape_of(config))


def _json_of(path: Path, field: str = "config") -> dict[str, Any]:
    try:
        stored = json.loads(path.read_text(encoding="utf-8"))
    except OSError as error:
        raise ConfigError(f"{path} cannot be read: {error.strerror}.", field=field) from error
    except (ValueError, RecursionError) as error:
        raise ConfigError(f"{path} is not valid JSON: {error}.", field=field) from error
    if not isinstance(stored, dict):
        raise ConfigError(f"{path} holds a {type(stored).__name__}, not an object.", field=field)
    run: dict[str, Any] = stored["run"] if isinstance(stored.get("run"), dict) else stored
    return run


def _shape_of_start(paths: RunPaths) -> Shape | None:
    """The shape of what the run starts from: a checkpoint, whose metadata tells it, or a student's directory; None for a new
    model."""
    checkpoint = paths.resume_from or paths.start_from
    if checkpoint is None:
        if paths.student is None:
            return None
        path = Path(paths.student) / "config.json"
        return DenseModel.of(_json_of(path), where=str(path))
    path = Path(checkpoint) / "metadata.json"
    if not path.is_file():
        raise ConfigError(f"{checkpoint} is no checkpoint: it has no metadata.json.", field="config")
    stored = _json_of(path).get("model_config", {})
    return DenseModel.of(stored, where=str(path)) if "model_type" in stored else ModelConfig.parse(stored, prefix="model")
