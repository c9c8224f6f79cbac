"""Accepted judgements as a dataset version: written as an upload, prepared as any other. Training learns nothing of serving."""

from __future__ import annotations

import hashlib
from io import BytesIO
from typing import Any

from django.contrib.auth.models import User
from django.db import transaction

from model_core.errors import ConfigError, DataError
from r1platform.lib.storage import upload_path
from r1platform.models import Project
from serving_app.judged_rows import DEMONSTRATIONS, PAIRS, Rows, judged_rows
from serving_app.models import Judgement
from serving_app.states import ReviewState
from training_app.models import Dataset, DatasetKind, DatasetVersion
from training_app.services import dataset_create, upload_create, version_prepare
from training_app.states import VersionState

_EQUAL = {"name": "exact_duplicates", "config": {"text": "all"}}
_KEPT = ["votes", "against", "reasons"]
PREPARE: dict[str, dict[str, Any]] = {
    PAIRS: {
        "source": "jsonl", "filters": [_EQUAL],
        "mapping": {"prompt": "prompt", "chosen": "chosen", "rejected": "rejected", "keep": _KEPT},
    },
    DEMONSTRATIONS: {"source": "chats", "filters": [_EQUAL]},
}  # fmt: skip
"""How each form is prepared, as `model_core.config.PrepareConfig` takes it."""
_NOTHING = {
    PAIRS: "No accepted judgement says which of two answers is better. Choices, edits, and a good and a bad rating of answers to "
    "the same message do.",
    DEMONSTRATIONS: "No accepted judgement says that an answer is good. Good ratings, edits and choices do.",
}


def accepted_rows(project: Project, form: str) -> Rows:
    """What the accepted judgements of a project amount to now. Raises ConfigError for an unknown form."""
    if form not in PREPARE:
        raise ConfigError(f"Rows are {PAIRS} or {DEMONSTRATIONS}, not “{form}”.", field="form")
    return judged_rows(Judgement.objects.filter(project=project, state=ReviewState.ACCEPTED), form)


@transaction.atomic
def judged_version_create(
    *, project: Project, user: User, form: str, name: str = "", dataset: Dataset | None = None, held_out_fraction: float = 0.1
) -> DatasetVersion:
    """A version with all accepted judgements, of `dataset` or of a new one called `name`; its preparation is queued.

    Raises ConfigError or DataError at the field, also when nothing has changed since the dataset's newest version.
    """
    if dataset is not None:
        dataset = _locked(dataset, project)
    found = accepted_rows(project, form)
    if not found.rows:
        raise DataError(_NOTHING[form], field="form")
    data = found.encoded()
    if dataset is None:
        dataset = dataset_create(
            project=project, user=user, name=name, kind=DatasetKind.SELF,
            description="What people said of answers in the playground.",
        )  # fmt: skip
    else:
        _refuse_the_same(dataset, form, hashlib.sha256(data).hexdigest())
    upload = upload_create(project=project, user=user, file_name=f"judged-{form}.jsonl", file=BytesIO(data))
    try:
        config = {**PREPARE[form], "held_out_fraction": held_out_fraction}
        version = version_prepare(dataset=dataset, user=user, config=config, upload=upload)
    except BaseException:
        upload_path(upload.pk).unlink(missing_ok=True)
        raise
    version.judgements.set(found.judgements)
    return version


def _locked(dataset: Dataset, project: Project) -> Dataset:
    """The dataset for this transaction alone: of two people at once the second finds the version of the first."""
    found = Dataset.objects.select_for_update().filter(pk=dataset.pk, project=project).first()
    if found is None:
        raise ConfigError("There is no such dataset in this project.", field="dataset")
    return found


def _refuse_the_same(dataset: Dataset, form: str, digest: str) -> None:
    newest = dataset.versions.exclude(state__in=[VersionState.FAILED, VersionState.STOPPED]).order_by("-number").first()
    if newest is None or newest.upload is None:
        return
    if newest.config["source"] != PREPARE[form]["source"]:
        sentence = f"“{dataset.name}” holds rows of the other form. Choose another dataset, or make a new one."
        raise ConfigError(sentence, field="dataset")
    if newest.upload.sha256 == digest:
        sentence = f"Nothing has been accepted since version {newest.number} of “{dataset.name}”: its rows would be the same."
        raise ConfigError(sentence, field="dataset")
