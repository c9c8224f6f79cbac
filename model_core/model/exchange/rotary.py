"""The rotary positions in config.json: `rope_scaling` beside `rope_theta`, or transformers 5's `rope_parameters`.

What a silent file means is what transformers computes for it; what it and DeepSeek's own code compute differently, and
what the model cannot compute, is refused.
"""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any

from model_core.config import YarnConfig
from model_core.errors import CheckpointError

DEFAULT_THETA = 10000.0
_KNOWN = {
    "type", "rope_type", "rope_theta", "factor", "original_max_position_embeddings", "beta_fast", "beta_slow", "mscale",
    "mscale_all_dim", "attention_factor", "truncate", "partial_rotary_factor",
}  # fmt: skip
_ABSENT = {"mscale": 1.0, "mscale_all_dim": 0.0}


def read_rotary(stored: dict[str, Any], path: Path) -> dict[str, Any]:
    """`rope_theta` and `rope_scaling` as ModelConfig takes them. Raises CheckpointError naming what cannot be computed."""
    forms = [name for name in ("rope_scaling", "rope_parameters") if stored.get(name)]
    read = [_read_form(stored, name, path) for name in forms] or [{"rope_theta": _theta(stored, {})}]
    if read[0] != read[-1]:
        raise CheckpointError(f"{path}: rope_scaling and rope_parameters say different things; keep one of them.")
    return read[0]


def written_rotary(yarn: YarnConfig) -> dict[str, Any] | None:
    """The published form of `rope_scaling`."""
    if yarn.factor == 1:
        return None
    written = {"type": "yarn", **yarn.resolved()}
    if not _agree(yarn, written):
        written["attention_factor"] = _strength_of_deepseek(yarn)  # else transformers would take another one
    return written


def _read_form(stored: dict[str, Any], name: str, path: Path) -> dict[str, Any]:
    given = stored[name]
    if not isinstance(given, dict):
        raise CheckpointError(f"{path}: {name} is {given!r}, not an object with the rotary positions.")
    given = {key: value for key, value in given.items() if value is not None or key == "truncate"}
    if unknown := sorted(given.keys() - _KNOWN):
        raise CheckpointError(f"{path}: {name} has {unknown[0]}, which is not known here. Known: {', '.join(sorted(_KNOWN))}.")
    kind = given.get("rope_type", given.get("type", "default"))
    if kind not in ("default", "yarn"):
        raise CheckpointError(f"{path}: {name} asks for {kind!r} positions, which cannot be built here, only default and yarn.")
    for key, value in (("truncate", True), ("partial_rotary_factor", 1.0)):
        if given.get(key, value) != value:
            raise CheckpointError(f"{path}: {name}.{key} is {given[key]!r}, which cannot be built here, only {value!r}.")
    read = {"rope_theta": _theta(stored, given)}
    return read if kind == "default" else read | {"rope_scaling": _yarn(stored, given, f"{path}: {name}")}


def _yarn(stored: dict[str, Any], given: dict[str, Any], where: str) -> dict[str, Any]:
    context, beside = stored.get("max_position_embeddings"), stored.get("original_max_position_embeddings")
    original = given.get("original_max_position_embeddings", context)
    if beside not in (None, original):
        raise CheckpointError(
            f"{where}.original_max_position_embeddings is {original!r}, but config.json also says {beside!r} beside it; keep one."
        )
    if "factor" not in given:
        raise CheckpointError(f"{where} does not say factor, how many times longer the context is than the original one.")
    read = {name: given[name] for name in ("factor", "beta_fast", "beta_slow") if name in given}
    read |= {"original_max_position_embeddings": original} | {name: given.get(name, absent) for name, absent in _ABSENT.items()}
    yarn = YarnConfig.parse(read, prefix=where)
    _check_strength(yarn, given, where)
    return yarn.resolved()


def _check_strength(yarn: YarnConfig, given: dict[str, Any], where: str) -> None:
    ours, found = _strength_of_deepseek(yarn), given.get("attention_factor")
    if found is not None:
        if not isinstance(found, (int, float)) or not math.isclose(found, ours, rel_tol=1e-6):
            raise CheckpointError(
                f"{where}.attention_factor is {found!r}, but factor and the mscales make it {ours!r}, the only value that can be "
                "built here; remove attention_factor, or make it that."
            )
    elif not _agree(yarn, given):
        raise CheckpointError(
            f"{where} means mscale {yarn.mscale} and mscale_all_dim {yarn.mscale_all_dim} to DeepSeek's code, but not to "
            f"transformers; give both above 0, or add attention_factor {ours!r} for DeepSeek's reading."
        )


def _agree(yarn: YarnConfig, given: dict[str, Any]) -> bool:
    """Whether transformers computes what DeepSeek does: it looks at the mscales only when both are given and not 0."""
    both = all(given.get(name) for name in _ABSENT)
    return both or math.isclose(_strength_of_deepseek(yarn), _strength(yarn.factor, 1.0), rel_tol=1e-9)


def _strength_of_deepseek(yarn: YarnConfig) -> float:
    return _strength(yarn.factor, yarn.mscale) / _strength(yarn.factor, yarn.mscale_all_dim)


def _strength(factor: float, mscale: float) -> float:
    return 0.1 * mscale * math.log(factor) + 1.0


def _theta(stored: dict[str, Any], given: dict[str, Any]) -> Any:
    beside = stored.get("rope_theta")
    return given.get("rope_theta", DEFAULT_THETA if beside is None else beside)
