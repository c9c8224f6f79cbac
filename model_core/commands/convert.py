"""Copies a model directory into another in Hugging Face form: reads every weight, checks it, writes safetensors anew.

8-bit weights become ordinary ones; no model is built, so that the memory of one tensor is enough.
"""

from __future__ import annotations

import argparse

BYTE = 1e-9
DTYPES = ("float32", "bfloat16", "float16")


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """From where to where, and how."""
    parser.add_argument("source", help="directory with config.json and safetensors, and a tokenizer if there is one")
    parser.add_argument("target", help="directory that does not exist yet")
    parser.add_argument("--dtype", choices=DTYPES, help="format of the written weights; without it, what config.json says")
    parser.add_argument("--max-shard-gb", type=_size, default=5.0, help="largest file, in 10^9 bytes (default: 5)")


def run(args: argparse.Namespace) -> int:
    """Converts and says how far it is; what cannot be read is said and nothing is written."""
    import torch

    from model_core.model.exchange import convert

    dtype = None if args.dtype is None else getattr(torch, args.dtype)
    convert(args.source, args.target, dtype=dtype, max_shard_bytes=int(args.max_shard_gb * 1e9), say=_say)
    return 0


def _size(text: str) -> float:
    try:
        size = float(text)
    except ValueError:
        size = 0.0
    if not BYTE <= size < float("inf"):
        raise argparse.ArgumentTypeError(f"{text} is not a size of a byte (1e-9) or more")
    return size


def _say(line: str) -> None:
    print(line, flush=True)
