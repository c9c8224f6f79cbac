"""Copies a model directory into another in Hugging Face form: reads every weight, checks it, writes safetensors anew."""

from __future__ import annotations

import argparse
from pathlib import Path

from model_core.errors import CheckpointError


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """From where to where."""
    parser.add_argument("source", help="directory with config.json, safetensors and tokenizer")
    parser.add_argument("target", help="directory that does not exist yet")


def run(args: argparse.Namespace) -> int:
    """Loads and saves; what cannot be loaded is said and nothing is written."""
    from transformers import AutoTokenizer

    from model_core.model import load_pretrained, save_pretrained

    if Path(args.target).exists():
        raise CheckpointError(f"{args.target} exists; choose a directory that does not.")
    model = load_pretrained(args.source)
    tokenizer = AutoTokenizer.from_pretrained(args.source, local_files_only=True, trust_remote_code=False)
    save_pretrained(model, args.target, tokenizer)
    return 0
