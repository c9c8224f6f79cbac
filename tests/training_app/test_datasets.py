"""Datasets through services, API and the real preparation process: whole or not at all."""

from __future__ import annotations

import gzip
import io
import json
import os
import signal
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any

import psutil
import pytest
from django.contrib.auth.models import User
from django.core.files.uploadedfile import SimpleUploadedFile
from django.db import connection
from rest_framework.test import APIClient

from model_core.errors import ConfigError, DataError, ModelCoreError
from r1platform.lib.storage import home, upload_path, version_dir
from r1platform.models import Node, Project
from tests.training_app.rows import make_run, make_version
from tests.training_app.test_supervisor import until
from training_app import preparation, selectors, services
from training_app.models import Dataset, DatasetVersion, Upload
from training_app.preparation import PreparationSupervisor

API = "/api/v1"
GSM8K = Path(__file__).parents[3] / "shared" / "data" / "gsm8k" / "train.jsonl"
SUMS = {"source": "generated", "source_config": {"task": "sums", "num_train": 40, "num_held_out": 10}}
LINES = b'{"q": "1+1?", "a": "two\\n#### 2"}\n{"q": "2+2?", "a": "four\\n#### 4"}\n'
MAPPED = {
    "source": "jsonl", "mapping": {"prompt": "q", "completion": "a", "answer_pattern": r"####\s*(.+)$"}, "held_out_fraction": 0.0
}  # fmt: skip


def send(project: Project, user: User, name: str = "rows.jsonl", content: bytes = LINES) -> Upload:
    return services.upload_create(project=project, user=user, file_name=name, file=io.BytesIO(content))


@pytest.mark.django_db(transaction=True)
def test_generated_rows_become_an_immutable_version(dataset: Dataset, alice: User, prepare: Callable[[], None]) -> None:
    version = services.version_prepare(dataset=dataset, user=alice, config=SUMS)
    assert version.number == 1 and version.state == "queued" and version.config["held_out_fraction"] == 0.1
    prepare()
    version.refresh_from_db()
    assert version.state == "ready", version.state_reason
    assert (version.num_rows, version.num_held_out) == (40, 10) and len(version.sha256) == 64
    page = selectors.version_preview(version, split="held_out", page=1)
    assert len(page["rows"]) == 10 and page["num_pages"] == 1 and page["rows"][0]["task"] == "sums"
    assert len(selectors.version_preview(version, page=99)["rows"]) == 20
    assert [move.after for move in version.transitions.all()] == ["preparing", "ready"]


@pytest.mark.django_db(transaction=True)
def test_an_upload_is_mapped(dataset: Dataset, alice: User, prepare: Callable[[], None]) -> None:
    upload = send(dataset.project, alice)
    assert upload.columns == ["q", "a"] and upload.preview[0]["q"] == "1+1?"
    version = services.version_prepare(dataset=dataset, user=alice, config=MAPPED, upload=upload)
    prepare()
    version.refresh_from_db()
    (first, second) = selectors.version_preview(version)["rows"]
    assert {first["answer"], second["answer"]} == {"2", "4"} and "<think>" in first["completion"]
    assert selectors.version_lineage(version)["upload"]["file_name"] == "rows.jsonl"


@pytest.mark.django_db(transaction=True)
def test_a_broken_row_fails_with_its_number_and_leaves_no_data(dataset: Dataset, alice: User, prepare: Callable[[], None]) -> None:
    rows = b"".join(b'{"q": "%d", "a": "x #### 1"}\n' % n for n in range(30)) + b'{"q": "late", "a": "no answer"}\n'
    version = services.version_prepare(
        dataset=dataset, user=alice, config=MAPPED, upload=send(dataset.project, alice, content=rows)
    )
    prepare()
    version.refresh_from_db()
    assert version.state == "failed" and "Row 31" in version.state_reason
    assert not (version_dir(version.pk) / "data").exists()


@pytest.mark.django_db(transaction=True)
def test_a_killed_process_is_begun_again(
    dataset: Dataset, alice: User, prepare: Callable[[], None], monkeypatch: pytest.MonkeyPatch
) -> None:
    """The process is killed at its first look; the next try gives the version."""
    version = services.version_prepare(dataset=dataset, user=alice, config=SUMS)
    killed: list[int] = []
    follow = PreparationSupervisor._follow

    def kill_first(self: PreparationSupervisor, ref: Any) -> bool:
        if not killed:
            os.kill(ref.pid, signal.SIGKILL)
            killed.append(ref.pid)
        return follow(self, ref)

    monkeypatch.setattr(PreparationSupervisor, "_follow", kill_first)
    prepare()
    version.refresh_from_db()
    assert killed and version.state == "ready"


