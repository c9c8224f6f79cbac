"""Datasets, uploads and versions: made whole or not at all; `training_app.preparation` does the preparing."""

from __future__ import annotations

import hashlib
import os
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import IO, Any

from django.conf import settings
from django.contrib.auth.models import User
from django.db import IntegrityError, transaction
from django.db.models import Max

from model_core.config import PrepareConfig
from model_core.errors import ConfigError, DataError
from model_core.sources import format_of
from r1platform.lib.storage import upload_path, version_dir
from r1platform.lib.transitions import IllegalTransition
from r1platform.models import Project
from r1platform.services import audit
from training_app.asking import ask_to_schedule
from training_app.models import Dataset, DatasetKind, DatasetVersion, PhaseRun, PipelinePhase, Upload
from training_app.services.sources import benchmarks_chosen, look_into, source_check, upload_benchmark_set
from training_app.states import VersionState
from training_app.transitions import version_transition

CHUNK_BYTES = 1 << 20


def dataset_create(
    *, project: Project, user: User, name: str, kind: str = DatasetKind.DOMAIN, description: str = ""
) -> Dataset:
    """A dataset without versions. Raises ConfigError for an empty or taken name or an unknown kind."""
    name = name.strip()
    if not name:
        raise ConfigError("A dataset needs a name.", field="name")
    if kind not in DatasetKind.values:
        raise ConfigError(f"A dataset is one of {', '.join(DatasetKind.values)}, not “{kind}”.", field="kind")
    try:
        with transaction.atomic():
            made = Dataset.objects.create(project=project, name=name, kind=kind, description=description, created_by=user)
    except IntegrityError:
        sentence = f"There is a dataset “{name}” already. Choose another name, or add a version to it."
        raise ConfigError(sentence, field="name") from None
    _audit(made, user, "dataset.create", name=name)
    return made


@transaction.atomic
def dataset_delete(*, dataset: Dataset, user: User) -> None:
    """Deletes a dataset with its versions. Raises DataError while runs, plans or a preparation need it."""
    locked = Dataset.objects.select_for_update().get(pk=dataset.pk)
    versions = list(locked.versions.all())
    learnt = sum(version.runs.count() for version in versions)
    if learnt:
        raise DataError(f"“{dataset.name}” cannot be deleted: {learnt} runs learnt from it, and they keep their data.")
    plans = PipelinePhase.objects.filter(dataset_version__in=versions).values_list("pipeline__name", flat=True).distinct()
    if plans:
        raise DataError(f"“{dataset.name}” cannot be deleted: the pipelines {', '.join(sorted(plans))} learn from it.")
    if any(version.state in {VersionState.QUEUED, VersionState.PREPARING} for version in versions):
        raise DataError(f"“{dataset.name}” cannot be deleted while a version is prepared; stop that first.")
    _audit(locked, user, "dataset.delete", name=locked.name)
    directories = [version_dir(version.pk) for version in versions]
    locked.delete()

    def remove() -> None:
        for directory in directories:
            shutil.rmtree(directory, ignore_errors=True)

    transaction.on_commit(remove)


def upload_create(*, project: Project, user: User, file_name: str, file: Any, benchmark: str = "") -> Upload:
    """Stores a file under an opaque id and looks at its first rows. Raises DataError; nothing is then kept.

    `file` is a Django upload (it has `chunks`) or a binary stream; `benchmark` is the name of the one whose questions it has.
    """
    kind = format_of(file_name)
    with transaction.atomic():
        made = Upload.objects.create(
            project=project, file_name=Path(file_name).name[:255], format=kind, size_bytes=0, sha256="", created_by=user
        )
        path = upload_path(made.pk)
        try:
            made.size_bytes, made.sha256 = _store(file, path)
            found = look_into(kind, path)
            made.columns, made.preview = found["columns"], found["preview"]
            made.save(update_fields=["size_bytes", "sha256", "columns", "preview"])
            if benchmark.strip():
                upload_benchmark_set(upload=made, user=user, name=benchmark)
        except BaseException:
            path.unlink(missing_ok=True)
            raise
    audit(user=user, project=project, action="upload.create", target=f"upload:{made.pk}", detail={"file": made.file_name})
    return made


def _store(file: Any, path: Path) -> tuple[int, str]:
    """Writes the stream and returns size and SHA-256. Raises DataError when it is empty or too large."""
    path.parent.mkdir(parents=True, exist_ok=True)
    size, digest = 0, hashlib.sha256()
    with path.open("wb") as out:
        for chunk in _chunks(file):
            size += len(chunk)
            if size > settings.R1_MAX_UPLOAD_BYTES:
                limit = f"{settings.R1_MAX_UPLOAD_BYTES >> 20} MiB, the limit of R1_MAX_UPLOAD_BYTES"
                raise DataError(f"The file is larger than {limit}.", field="file")
            digest.update(chunk)
            out.write(chunk)
        out.flush()
        os.fsync(out.fileno())
    if not size:
        raise DataError("The file is empty.", field="file")
    return size, digest.hexdigest()


def _chunks(file: Any) -> Iterator[bytes]:
    if hasattr(file, "chunks"):
        yield from file.chunks(CHUNK_BYTES)
        return
    stream: IO[bytes] = file
    while chunk := stream.read(CHUNK_BYTES):
        yield chunk


@transaction.atomic
def version_prepare(
    *, dataset: Dataset, user: User, config: dict[str, Any], upload: Upload | None = None, run: PhaseRun | None = None
) -> DatasetVersion:
    """The next version, queued. Raises ConfigError, DataError or UnknownName at the wrong field; nothing is then made.

    `run` is the one whose stored rollouts become rows; the source “rollouts” reads them, or an upload.
    """
    parsed = PrepareConfig.parse(config)
    source_check(parsed, project=dataset.project, upload=upload, run=run)
    parsed, benchmarks = benchmarks_chosen(parsed, dataset.project)
    locked = Dataset.objects.select_for_update().get(pk=dataset.pk)
    number = (locked.versions.aggregate(number=Max("number"))["number"] or 0) + 1
    made = DatasetVersion.objects.create(
        dataset=locked, number=number, upload=upload, rollouts_of=run, config=parsed.resolved(), created_by=user,
        inputs={"benchmarks": benchmarks} if benchmarks else {},
    )  # fmt: skip
    made.refresh_from_db()
    _audit(locked, user, "version.prepare", number=number)
    ask_to_schedule()
    return made


@transaction.atomic
def version_stop(*, version: DatasetVersion, user: User) -> None:
    """Ends a preparation; its supervisor sees it and ends the process. Raises IllegalTransition."""
    if not version_transition(version=version, to=VersionState.STOPPED, reason=f"Stopped by {user.username}.", user=user):
        raise IllegalTransition("Dataset version", version.pk, VersionState.STOPPED, VersionState.STOPPED)
    _audit(version.dataset, user, "version.stop", number=version.number)


def _audit(dataset: Dataset, user: User, action: str, **detail: Any) -> None:
    audit(user=user, project=dataset.project, action=action, target=f"dataset:{dataset.pk}", detail=detail)
