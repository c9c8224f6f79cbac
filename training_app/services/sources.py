"""What a version may be made from: the checks of a source, of its fields and of the benchmarks, and a look before preparing."""

from __future__ import annotations

import json
import re
import subprocess
import sys
from pathlib import Path
from typing import Any

from django.conf import settings
from django.contrib.auth.models import User
from django.db import IntegrityError, transaction

from model_core.config import PrepareConfig
from model_core.errors import ConfigError, DataError
from model_core.filters import FILTERS
from model_core.filters.contamination import FIELDS
from model_core.sources import SOURCES
from r1platform.lib.jsonb import jsonb_loads
from r1platform.lib.storage import home, upload_path
from r1platform.models import Project
from r1platform.services import audit
from training_app.models import PhaseRun, Upload
from training_app.preparation_inputs import HUB, rollout_files, source_environment
from training_app.selectors.benchmark_files import benchmark_files

LOOK_SECONDS = 40.0
READERS = {"jsonl": ("jsonl", "chats", "rollouts")}
"""Sources that read an upload of a format, when it is not only the one of its own name."""
OF_A_RUN = "rollouts"
_NAME = re.compile(r"[a-z0-9][a-z0-9_-]{0,59}")
_NO_FIELDS = frozenset({"answer_pattern", "keep"})


def readers_of(upload: Upload) -> tuple[str, ...]:
    """The sources that can read an upload; the first is the one it was taken for."""
    return READERS.get(upload.format, (upload.format,))


def source_check(config: PrepareConfig, *, project: Project, upload: Upload | None, run: PhaseRun | None) -> None:
    """Whether the source gets what it reads, and the mapping names what is there. Raises DataError or ConfigError."""
    source = SOURCES.get(config.source)
    if run is not None:
        _check_run(config, project, upload, run)
    elif not source.is_file and upload is not None:
        raise DataError(f"The source “{config.source}” reads no file; leave the upload out.", field="upload")
    elif source.is_file and upload is None:
        also = ", or choose a run" if config.source == OF_A_RUN else ""
        raise DataError(f"The source “{config.source}” reads a file; upload one first{also}.", field="upload")
    elif upload is not None:
        _check_upload(config, project, upload)
    if config.source == HUB:
        _check_hub(config)


def _check_run(config: PrepareConfig, project: Project, upload: Upload | None, run: PhaseRun) -> None:
    if config.source != OF_A_RUN:
        raise DataError(f"The source “{config.source}” reads no rollouts of a run; leave the run out.", field="run")
    if upload is not None:
        raise DataError("The rollouts come from a run or from an upload, not from both.", field="upload")
    if run.project_id != project.pk:
        raise DataError("There is no such run in this project.", field="run")
    if not rollout_files(run):
        raise DataError(f"Run {run.pk} has stored no rollouts here. Reinforcement and rejection sampling do.", field="run")


def _check_upload(config: PrepareConfig, project: Project, upload: Upload) -> None:
    if upload.project_id != project.pk:
        raise DataError("There is no such upload in this project.", field="upload")
    if config.source not in readers_of(upload):
        raise DataError(f"The upload is {upload.format}, not {config.source}.", field="source")
    if getattr(SOURCES.get(config.source), "is_mapped", False) or not upload.columns:
        return
    for name, wanted in _named_fields(config).items():
        if wanted not in upload.columns:
            has = ", ".join(map(str, upload.columns))
            raise ConfigError(f"The file has no field “{wanted}”; it has {has}.", field=f"mapping.{name}")


def _named_fields(config: PrepareConfig) -> dict[str, str]:
    """Fields that every row must have. A chat is prompt and completion, so that those are not looked for beside it."""
    named = {name: value for name, value in config.mapping.resolved().items() if value and name not in _NO_FIELDS}
    if "messages" in named:
        named.pop("prompt", None)
        named.pop("completion", None)
    return {name: value for name, value in named.items() if isinstance(value, str)}


