"""Writes a version: reads the source in chunks, has them judged, counts, hashes and writes what came through."""

from __future__ import annotations

import hashlib
import shutil
import time
from collections import Counter
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

from model_core.config import PrepareConfig
from model_core.errors import DataError
from model_core.preparation.funnel import BadRows, Funnel
from model_core.preparation.judging import SPLITS, Chunk, Judge, Judged, Raw
from model_core.preparation.statistics import Answers, Lengths
from model_core.preparation.workers import judged_chunks
from model_core.rundir import write_json
from model_core.sources import SOURCES
from model_core.sources._bad import refuse

FORMAT_VERSION = 1
CHUNK_ROWS, CHUNK_CHARS = 512, 1 << 20
"""A chunk is judged at once: so many rows, or fewer when they are long."""
Progress = Callable[[float, str], None]


def prepare(
    config: PrepareConfig, *, out: Path, source_path: Path | None = None, on_progress: Progress | None = None,
    benchmarks: Mapping[str, Path] | None = None, num_processes: int = 1,
) -> dict[str, Any]:
    """Writes the version into `out` and returns its manifest. Raises DataError or ConfigError; `out` is then not there.

    `benchmarks` are the files that the filter on contamination compares with, by name. With more than one process the rows
    are judged by that many others, and the result is the same; the caller's main module must then be importable.
    """
    if out.exists():
        raise DataError(f"{out} exists: a version is immutable; prepare into another directory.")
    work = out.with_name(out.name + ".part")
    shutil.rmtree(work, ignore_errors=True)
    work.mkdir(parents=True)
    try:
        version = _Version(config, work, on_progress or (lambda _fraction, _text: None), benchmarks or {})
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
        self.digest = hashlib.sha256()

    def run(self, source_path: Path | None, num_processes: int) -> dict[str, Any]:
        files = {split: (self.out / f"{split}.jsonl").open("wb") for split in SPLITS}
        try:
            chunks = _chunks(self._rows(source_path))
            for chunk in judged_chunks(chunks, self.judge, self.config, self.benchmarks, num_processes=num_processes):
                for judged in self._passing(chunk):
                    files[judged.split].write(judged.line)
        finally:
            for file in files.values():
                file.close()
        self._check_rows()
        manifest = self._manifest()
        write_json(self.out / "dataset.json", manifest)
        self.on_progress(1.0, f"{self.counts['train']} rows, {self.counts['held_out']} held out")
        return manifest

    def _passing(self, chunk: Chunk) -> Iterator[Judged]:
        """Counts all rows of the chunk and yields those that came through."""
        self.funnel.note(chunk.noted)
        for bad in chunk.bad:
            self.unmapped.add(bad)
        for judged in chunk.judged:
            if self.funnel.passes(judged):
                self._count(judged)
                yield judged

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

    def _rows(self, source_path: Path | None) -> Iterator[Raw]:
        source_class = SOURCES.get(self.config.source)
        source = source_class(source_class.Config.parse(self.config.source_config, prefix="source_config"))
        if hasattr(source, "split_rows"):
            yield from self._split_rows(source)
            return
        if source.is_file and source_path is None:
            raise DataError(f"The source “{self.config.source}” needs a file.", field="source")
        if source_path is not None and not source_path.exists():
            raise DataError(f"There is no file “{source_path}”; choose one that exists.", field="file")
        on_bad = refuse if self.config.on_bad_row == "refuse" else self.unread.add
        for number, values in enumerate(source.rows(source_path, on_bad), start=1):
            if number % 1000 == 0:
                self.on_progress(0.0, f"{number} rows")
            yield Raw(number, "", values)

    def _split_rows(self, source: Any) -> Iterator[Raw]:
        wanted = source.config.num_train + source.config.num_held_out
        for number, (split, values) in enumerate(source.split_rows(self.config.seed), start=1):
            if number % 500 == 0:
                self.on_progress(number / wanted, f"{number} of {wanted} problems")
            yield Raw(number, split, values)

    def _check_rows(self) -> None:
        if self.counts["train"]:
            return
        bad = self.unread.told(self.unmapped)
        read = sum(self.counts.values()) + self.funnel.num_dropped + bad["num"]
        words = f"No training row is left of {read} that were read; look at the mapping and the filters."
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
            },
            "bad_rows": self.unread.told(self.unmapped),
            "funnel": self.funnel.told(),
        }  # fmt: skip


def _chunks(rows: Iterator[Raw]) -> Iterator[list[Raw]]:
    """Rows in chunks. What ends the source early is raised behind the rows before it: they may hold an earlier error."""
    held: list[Raw] = []
    size = 0
    try:
        for row in rows:
            held.append(row)
            size += sum(len(value) for value in row.values.values() if isinstance(value, str))
            if len(held) >= CHUNK_ROWS or size >= CHUNK_CHARS:
                yield held
                held, size = [], 0
    except DataError:
        if held:
            yield held
        raise
    if held:
        yield held
