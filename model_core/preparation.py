"""Makes a dataset version: a source, a mapping, a funnel of filters, a split; streaming, `dataset.json` last.

The result is a directory with train.jsonl, held_out.jsonl and the manifest dataset.json. Nothing is there, or all of
it: the work is done in a folder beside it that is renamed at the end. The command is `python -m model_core prepare`.
"""

from __future__ import annotations

import hashlib
import json
import re
import shutil
import time
from collections import Counter
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

from model_core.config import MappingConfig, PrepareConfig
from model_core.errors import DataError
from model_core.filters import FILTERS
from model_core.rundir import write_json
from model_core.sources import SOURCES

FORMAT_VERSION = 1
NUM_EXAMPLES = 5
NUM_BINS = 20
SPLITS = ("train", "held_out")
Progress = Callable[[float, str], None]


def prepare(
    config: PrepareConfig, *, out: Path, source_path: Path | None = None, on_progress: Progress | None = None
) -> dict[str, Any]:
    """Writes the version into `out` and returns its manifest. Raises DataError or ConfigError; `out` is then not there."""
    if out.exists():
        raise DataError(f"{out} exists: a version is immutable; prepare into another directory.")
    work = out.with_name(out.name + ".part")
    shutil.rmtree(work, ignore_errors=True)
    work.mkdir(parents=True)
    try:
        manifest = _Preparation(config, work, on_progress or (lambda _fraction, _text: None)).run(source_path)
    except BaseException:
        shutil.rmtree(work, ignore_errors=True)
        raise
    work.rename(out)
    return manifest


class _Preparation:
    def __init__(self, config: PrepareConfig, out: Path, on_progress: Progress) -> None:
        self.config, self.out, self.on_progress = config, out, on_progress
        self.filters = [(step.name, FILTERS.get(step.name)) for step in config.filters]
        self.steps = [cls(cls.Config.parse(step.config)) for (_, cls), step in zip(self.filters, config.filters, strict=True)]
        self.funnel: list[dict[str, Any]] = [
            {"filter": name, "kept": 0, "dropped": 0, "examples": []} for name, _ in self.filters
        ]
        self.counts: Counter[str] = Counter()
        self.lengths: dict[str, list[int]] = {"prompt_chars": [], "completion_chars": []}
        self.answers: Counter[str] = Counter()

    def run(self, source_path: Path | None) -> dict[str, Any]:
        digest = hashlib.sha256()
        files = {split: (self.out / f"{split}.jsonl").open("w", encoding="utf-8") for split in SPLITS}
        try:
            for split, row in self._rows(source_path):
                if self._passes(row):
                    line = json.dumps(row, ensure_ascii=False, sort_keys=True) + "\n"
                    digest.update(f"{split} {line}".encode())
                    files[split].write(line)
                    self._count(split, row)
        finally:
            for file in files.values():
                file.close()
        if not self.counts["train"]:
            read = sum(self.counts.values()) + sum(step["dropped"] for step in self.funnel)
            raise DataError(f"No training row is left of {read} that were read; look at the mapping and the filters.")
        manifest = self._manifest(digest.hexdigest())
        write_json(self.out / "dataset.json", manifest)
        self.on_progress(1.0, f"{self.counts['train']} rows, {self.counts['held_out']} held out")
        return manifest

    def _rows(self, source_path: Path | None) -> Iterator[tuple[str, dict[str, Any]]]:
        source_class = SOURCES.get(self.config.source)
        source = source_class(source_class.Config.parse(self.config.source_config, prefix="source_config"))
        if not source.is_file:
            wanted = source.config.num_train + source.config.num_held_out
            for number, item in enumerate(source.split_rows(self.config.seed), start=1):
                if number % 500 == 0:
                    self.on_progress(number / wanted, f"{number} of {wanted} problems")
                yield item
            return
        if source_path is None:
            raise DataError(f"The source “{self.config.source}” needs a file.", field="source")
        for number, raw in enumerate(source.rows(source_path), start=1):
            row = mapped(raw, self.config.mapping, number)
            if number % 1000 == 0:
                self.on_progress(0.0, f"{number} rows")
            yield split_of(row["prompt"], self.config.held_out_fraction), row

    def _passes(self, row: dict[str, Any]) -> bool:
        for step, counts in zip(self.steps, self.funnel, strict=True):
            why = step.why_dropped(row)
            if why is not None:
                counts["dropped"] += 1
                if len(counts["examples"]) < NUM_EXAMPLES:
                    counts["examples"].append({"row": {key: str(row[key])[:300] for key in ("prompt", "answer")}, "why": why})
                return False
            counts["kept"] += 1
        return True

    def _count(self, split: str, row: dict[str, Any]) -> None:
        self.counts[split] += 1
        self.lengths["prompt_chars"].append(len(row["prompt"]))
        if row["completion"] is not None:
            self.lengths["completion_chars"].append(len(row["completion"]))
        if row["answer"] is not None:
            self.answers[row["answer"][:60]] += 1

    def _manifest(self, sha256: str) -> dict[str, Any]:
        return {
            "format_version": FORMAT_VERSION,
            "name": self.out.name.removesuffix(".part"),
            "source": self.config.source,
            "task": self.config.source_config.get("task", ""),
            "num_rows": self.counts["train"],
            "num_held_out": self.counts["held_out"],
            "sha256": sha256,
            "created": time.time(),
            "config": self.config.resolved(),
            "statistics": {
                **{name: _distribution(values) for name, values in self.lengths.items()},
                "answers": {"num_distinct": len(self.answers), "most_common": self.answers.most_common(10)},
            },
            "funnel": self.funnel,
        }


