"""JSON from files that others write, made into what PostgreSQL's jsonb can hold. Nothing is refused here."""

from __future__ import annotations

import json
import math
import re
from typing import Any

_SUSPECT = re.compile(rb"\\u(?:0000|[dD][89a-fA-F])|NaN|Infinity|[eE]\+?[0-9]{3}")
"""What may not be stored as it is: NUL, surrogates, numbers that are none or too large for a float."""


def jsonb_loads(line: bytes) -> Any:
    """The value of a JSON text as `jsonb_clean` leaves it. Raises ValueError when it is no JSON."""
    found = json.loads(line)
    return found if _SUSPECT.search(line) is None else jsonb_clean(found)


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
