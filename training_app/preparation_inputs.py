"""What a preparation reads, laid out in its directory: links to benchmarks and rollouts, and the environment of its process.

A file of a benchmark needs its ending, which names its reader, and stored files have none: hence links. Of a run every step
counts once, however often it was sampled.
"""

from __future__ import annotations

import hashlib
import os
import shutil
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

from django.conf import settings

from model_core.errors import DataError
from model_core.sources._hosts import HOSTS
from r1platform.lib.processes import child_environment
from r1platform.lib.storage import UnsafePath, home, open_artifact, run_dir, upload_path
from training_app.models import DatasetVersion, PhaseRun, RunEvent
from training_app.selectors.benchmark_files import benchmark_files

HUB = "hub"


def inputs_lay_out(version: DatasetVersion, directory: Path) -> tuple[dict[str, Any], dict[str, Any]]:
    """(what config.json says of files, what the row's `inputs` says). Raises DataError when something is not there any more."""
    shutil.rmtree(directory, ignore_errors=True)
    directory.mkdir(parents=True)
    told: dict[str, Any] = dict(version.inputs)
    files: dict[str, Any] = {"source_path": str(upload_path(version.upload_id)) if version.upload_id else None, "benchmarks": {}}
    if version.rollouts_of is not None:
        steps = _link_rollouts(version.rollouts_of, directory / "rollouts")
        files["source_path"], told["steps"] = str(directory / "rollouts"), [steps[0], steps[-1]]
    if told.get("benchmarks"):
        files["benchmarks"], told["benchmarks"] = _link_benchmarks(version, directory)
    return files, told


def rollout_files(run: PhaseRun) -> dict[int, Path]:
    """Of each step the newest stored file that is on this machine, in order; steps without one are left out."""
    newest: dict[int, Path] = {}
    for event in RunEvent.objects.filter(run=run, kind="rollouts").select_related("attempt").order_by("pk"):
        try:
            found = open_artifact(run_dir(run.pk, event.attempt.number), str(event.payload["file"]))
        except (FileNotFoundError, UnsafePath):
            continue
        newest[int(event.payload["step"])] = found
    return dict(sorted(newest.items()))


def source_environment(source: str, *, mark: Path) -> dict[str, str]:
    """The environment of a process that reads `source`: only the hub's loader has a way to the hub, and to no other."""
    made = child_environment(os.environ, mark=mark)
    if source != HUB:
        return made
    return made | {
        "HF_HUB_OFFLINE": os.environ.get("HF_HUB_OFFLINE", "0"), "HF_ENDPOINT": settings.R1_HUB_URL, HOSTS: ",".join(_hub_hosts()),
        "HF_HOME": str(home() / HUB), "HF_HUB_DISABLE_XET": "1", "HF_HUB_DISABLE_TELEMETRY": "1",
    }  # fmt: skip


def _hub_hosts() -> list[str]:
    """The hub itself, hosts below it, and where huggingface.co keeps large files."""
    host = urlsplit(settings.R1_HUB_URL).hostname or ""
    return [host, f".{host}", *([".hf.co"] if host == "huggingface.co" else [])]


def _link_rollouts(run: PhaseRun, directory: Path) -> list[int]:
    files = rollout_files(run)
    if not files:
        raise DataError(f"The rollouts of run {run.pk} are not on this machine.", field="run")
    directory.mkdir()
    for step, path in files.items():
        (directory / f"step_{step:08d}.jsonl.gz").symlink_to(path)
    return list(files)


def _link_benchmarks(version: DatasetVersion, directory: Path) -> tuple[dict[str, str], dict[str, Any]]:
    known = benchmark_files(version.dataset.project)
    paths, told = {}, {}
    for name in version.inputs["benchmarks"]:
        if name not in known:
            raise DataError(f"The questions of {name} are not at hand any more.", field="filters.contamination.benchmarks")
        file = known[name]
        link = directory / f"{name}{file.ending}"
        link.symlink_to(file.path)
        paths[name] = str(link)
        told[name] = {"file_name": file.file_name, "sha256": file.sha256 or _sha256(file.path), "upload": file.upload}
    return paths, told


def _sha256(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
