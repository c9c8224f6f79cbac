"""Writes a version: takes the source in pieces, has them judged, counts, hashes and writes what came through."""

from __future__ import annotations

import hashlib
import shutil
import time
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping
from functools import partial
from pathlib import Path
from typing import Any

from model_core.config import PrepareConfig
from model_core.errors import DataError
from model_core.preparation.funnel import BadRows, Funnel
from model_core.preparation.judging import SPLITS, Chunk, Judge, Judged, Piece, Raw
from model_core.preparation.statistics import Answers, Lengths
from model_core.preparation.workers import judged_chunks
from model_core.rundir import write_json
from model_core.sources import SOURCES
from model_core.sources._bad import BadRow, refuse
from model_core.sources._gathering import gathered
from model_core.sources._lines import Block

FORMAT_VERSION = 1
CHUNK_ROWS, CHUNK_CHARS = 512, 1 << 20
"""Of a source that has no blocks so many rows are judged at once, or fewer when they are long."""
Progress = Callable[[float, str], None]
Counts = Callable[[Callable[[], dict[str, Any]]], None]
"""Is given what tells the counts so far: {"num_read", "num_rows", "num_held_out", "bad_rows", "funnel"}."""


def prepare(
    config: PrepareConfig, *, out: Path, source_path: Path | None = None, on_progress: Progress | None = None,
    benchmarks: Mapping[str, Path] | None = None, num_processes: int = 1, on_counts: Counts | None = None,
) -> dict[str, Any]:
    """Writes the version into `out` and returns its manifest. Raises DataError or ConfigError; `out` is then not there.

    `benchmarks` are the files that the filter on contamination compares with, by name. With more than one process the rows
    are judged by that many others, and the result is the same; the caller's main module must then be importable.
    `on_counts` is called behind each chunk of rows.
    """
    if out.exists():
        raise DataError(f"{out} exists: a version is immutable; prepare into another directory.")
    work = out.with_name(out.name + ".part")
    shutil.rmtree(work, ignore_errors=True)
    work.mkdir(parents=True)
    try:
        version = _Version(config, work, on_progress or (lambda _fraction, _text: None), benchmarks or {})
        version.on_counts = on_counts or version.on_counts
        manifest = version.run(source_path, num_processes)
    except BaseException:
        shutil.rmtree(work, ignore_errors=True)
        raise
    work.rename(out)
    return manifest