def mapped(raw: dict[str, Any], mapping: MappingConfig, number: int) -> dict[str, Any]:
    """The row that a source's row means under a mapping. Raises DataError naming row and field."""
    prompt = _field(raw, mapping.prompt, number)
    completion = _field(raw, mapping.completion, number) if mapping.completion else None
    answer = _field(raw, mapping.answer, number) if mapping.answer else None
    if answer is None and completion is not None and mapping.answer_pattern:
        found = re.search(mapping.answer_pattern, completion, re.MULTILINE)
        if found is None:
            pattern = mapping.answer_pattern
            raise DataError(f"Row {number}: answer_pattern {pattern!r} finds nothing.", field="mapping.answer_pattern")
        answer, completion = found.group(1).strip(), completion[: found.start()].strip()
    if completion is not None and answer is not None and "</think>" not in completion:
        completion = f"<think>{completion}</think>{answer}"
    return {"prompt": prompt, "completion": completion, "answer": answer, "task": "", "meta": {}}


def split_of(prompt: str, held_out_fraction: float) -> str:
    """Which split a prompt belongs to: a fixed function of its text, so that no prompt can be in both."""
    place = int.from_bytes(hashlib.sha256(prompt.encode()).digest()[:8], "big") / 2**64
    return "held_out" if place < held_out_fraction else "train"


def _field(raw: dict[str, Any], name: str, number: int) -> str:
    value = raw.get(name)
    if value is None or (isinstance(value, str) and not value.strip()):
        raise DataError(f"Row {number} has no “{name}”; it has {', '.join(map(str, raw)) or 'no field'}.", field="mapping")
    if isinstance(value, dict | list):
        raise DataError(f"Row {number}: “{name}” is a {type(value).__name__}, not text.", field="mapping")
    return str(value)


def _distribution(values: list[int]) -> dict[str, Any] | None:
    if not values:
        return None
    ordered = sorted(values)
    low, high = ordered[0], ordered[-1]
    width = max(1, -(-(high - low + 1) // NUM_BINS))
    bins = Counter((value - low) // width for value in ordered)
    return {
        "mean": sum(ordered) / len(ordered),
        "p50": ordered[len(ordered) // 2],
        "p95": ordered[int(len(ordered) * 0.95)],
        "max": high,
        "histogram": [[low + place * width, bins[place]] for place in range(max(bins) + 1)],
    }
