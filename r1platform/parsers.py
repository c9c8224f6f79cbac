"""Bodies of the REST API: JSON that the database can hold, checked once for every resource."""

from __future__ import annotations

import math
from collections.abc import Iterator
from typing import Any

from rest_framework.exceptions import ValidationError
from rest_framework.parsers import JSONParser

from r1platform.lib.jsonb import jsonb_clean


class StorableJSONParser(JSONParser):
    """JSON whose every text and number can be stored; what cannot is refused at its field."""

    def parse(self, *args: Any, **kwargs: Any) -> Any:
        found = super().parse(*args, **kwargs)
        wrong = {where or "request": [sentence] for where, sentence in _refused(found, "")}
        if wrong:
            raise ValidationError(wrong)
        return found


def _refused(value: Any, where: str) -> Iterator[tuple[str, str]]:
    """(dotted field, sentence) of what PostgreSQL refuses."""
    if isinstance(value, dict):
        for key, inner in value.items():
            if key != jsonb_clean(key):
                yield where, "A name here holds a zero byte or half of a character; take it out."
            else:
                yield from _refused(inner, f"{where}.{key}" if where else key)
    elif isinstance(value, list):
        for index, inner in enumerate(value):
            yield from _refused(inner, f"{where}.{index}" if where else str(index))
    elif isinstance(value, str) and value != jsonb_clean(value):
        yield where, "This text holds a zero byte or half of a character (a lone surrogate); take it out."
    elif isinstance(value, float) and not math.isfinite(value):
        yield where, "This number is not finite, or too large to be held."
