"""JSON from files that others write, made into what PostgreSQL's jsonb can hold. Nothing is refused here."""

from __future__ import annotations

import json
import math
from typing import Any

import orjson

_NUL = b"\\u0000"
_TO_ZEROS, _LONG = bytes.maketrans(b"123456789", b"000000000"), b"0" * 19
"""Whole numbers of so many digits may need more than 64 bits; orjson would make floats of those."""


def jsonb_loads(line: bytes) -> Any:
    """The value of a JSON text as `jsonb_clean` leaves it. Raises ValueError when it is no JSON.

    orjson is several times as fast and refuses what may not be stored (surrogates, numbers that are none or too large for a
    float), all but NUL.
    """
    try:
        found = orjson.loads(line)
    except orjson.JSONDecodeError:
        return jsonb_clean(json.loads(line))
    if _NUL in line or _LONG in line.translate(_TO_ZEROS):
        return jsonb_clean(json.loads(line))
    return found


def jsonb_dumps(value: Any) -> str:
    """The text of a value that is clean."""
    try:
        return orjson.dumps(value).decode()
    except TypeError:  # a whole number of more than 64 bits
        return json.dumps(value, ensure_ascii=False)


def jsonb_clean(value: Any) -> Any:
    """NUL and lone surrogates become U+FFFD, numbers that are not finite become null; the rest stays as it is."""
    if isinstance(value, str):
        return value.encode("utf-16", "surrogatepass").decode("utf-16", "replace").replace("\x00", "\ufffd")
    if isinstance(value, float):
        return value if math.isfinite(value) else None
    if isinstance(value, dict):
        return {jsonb_clean(key): jsonb_clean(inner) for key, inner in value.items()}
    if isinstance(value, list):
        return [jsonb_clean(inner) for inner in value]
    return value
