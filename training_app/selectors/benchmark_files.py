"""Files with questions of benchmarks that are at hand: the operator's directory, and uploads that a project has named so.

The contamination filter compares with them. A project's own file goes before the operator's of the same name.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from django.conf import settings

from model_core.errors import DataError
from model_core.sources import PACKED, format_of
from r1platform.lib.storage import upload_path
from r1platform.models import Project
from training_app.models import Upload


@dataclass(frozen=True)
class BenchmarkFile:
    """One file; `sha256` is known of uploads, and `upload` is then the id of its row."""

    name: str
    file_name: str
    path: Path
    size_bytes: int
    sha256: str = ""
    upload: int | None = None

    @property
    def ending(self) -> str:
        """By which a reader of the file is found, for example `.jsonl.gz`."""
        path = Path(self.file_name.lower())
        return "".join(path.suffixes[-2:]) if path.suffix in PACKED else path.suffix


def benchmark_files(project: Project) -> dict[str, BenchmarkFile]:
    """By name, in their order."""
    found = {file.name: file for file in (*_shared(), *_uploaded(project))}
    return dict(sorted(found.items()))


def _shared() -> Iterator[BenchmarkFile]:
    """`gsm8k.jsonl` is the benchmark gsm8k; what no source reads is left alone."""
    directory = Path(settings.R1_BENCHMARKS)
    for path in sorted(directory.iterdir()) if directory.is_dir() else ():
        try:
            format_of(path.name)
        except DataError:
            continue
        if path.is_file():
            yield BenchmarkFile(path.name.split(".")[0], path.name, path, path.stat().st_size)


def _uploaded(project: Project) -> Iterator[BenchmarkFile]:
    for upload in Upload.objects.filter(project=project).exclude(benchmark=""):
        yield BenchmarkFile(
            upload.benchmark, upload.file_name, upload_path(upload.pk), upload.size_bytes, upload.sha256, upload.pk
        )
