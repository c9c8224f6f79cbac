"""Talks to a checkpoint's model in the terminal: one question a line, thinking shown in grey."""

from __future__ import annotations

import argparse
import asyncio
import sys
import time
from pathlib import Path

from model_core.errors import CheckpointError, ConfigError

GREY, PLAIN = "\x1b[90m", "\x1b[0m"
MAX_TEMPERATURE = 2.0


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Which model and how it samples."""
    parser.add_argument("model_dir", help="directory with config.json, safetensors and tokenizer")
    parser.add_argument("--temperature", type=float, default=0.0)
    parser.add_argument("--max-tokens", type=int, default=None)


def run(args: argparse.Namespace) -> int:
    """Reads questions until the end of the input. Raises ConfigError naming the option that cannot be."""
    _check_numbers(args)
    asyncio.run(_talk(args))
    return 0


def _check_numbers(args: argparse.Namespace) -> None:
    if not 0 <= args.temperature <= MAX_TEMPERATURE:
        raise ConfigError(f"temperature is {args.temperature}; give 0 to {MAX_TEMPERATURE:g}.", field="temperature")
    if args.max_tokens is not None and args.max_tokens < 1:
        raise ConfigError(f"max_tokens is {args.max_tokens}; give 1 or more.", field="max_tokens")


async def _talk(args: argparse.Namespace) -> None:
    from model_core.serving.backend import ModelBackend, Sampling
    from model_core.serving.reasoning import ReasoningSplitter

    backend = ModelBackend(Path(args.model_dir), num_rows=1, num_threads=2)
    while backend.phase == "loading":
        time.sleep(0.05)
    if backend.phase == "failed":
        raise CheckpointError(backend.detail)
    grey, plain = (GREY, PLAIN) if sys.stdout.isatty() else ("", "")
    for line in sys.stdin:
        prompt = backend.encode([{"role": "user", "content": line.strip()}])
        splitter = ReasoningSplitter()
        async for piece in backend.generate(prompt, Sampling(args.max_tokens, args.temperature)):
            thought, said = splitter.feed(piece.text, last=piece.finish_reason is not None)
            print(f"{grey}{thought}{plain}{said}" if thought else said, end="", flush=True)
        print()
    backend.close()
