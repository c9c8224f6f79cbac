"""Many things of one source handed on at once."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from typing import TypeVar

from model_core.errors import DataError

T = TypeVar("T")


def gathered(items: Iterable[T], size_of: Callable[[T], int], *, enough: int, most_items: int | None = None) -> Iterator[list[T]]:
    """Lists of items whose sizes add up to `enough`, or that are `most_items`. What ends the source early, a DataError, is raised
    behind the items before it: they may hold an earlier error."""
    held: list[T] = []
    size = 0
    try:
        for item in items:
            held.append(item)
            size += size_of(item)
            if size >= enough or len(held) == most_items:
                yield held
                held, size = [], 0
    except DataError:
        if held:
            yield held
        raise
    if held:
        yield held
