"""The line of a version that holds a row: what `json` writes, keys in order, made faster for texts and for what is empty."""

from __future__ import annotations

import json
from collections.abc import Mapping
from functools import lru_cache
from json.encoder import encode_basestring
from typing import Any

_to_json = json.JSONEncoder(ensure_ascii=False, sort_keys=True).encode
_CONTROLS = bytes(code for code in range(32) if code != ord("\n"))
"""What `json` escapes beside the quotation mark, the backslash and the line break."""


def line_of(row: Mapping[str, Any]) -> bytes:
    """The row as JSON, with a line break behind it."""
    return b"{" + b", ".join([_key(name) + _value(row[name]) for name in sorted(row)]) + b"}\n"


@lru_cache(maxsize=100)
def _key(name: str) -> bytes:
    return f"{encode_basestring(name)}: ".encode()


def _value(value: Any) -> bytes:
    if type(value) is str:
        return _text(value)
    if value is None:
        return b"null"
    return b"{}" if value == {} else _to_json(value).encode()


def _text(value: str) -> bytes:
    text = value.encode()
    if len(text.translate(None, _CONTROLS)) < len(text):
        return encode_basestring(value).encode()
    return b'"' + text.replace(b"\\", b"\\\\").replace(b'"', b'\\"').replace(b"\n", b"\\n") + b'"'