@pytest.mark.django_db(transaction=True)
def test_a_silent_supervisor_is_replaced(dataset: Dataset, alice: User, node: Node, prepare: Callable[[], None]) -> None:
    version = services.version_prepare(dataset=dataset, user=alice, config=SUMS)
    DatasetVersion.objects.filter(pk=version.pk).update(state="preparing", node=node, pid=1, heartbeat_at="2026-01-01T00:00Z")
    prepare()
    version.refresh_from_db()
    assert version.state == "ready"


@pytest.mark.django_db(transaction=True)
def test_a_node_that_goes_down_ends_the_process_and_queues_the_version(
    dataset: Dataset, alice: User, prepare: Callable[[], None], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(preparation, "BEAT_SECONDS", 0.02)
    config = {"source": "generated", "source_config": {"task": "sums", "num_train": 500_000, "num_held_out": 10}}
    version = services.version_prepare(dataset=dataset, user=alice, config=config)
    work = threading.Thread(target=lambda: (prepare(), connection.close()))
    monkeypatch.setattr(preparation, "_is_supervised", lambda _version: work.is_alive())
    work.start()
    until(lambda: DatasetVersion.objects.get(pk=version.pk).progress > 0)
    assert preparation.preparations_release()
    version.refresh_from_db()
    assert version.state == "queued" and "shut down" in version.state_reason
    assert not _processes_of(version_dir(version.pk))


@pytest.mark.django_db(transaction=True)
def test_what_was_prepared_while_nobody_could_write_it_down_is_not_prepared_again(
    dataset: Dataset, alice: User, node: Node, prepare: Callable[[], None], monkeypatch: pytest.MonkeyPatch
) -> None:
    version = services.version_prepare(dataset=dataset, user=alice, config=SUMS)
    prepare()
    DatasetVersion.objects.filter(pk=version.pk).update(
        state="preparing", node=node, pid=None, heartbeat_at="2026-01-01T00:00Z", num_rows=0
    )
    monkeypatch.setattr(PreparationSupervisor, "_start", lambda self: pytest.fail("it was prepared again"))
    prepare()
    version.refresh_from_db()
    assert version.state == "ready" and version.num_rows == 40


@pytest.mark.django_db(transaction=True)
def test_a_row_that_the_database_cannot_hold_is_only_a_dropped_row(
    dataset: Dataset, alice: User, prepare: Callable[[], None]
) -> None:
    rows = LINES + b'{"q": "\\u0000", "a": "x #### 6"}\n'
    config = {**MAPPED, "filters": [{"name": "length", "config": {"min_prompt_chars": 3}}]}
    version = services.version_prepare(
        dataset=dataset, user=alice, config=config, upload=send(dataset.project, alice, content=rows)
    )
    prepare()
    version.refresh_from_db()
    assert version.state == "ready", version.state_reason


def _processes_of(directory: Path) -> list[int]:
    return [process.pid for process in psutil.process_iter() if str(directory) in " ".join(_words(process))]


def _words(process: psutil.Process) -> list[str]:
    try:
        return list(process.cmdline())
    except psutil.Error:
        return []


@pytest.mark.django_db(transaction=True)
def test_stopping_ends_the_process_and_keeps_nothing(
    dataset: Dataset, alice: User, prepare: Callable[[], None], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(preparation, "BEAT_SECONDS", 0.02)
    config = {"source": "generated", "source_config": {"task": "sums", "num_train": 500_000, "num_held_out": 10}}
    version = services.version_prepare(dataset=dataset, user=alice, config=config)
    work = threading.Thread(target=lambda: (prepare(), connection.close()))
    work.start()
    until(lambda: DatasetVersion.objects.get(pk=version.pk).state == "preparing" and version_dir(version.pk).exists())
    version.refresh_from_db()
    services.version_stop(version=version, user=alice)
    work.join(30)
    version.refresh_from_db()
    assert version.state == "stopped" and not version_dir(version.pk).exists()


@pytest.mark.django_db
@pytest.mark.parametrize(
    ("name", "content", "words"),
    [
        ("rows.exe", b"x", "no kind that is read"),
        ("rows.jsonl", b"", "empty"),
        ("rows.jsonl", b"{broken\n", "Line 1"),
        ("rows.jsonl", b"[1]\n", "not an object"),
        ("rows.jsonl", b"\xff\xfe\n", "not UTF-8"),
        ("rows.csv", b"a,a\n1,2\n", "each once"),
        ("rows.csv", b"a,b\n1\n", "1 values for 2 columns"),
        ("rows.jsonl.gz", gzip.compress(LINES, mtime=0)[:-6], "breaks off"),
    ],
)
def test_a_broken_file_is_refused_and_not_kept(name: str, content: bytes, words: str, project: Project, alice: User) -> None:
    before = set((home() / "uploads").glob("*"))
    with pytest.raises(DataError, match=words):
        send(project, alice, name, content)
    assert not Upload.objects.exists() and set((home() / "uploads").glob("*")) == before


@pytest.mark.django_db
def test_a_file_may_not_be_too_large(project: Project, alice: User, settings: Any) -> None:
    settings.R1_MAX_UPLOAD_BYTES = 20
    with pytest.raises(DataError, match="R1_MAX_UPLOAD_BYTES"):
        send(project, alice)


@pytest.mark.django_db
def test_files_lie_under_their_id(project: Project, alice: User) -> None:
    upload = send(project, alice, "../../etc/passwd.jsonl")
    assert upload.file_name == "passwd.jsonl" and upload_path(upload.pk).read_bytes() == LINES


@pytest.mark.django_db
@pytest.mark.parametrize(
    ("config", "field"),
    [
        ({"source": "jsonl"}, "upload"),
        ({**SUMS, "seed": -1}, "seed"),
        ({**SUMS, "sead": 1}, "sead"),
        ({**SUMS, "source_config": {"task": "sums", "num_train": 0}}, "source_config.num_train"),
        ({**SUMS, "filters": [{"name": "length", "config": {"longest": 1}}]}, "filters.0.config.longest"),
    ],
)
def test_a_wrong_configuration_makes_no_version(config: dict[str, Any], field: str, dataset: Dataset, alice: User) -> None:
    with pytest.raises(ModelCoreError) as refused:
        services.version_prepare(dataset=dataset, user=alice, config=config)
    assert refused.value.field == field and not DatasetVersion.objects.exists()


@pytest.mark.django_db
def test_a_field_that_the_file_lacks_is_said_before_preparing(dataset: Dataset, alice: User) -> None:
    upload = send(dataset.project, alice)
    with pytest.raises(ConfigError, match="it has q, a") as refused:
        services.version_prepare(dataset=dataset, user=alice, config={**MAPPED, "mapping": {"prompt": "question"}}, upload=upload)
    assert refused.value.field == "mapping.prompt"


@pytest.mark.django_db
def test_what_was_learnt_from_cannot_be_deleted(project: Project, alice: User) -> None:
    version = make_version(project)
    make_run(project, alice, dataset_version=version)
    with pytest.raises(DataError, match="1 runs"):
        services.dataset_delete(dataset=version.dataset, user=alice)
    unused = services.dataset_create(project=project, user=alice, name="unused")
    services.dataset_delete(dataset=unused, user=alice)
    assert not Dataset.objects.filter(name="unused").exists()


@pytest.mark.django_db
def test_through_the_api(api_erin: APIClient, api_bob: APIClient, api_charlie: APIClient, project: Project) -> None:
    body = {"name": "D", "kind": "domain"}
    assert api_bob.post(f"{API}/datasets/", body).status_code == 403
    made = api_erin.post(f"{API}/datasets/", body)
    assert made.status_code == 201
    file = SimpleUploadedFile("rows.jsonl", LINES)
    upload = api_erin.post(f"{API}/uploads/", {"file": file}, format="multipart")
    assert upload.status_code == 201 and upload.json()["columns"] == ["q", "a"]
    url = f"{API}/datasets/{made.json()['id']}/versions/"
    given = {"config": MAPPED, "upload": upload.json()["id"]}
    assert api_bob.post(url, given).status_code == 403 and api_charlie.post(url, given).status_code == 404
    version = api_erin.post(url, given)
    assert version.status_code == 201 and version.json()["state"] == "queued"
    wrong = api_erin.post(url, {"config": {**MAPPED, "mapping": {"prompt": "no"}}, "upload": upload.json()["id"]})
    assert wrong.status_code == 400 and "mapping.prompt" in wrong.json()["errors"]
    row = f"{API}/dataset-versions/{version.json()['id']}/"
    assert api_charlie.get(row).status_code == 404
    assert api_bob.get(f"{row}preview/").status_code == 400
    assert api_erin.post(f"{row}stop/").json()["state"] == "stopped"
    assert api_erin.post(f"{row}stop/").status_code == 409
    assert {"generated", "jsonl", "csv", "text"} <= {source["name"] for source in api_bob.get(f"{API}/sources/").json()}


@pytest.mark.django_db(transaction=True)
@pytest.mark.skipif(not GSM8K.exists(), reason="the real GSM8K is not beside the project")
def test_gsm8k_goes_the_same_way(dataset: Dataset, alice: User, prepare: Callable[[], None]) -> None:
    with GSM8K.open("rb") as file:
        upload = services.upload_create(project=dataset.project, user=alice, file_name="train.jsonl", file=file)
    assert upload.columns == ["question", "answer"]
    mapping = {"prompt": "question", "completion": "answer", "answer_pattern": r"####\s*(.+)$"}
    version = services.version_prepare(dataset=dataset, user=alice, config={"source": "jsonl", "mapping": mapping}, upload=upload)
    prepare()
    version.refresh_from_db()
    assert version.state == "ready" and version.num_rows + version.num_held_out == 7473
    assert json.dumps(version.manifest) and selectors.version_preview(version)["rows"][0]["answer"]