def _check_hub(config: PrepareConfig) -> None:
    if not settings.R1_HUB_URL:
        raise ConfigError("Nothing is imported from the hub here: R1_HUB_URL is empty.", field="source")
    if not config.source_config.get("repository"):
        raise ConfigError("Say which repository, for example “openai/gsm8k”.", field="source_config.repository")


def benchmarks_chosen(config: PrepareConfig, project: Project) -> tuple[PrepareConfig, dict[str, Any]]:
    """The configuration with the names of its benchmarks written out, and what is known of their files.

    Raises ConfigError at the filter when one is not at hand, or there is none.
    """
    known, steps = benchmark_files(project), list(config.filters)
    told: dict[str, Any] = {}
    for place, step in enumerate(steps):
        if not getattr(FILTERS.get(step.name), "needs_benchmarks", False):
            continue
        wanted = step.config.get("benchmarks") or list(known)
        missing = [name for name in wanted if name not in known]
        if missing or not wanted:
            there = ", ".join(known) or "none"
            sentence = f"The questions of {', '.join(missing) or 'a benchmark'} are not at hand; there are those of: {there}."
            raise ConfigError(f"{sentence} Add the file under Datasets, Benchmarks.", field=f"filters.{place}.config.benchmarks")
        steps[place] = step.model_copy(update={"config": {**step.config, "benchmarks": wanted}})
        told |= {name: {"file_name": known[name].file_name, "sha256": known[name].sha256, "upload": known[name].upload}
                 for name in wanted}  # fmt: skip
    return config.model_copy(update={"filters": steps}), told


@transaction.atomic
def upload_benchmark_set(*, upload: Upload, user: User, name: str) -> None:
    """Has the contamination filter know an upload by a name; an empty one ends that. Raises ConfigError, DataError."""
    name = name.strip()
    if name and not _NAME.fullmatch(name):
        raise ConfigError("A benchmark's name is small letters, digits, - and _, for example gsm8k.", field="benchmark")
    if name and not set(FIELDS) & {str(column) for column in upload.columns}:
        has = ", ".join(map(str, upload.columns)) or "no field"
        raise DataError(f"A benchmark's question is looked for in {', '.join(FIELDS)}; the file has {has}.", field="file")
    upload.benchmark = name
    try:
        with transaction.atomic():
            upload.save(update_fields=["benchmark"])
    except IntegrityError:
        raise ConfigError(f"This project has a file for “{name}” already; take that away first.", field="benchmark") from None
    audit(user=user, project=upload.project, action="upload.benchmark", target=f"upload:{upload.pk}", detail={"name": name})


def rows_look(
    *, project: Project, config: dict[str, Any], upload: Upload | None = None, run: PhaseRun | None = None
) -> dict[str, Any]:
    """The first rows under these settings and what the mapping makes of them: columns, preview, num_rows_seen, mapped.

    Raises ConfigError and DataError at their fields, with the loader's own words.
    """
    parsed = PrepareConfig.parse(config)
    source_check(parsed, project=project, upload=upload, run=run)
    path = upload_path(upload.pk) if upload is not None else None
    if run is not None:
        path = list(rollout_files(run).values())[-1]
    asked = parsed.model_copy(update={"filters": []}).resolved()
    return look_into(parsed.source, path, "--prepare", json.dumps(asked))


def look_into(source: str, path: Path | None, *options: str) -> dict[str, Any]:
    """Columns and first rows, read by a process with limits: what is read comes from outside. Raises DataError."""
    argv = [sys.executable, "-m", "model_core", "inspect", source, *([str(path)] if path else []), *options]
    env = source_environment(source, mark=home() / "uploads")
    try:
        done = subprocess.run(argv, cwd=settings.BASE_DIR, env=env, capture_output=True, timeout=LOOK_SECONDS, check=False)
        told = jsonb_loads(done.stdout)
    except (subprocess.TimeoutExpired, ValueError):
        raise DataError("The file could not be looked into: its beginning takes too much time or memory.", field="file") from None
    if "error" in told:
        raise DataError(told["error"]["message"], field=told["error"]["field"])
    found: dict[str, Any] = told["found"]
    return found
