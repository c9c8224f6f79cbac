"""Tells which experts the tokens of a text are sent to, and how the load of several texts differs by domain."""

from __future__ import annotations

import argparse
import json
from pathlib import Path
from typing import Any

from model_core.errors import DataError, ModelCoreError
from model_core.rundir import write_json

MAX_TOKENS = 512
"""Tokens of the first text that are told one by one, and of each of the others that are counted."""


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Which model, which texts, where to."""
    parser.add_argument("model_dir", type=Path, help="directory with config.json, safetensors and tokenizer")
    parser.add_argument("--texts", type=Path, required=True,
                        help="JSON lines {prompt, completion, domain}; the first is told token by token, all are counted")
    parser.add_argument("--json", type=Path, required=True, metavar="OUT", help="where the routes go, or the error")


def run(args: argparse.Namespace) -> int:
    """Writes {"tokens", "experts", "weights", "entropy", "domains", "num_experts"}, or {"error": {"message", "field"}}; exit
    status 2 with the latter."""
    try:
        write_json(args.json, _told(args.model_dir, _texts(args.texts)))
    except ModelCoreError as error:
        write_json(args.json, {"error": {"message": error.message, "field": error.field}})
        raise
    return 0


def _texts(path: Path) -> list[dict[str, Any]]:
    try:
        found = [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines() if line.strip()]
    except (OSError, ValueError) as error:
        raise DataError(f"{path} cannot be read as JSON lines: {error}.", field="texts") from error
    if not found or not all(isinstance(one, dict) and isinstance(one.get("prompt"), str) for one in found):
        raise DataError(f"{path} needs at least one line, and in each a prompt.", field="texts")
    return found


def _told(directory: Path, texts: list[dict[str, Any]]) -> dict[str, Any]:
    from model_core.data.tokenizer import completion_ids, prompt_ids
    from model_core.errors import CheckpointError
    from model_core.model import Transformer
    from model_core.model.routes import loads_of, routes_of
    from model_core.serving.loading import load_model
    from model_core.training.start import load_tokenizer

    model, tokenizer = load_model(directory), load_tokenizer(directory)
    if not isinstance(model, Transformer):
        raise CheckpointError("This is a dense student: it has no experts.", field="checkpoint")
    limit = min(MAX_TOKENS, model.config.max_position_embeddings)
    by_domain: dict[str, list[Any]] = {}
    tokens: list[int] = []
    for number, text in enumerate(texts):
        ids = prompt_ids(tokenizer, text["prompt"])
        ids = (ids + (completion_ids(tokenizer, text["completion"]) if text.get("completion") else []))[:limit]
        routes = routes_of(model, ids)
        by_domain.setdefault(str(text.get("domain") or ""), []).append(routes)
        if number == 0:
            tokens, first = ids, routes
    num_experts = model.config.n_routed_experts
    return {
        "tokens": [tokenizer.decode([token]) for token in tokens], "experts": first.experts_LTK, "weights": first.weights_LTK,
        "entropy": first.entropy_LT, "num_experts": num_experts,
        "domains": [
            {"domain": name, "num_texts": len(found), "num_tokens": sum(len(one.experts_LTK[0]) for one in found),
             "loads": loads_of(found, num_experts)}
            for name, found in sorted(by_domain.items())
        ],
    }  # fmt: skip
