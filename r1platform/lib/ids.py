"""Ids of rows in addresses and forms, which anybody can write."""

from __future__ import annotations


def id_of(text: str) -> int | None:
    """The id that a text is; None when it is no whole number, or one that no row can have."""
    return int(text) if text.isdecimal() and len(text) < 18 else None


def ids_of(texts: list[str]) -> list[int]:
    """The ids among them."""
    return [found for text in texts if (found := id_of(text)) is not None]