class _Version:
    def __init__(self, config: PrepareConfig, out: Path, on_progress: Progress, benchmarks: Mapping[str, Path]) -> None:
        self.config, self.out, self.on_progress, self.benchmarks = config, out, on_progress, benchmarks
        self.judge = Judge(config, benchmarks)
        self.funnel = Funnel([step.name for step in config.filters], self.judge.filters)
        self.unread, self.unmapped = BadRows(), BadRows()
        self.counts: Counter[str] = Counter()
        self.prompts, self.completions, self.answers = Lengths(), Lengths(), Answers()
        self.pairs = Lengths(), Lengths()
        """Of the chosen and of the rejected answers."""
        self.digest = hashlib.sha256()
        source_class = SOURCES.get(config.source)
        self.source: Any = source_class(source_class.Config.parse(config.source_config, prefix="source_config"))
        self.num_read = 0
        self.on_counts: Counts = lambda _told: None

    def run(self, source_path: Path | None, num_processes: int) -> dict[str, Any]:
        files = {split: (self.out / f"{split}.jsonl").open("wb") for split in SPLITS}
        try:
            self.on_counts(self.told)
            pieces = self._pieces(source_path)
            for chunk in judged_chunks(pieces, self.judge, self.config, self.benchmarks, num_processes=num_processes):
                for judged in self._passing(chunk):
                    files[judged.split].write(judged.line)
                self.on_counts(self.told)
        finally:
            for file in files.values():
                file.close()
        self.on_counts(self.told)
        self._check_rows()
        manifest = self._manifest()
        write_json(self.out / "dataset.json", manifest)
        self.on_progress(1.0, f"{self.counts['train']} rows, {self.counts['held_out']} held out")
        return manifest

    def _passing(self, chunk: Chunk) -> Iterator[Judged]:
        """Counts all rows of the chunk and yields those that came through."""
        self._count_blocks(chunk.num_read)
        self.funnel.note(chunk.noted)
        for bad in chunk.unread:
            self._leave_out(bad, self.unread)
        for bad in chunk.unmapped:
            self._leave_out(bad, self.unmapped)
        for judged in chunk.judged:
            if self.funnel.passes(judged):
                self._count(judged)
                yield judged

    def told(self) -> dict[str, Any]:
        """What became of the rows so far."""
        bad = self.unread.told(self.unmapped)
        return {
            "num_read": sum(self.counts.values()) + self.funnel.num_dropped + bad["num"], "num_rows": self.counts["train"],
            "num_held_out": self.counts["held_out"], "bad_rows": bad, "funnel": self.funnel.told(),
        }  # fmt: skip

    def _leave_out(self, bad: BadRow, counted: BadRows) -> None:
        """Counts a bad row. Raises DataError when it is one too many."""
        counted.add(bad)
        num = sum(self.unread.reasons.values()) + sum(self.unmapped.reasons.values())
        if self.config.max_bad_rows is not None and num > self.config.max_bad_rows:
            most = self.config.max_bad_rows
            raise DataError(f"{num} rows cannot be used, and max_bad_rows is {most}. The last one: {bad.message}")

    def _count(self, judged: Judged) -> None:
        self.counts[judged.split] += 1
        self.digest.update(f"{judged.split} ".encode())
        self.digest.update(judged.line)
        prompt, completion = judged.num_chars
        self.prompts.add(prompt)
        if completion is not None:
            self.completions.add(completion)
        if judged.answer is not None:
            self.answers.add(judged.answer)
        for lengths, num in zip(self.pairs, judged.pair_chars or (), strict=False):
            lengths.add(num)

    def _count_blocks(self, num_read: int) -> None:
        """Rows of blocks are counted here, for they are read by whoever judges. Raises DataError when they are too many."""
        if hasattr(self.source, "blocks"):
            self.num_read += num_read
            self.source.config.check(self.num_read)
            self.on_progress(0.0, f"{self.num_read} rows")

    def _pieces(self, source_path: Path | None) -> Iterable[Piece]:
        if hasattr(self.source, "split_rows"):
            return _chunks(self._split_rows())
        if self.source.is_file and source_path is None:
            raise DataError(f"The source “{self.config.source}” needs a file.", field="source")
        if source_path is not None and not source_path.exists():
            raise DataError(f"There is no file “{source_path}”; choose one that exists.", field="file")
        if hasattr(self.source, "blocks"):
            blocks: Iterator[Block] = self.source.blocks(source_path)
            return blocks
        return _chunks(self._rows(source_path))

    def _rows(self, source_path: Path | None) -> Iterator[Raw]:
        on_bad = refuse if self.config.on_bad_row == "refuse" else partial(self._leave_out, counted=self.unread)
        for number, values in enumerate(self.source.rows(source_path, on_bad), start=1):
            if number % 1000 == 0:
                self.on_progress(0.0, f"{number} rows")
            yield Raw(number, "", values)

    def _split_rows(self) -> Iterator[Raw]:
        wanted = self.source.config.num_train + self.source.config.num_held_out
        for number, (split, values) in enumerate(self.source.split_rows(self.config.seed), start=1):
            if number % 500 == 0:
                self.on_progress(number / wanted, f"{number} of {wanted} problems")
            yield Raw(number, split, values)

    def _check_rows(self) -> None:
        if self.counts["train"]:
            return
        told = self.told()
        bad = told["bad_rows"]
        words = f"No training row is left of {told['num_read']} that were read; look at the mapping and the filters."
        if bad["num"]:
            words += f" {bad['num']} could not be used, for example: {bad['examples'][0]['why']}"
        raise DataError(words)

    def _manifest(self) -> dict[str, Any]:
        return {
            "format_version": FORMAT_VERSION,
            "name": self.out.name.removesuffix(".part"),
            "source": self.config.source,
            "task": self.config.source_config.get("task", ""),
            "num_rows": self.counts["train"],
            "num_held_out": self.counts["held_out"],
            "sha256": self.digest.hexdigest(),
            "created": time.time(),
            "config": self.config.resolved(),
            "statistics": {
                "prompt_chars": self.prompts.told(), "completion_chars": self.completions.told(), "answers": self.answers.told(),
                "num_pairs": self.pairs[0].num, "chosen_chars": self.pairs[0].told(), "rejected_chars": self.pairs[1].told(),
            },
            "bad_rows": self.unread.told(self.unmapped),
            "funnel": self.funnel.told(),
        }  # fmt: skip


def _chunks(rows: Iterator[Raw]) -> Iterator[list[Raw]]:
    return gathered(rows, _num_chars, enough=CHUNK_CHARS, most_items=CHUNK_ROWS)


def _num_chars(row: Raw) -> int:
    return sum(len(value) for value in row.values.values() if isinstance(value, str))
