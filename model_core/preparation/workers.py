"""Judges pieces of the source in order, here or in other processes; the result is the same.

Few pieces are under way at once, so that a source that is faster than the filters does not fill the memory.
"""

from __future__ import annotations

import multiprocessing
from collections import deque
from collections.abc import Iterable, Iterator, Mapping
from concurrent.futures import Future, ProcessPoolExecutor
from pathlib import Path
from typing import Any

from model_core.config import PrepareConfig
from model_core.errors import DataError
from model_core.preparation.judging import Chunk, Judge, Piece

AHEAD = 3
"""Pieces under way for each process."""
_judges: list[Judge] = []
"""The judge of this process when it is a worker."""


def judged_chunks(
    pieces: Iterable[Piece], judge: Judge, config: PrepareConfig, benchmarks: Mapping[str, Path], *, num_processes: int
) -> Iterator[Chunk]:
    """The pieces as they come, judged. Raises what judging the earliest bad row raised."""
    if num_processes < 2:
        yield from map(judge.judge, pieces)
        return
    context = multiprocessing.get_context("spawn")
    start = (config.resolved(), {name: str(path) for name, path in benchmarks.items()})
    with ProcessPoolExecutor(num_processes, mp_context=context, initializer=_begin, initargs=start) as pool:
        try:
            yield from _in_order(pool, pieces, most=AHEAD * num_processes)
        finally:
            pool.shutdown(wait=True, cancel_futures=True)


def _in_order(pool: ProcessPoolExecutor, pieces: Iterable[Piece], *, most: int) -> Iterator[Chunk]:
    """Has `most` pieces under way. What ends the source is raised behind the pieces before it, which may hold an error too."""
    under_way: deque[Future[Chunk]] = deque()
    source, ended_by = iter(pieces), None
    while True:
        try:
            piece = next(source)
        except StopIteration:
            break
        except DataError as error:
            ended_by = error
            break
        under_way.append(pool.submit(_judge, piece))
        if len(under_way) >= most:
            yield under_way.popleft().result()
    while under_way:
        yield under_way.popleft().result()
    if ended_by is not None:
        raise ended_by


def _begin(config: dict[str, Any], benchmarks: dict[str, str]) -> None:
    _judges[:] = [Judge(PrepareConfig.parse(config), {name: Path(path) for name, path in benchmarks.items()})]


def _judge(piece: Piece) -> Chunk:
    return _judges[0].judge(piece)
