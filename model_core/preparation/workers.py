"""Judges chunks of rows in order, here or in other processes; the result is the same.

Few chunks are under way at once, so that a source that is faster than the filters does not fill the memory.
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
from model_core.preparation.judging import Chunk, Judge, Raw

AHEAD = 3
"""Chunks under way for each process."""
_judges: list[Judge] = []
"""The judge of this process when it is a worker."""


def judged_chunks(
    chunks: Iterable[list[Raw]], judge: Judge, config: PrepareConfig, benchmarks: Mapping[str, Path], *, num_processes: int
) -> Iterator[Chunk]:
    """The chunks as they come, judged. Raises what judging the earliest bad row raised."""
    if num_processes < 2:
        yield from map(judge.judge, chunks)
        return
    context = multiprocessing.get_context("spawn")
    start = (config.resolved(), {name: str(path) for name, path in benchmarks.items()})
    with ProcessPoolExecutor(num_processes, mp_context=context, initializer=_begin, initargs=start) as pool:
        try:
            yield from _in_order(pool, chunks, most=AHEAD * num_processes)
        finally:
            pool.shutdown(wait=True, cancel_futures=True)


def _in_order(pool: ProcessPoolExecutor, chunks: Iterable[list[Raw]], *, most: int) -> Iterator[Chunk]:
    """Has `most` chunks under way. What ends the source is raised behind the chunks before it, which may hold an error too."""
    under_way: deque[Future[Chunk]] = deque()
    source, ended_by = iter(chunks), None
    while True:
        try:
            chunk = next(source)
        except StopIteration:
            break
        except DataError as error:
            ended_by = error
            break
        under_way.append(pool.submit(_judge, chunk))
        if len(under_way) >= most:
            yield under_way.popleft().result()
    while under_way:
        yield under_way.popleft().result()
    if ended_by is not None:
        raise ended_by


def _begin(config: dict[str, Any], benchmarks: dict[str, str]) -> None:
    _judges[:] = [Judge(PrepareConfig.parse(config), {name: Path(path) for name, path in benchmarks.items()})]


def _judge(rows: list[Raw]) -> Chunk:
    return _judges[0].judge(rows)
