"""Values of tables and of the hub as JSON knows them."""

from __future__ import annotations

import math
from typing import Any

_SAME = (str, bool, int, float, type(None))


def plain(value: Any) -> Any:
    """Text, numbers, lists and objects stay; infinite numbers become null, dates and all else their text."""
    if isinstance(value, float) and not math.isfinite(value):
        return None
    if isinstance(value, _SAME):
        return value
    if isinstance(value, list):
        return [plain(inner) for inner in value]
    if isinstance(value, dict):
        return {str(key): plain(inner) for key, inner in value.items()}
    return value.decode("utf-8", "replace") if isinstance(value, bytes) else str(value)
