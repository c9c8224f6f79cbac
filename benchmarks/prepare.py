"""Preparing a dataset version against datatrove's pipeline: the same documents, the same rules, two cores each.

Documents are real GSM8K questions, six to a document, drawn anew until there are NUM_MEGABYTES of them as JSON Lines. *Cheap*:
the C4 and Gopher quality rules; ours also drops exact duplicates, splits, hashes and counts. *All*: the Gopher rules on
repetition too. *Funnel*: language and length besides, ours alone, for the peer's language needs a model that it downloads. The
peer runs in its `LocalPipelineExecutor`, two tasks on two halves of the file; lines are read and written
with `json`, since its own reader needs a package more, and its words are cut at white space, as ours are, for which it has no
setting. The two take turns; the measure is seconds on the clock, start of the processes included, the best of the
repetitions, and beside it the seconds of CPU of all our processes, which a busy machine changes less. Goal: 20 MB/s through the
cheap filters.
"""

from __future__ import annotations

import functools
import json
import random
import resource
import shutil
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

from benchmarks._report import write
from model_core.config import PrepareConfig
from model_core.preparation import prepare

QUESTIONS = Path(__file__).resolve().parents[2] / "shared" / "data" / "gsm8k" / "train.jsonl"
NUM_MEGABYTES, NUM_REPEATS, NUM_PROCESSES, QUESTIONS_EACH = 128, 2, 2, 6
CHEAP = ("c4", "gopher_quality")
ALL = (*CHEAP, "gopher_repetition")
WAYS = {"cheap": CHEAP, "all": ALL, "funnel": ("language", *ALL, "length")}
PEERS = {"c4": "C4QualityFilter", "gopher_quality": "GopherQualityFilter", "gopher_repetition": "GopherRepetitionFilter"}


def main() -> None:
    """Measures each way and writes the result; the ratio is that of the cheap filters."""
    with tempfile.TemporaryDirectory() as directory:
        source = documents(Path(directory))
        detail = {way: measure(names, source) for way, names in WAYS.items()}
    write(
        "prepare", packages=("datatrove", "numpy"), ours=detail["cheap"]["ours"], peer=detail["cheap"]["peer"],
        ratio=detail["cheap"]["ratio"], unit="MB/s of JSON Lines on two cores, goal 20; ratio is ours to the peer's", detail=detail,
    )  # fmt: skip


def documents(directory: Path) -> Path:
    """One file for us; two halves of it for the peer in `halves`."""
    draw = random.Random(0)
    questions = [json.loads(line)["question"] for line in QUESTIONS.read_text(encoding="utf-8").split("\n") if line]
    (directory / "halves").mkdir()
    halves = [directory / "halves" / f"{number}.jsonl" for number in range(2)]
    for half in halves:
        with half.open("w") as file:
            while file.tell() < NUM_MEGABYTES * 500_000:
                file.write(json.dumps({"text": "\n".join(draw.sample(questions, QUESTIONS_EACH))}) + "\n")
    whole = directory / "whole.jsonl"
    whole.write_bytes(b"".join(half.read_bytes() for half in halves))
    return whole


def measure(names: tuple[str, ...], source: Path) -> dict[str, Any]:
    """Megabytes a second of both and how many documents each kept, and our seconds of CPU a megabyte: the peer's processes are
    not this one's children, so that nobody tells theirs."""
    halves = source.parent / "halves"
    runs: dict[str, Callable[[], int]] = {"ours": lambda: ours(names, source)}
    if set(names) <= set(PEERS):
        runs["peer"] = lambda: theirs(names, halves)
    wall, kept, cpu = dict.fromkeys(runs, float("inf")), dict.fromkeys(runs, 0), float("inf")
    for repeat in range(NUM_REPEATS):
        for who in runs if repeat % 2 == 0 else reversed(runs):
            began, cpu_began = time.perf_counter(), cpu_seconds()
            kept[who] = runs[who]()
            wall[who] = min(wall[who], time.perf_counter() - began)
            cpu = min(cpu, cpu_seconds() - cpu_began) if who == "ours" else cpu
    size = source.stat().st_size / 1e6
    rates = {who: round(size / taken, 2) for who, taken in wall.items()}
    ratio = {"ratio": round(rates["ours"] / rates["peer"], 2)} if "peer" in rates else {}
    return {**rates, **ratio, "cpu_seconds_a_megabyte": round(cpu / size, 4), "kept": kept, "filters": list(names)}


def cpu_seconds() -> float:
    """Of this process and of those that it waited for."""
    return sum(used.ru_utime + used.ru_stime for used in map(resource.getrusage, (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN)))


def ours(names: tuple[str, ...], source: Path) -> int:
    """Rows kept, held-out ones among them, and those that came twice, which only we look for."""
    steps = [*({"name": name} for name in names), {"name": "exact_duplicates"}]
    config = PrepareConfig.parse({"source": "jsonl", "mapping": {"prompt": "text"}, "filters": steps})
    out = source.parent / "version"
    manifest = prepare(config, out=out, source_path=source, num_processes=NUM_PROCESSES)
    shutil.rmtree(out)
    return int(manifest["num_rows"] + manifest["num_held_out"] + manifest["funnel"][-1]["dropped"])


def theirs(names: tuple[str, ...], folder: Path) -> int:
    """Documents kept."""
    from datatrove.executor import LocalPipelineExecutor
    from datatrove.pipeline import filters

    logs = folder.parent / "logs"
    steps = [getattr(filters, PEERS[name])() for name in names]
    pipeline = [functools.partial(_read, folder), *steps, functools.partial(_write, folder)]
    LocalPipelineExecutor(pipeline, tasks=2, workers=NUM_PROCESSES, logging_dir=str(logs)).run()
    outputs = list(folder.parent.glob("peer_*.jsonl"))
    num = sum(1 for file in outputs for _line in file.open("rb"))
    for file in outputs:
        file.unlink()
    shutil.rmtree(logs)
    return num


def _read(folder: Path, _data: Any, rank: int = 0, world_size: int = 1) -> Iterator[Any]:
    """The first step of the peer's pipeline; has its tokenizer cut words at white space in the process that it runs in."""
    from datatrove.data import Document
    from datatrove.utils import word_tokenizers

    class WhiteSpace(word_tokenizers.WhitespaceTokenizer):
        def word_tokenize(self, text: str) -> list[str]:
            return text.split()

    tokenizer = WhiteSpace()
    word_tokenizers.load_word_tokenizer = lambda _language: tokenizer
    with (folder / f"{rank}.jsonl").open() as file:
        for number, line in enumerate(file):
            yield Document(text=json.loads(line)["text"], id=f"{rank}/{number}")


def _write(folder: Path, data: Any, rank: int = 0, world_size: int = 1) -> Iterator[Any]:
    with (folder.parent / f"peer_{rank}.jsonl").open("w") as file:
        for document in data:
            file.write(json.dumps({"text": document.text, "id": document.id}) + "\n")
            yield document


if __name__ == "__main__":
    main()
