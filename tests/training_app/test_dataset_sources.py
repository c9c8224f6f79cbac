"""Rows from a run, from chats, from the hub; benchmarks to compare with; bad rows; what is told of a preparation that fails."""

from __future__ import annotations

import io
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from django.contrib.auth.models import User
from django.core.files.uploadedfile import SimpleUploadedFile
from rest_framework.test import APIClient

from model_core.errors import ConfigError, DataError, ModelCoreError
from r1platform.lib.storage import version_dir
from r1platform.models import AuditEntry, Node, Project
from tests.training_app.rows import make_attempt, make_run
from tests.training_app.stored_rollouts import group, run_with_rollouts, store
from tests.training_app.test_datasets import API, LINES, MAPPED, SUMS, send
from training_app import selectors, services
from training_app.models import Dataset, DatasetVersion, PhaseRun, Upload

LEAK = "how many apples are left when Ann eats three of the twelve apples that she bought"
QUESTIONS = json.dumps({"question": f"Tell me: {LEAK}?", "answer": "9"}).encode()
CHAT = b'{"messages": [{"role": "user", "content": "Hi"}, {"role": "assistant", "content": "Hello"}], "rating": true}\n'


@pytest.fixture
def run(project: Project, alice: User, node: Node) -> PhaseRun:
    return run_with_rollouts(project, alice, node)


def row_of_upload(project: Project, **values: Any) -> Upload:
    """An upload without its file."""
    plain = {"file_name": "rows.jsonl", "format": "jsonl", "size_bytes": 1, "sha256": ""}
    return Upload.objects.create(project=project, **{**plain, **values})


def filters(**config: Any) -> dict[str, Any]:
    return {**MAPPED, "filters": [{"name": "contamination", "config": config}]}


@pytest.mark.django_db(transaction=True)
def test_the_rollouts_of_a_run_become_a_version(dataset: Dataset, alice: User, run: PhaseRun, prepare: Callable[[], None]) -> None:
    config = {"source": "rollouts", "held_out_fraction": 0.0}
    version = services.version_prepare(dataset=dataset, user=alice, config=config, run=run)
    prepare()
    version.refresh_from_db()
    assert version.state == "ready", version.state_reason
    rows = {row["prompt"]: row for row in selectors.version_preview(version)["rows"]}
    assert set(rows) == {"1+1?", "1+0+1?"} and rows["1+1?"]["completion"] == "<think>short</think>2"
    assert rows["1+1?"]["meta"]["pass_rate"] == pytest.approx(2 / 3)
    lineage = selectors.version_lineage(version)
    assert lineage["rollouts_of"] == {"id": run.pk, "name": run.name, "steps": [1, 2]}
    assert list(run.made_versions.all()) == [version] and not (version_dir(version.pk) / "inputs").exists()


@pytest.mark.django_db
def test_a_step_that_was_sampled_again_counts_once(run: PhaseRun, node: Node) -> None:
    from training_app.preparation_inputs import rollout_files

    first = run.attempts.get()
    second = make_attempt(run, node, number=2, state="succeeded")
    store(second, 2, [group("again?", ("yes</think>2", True, 1.0))])
    files = rollout_files(run)
    assert list(files) == [1, 2] and f"/{first.number}/" in str(files[1]) and f"/{second.number}/" in str(files[2])
    files[2].unlink()
    assert f"/{first.number}/" in str(rollout_files(run)[2]), "the newest that is on this machine"
    rollout_files(run)[2].unlink()
    assert list(rollout_files(run)) == [1]


@pytest.mark.django_db(transaction=True)
def test_rollouts_that_have_gone_meanwhile_are_a_sentence(
    dataset: Dataset, alice: User, run: PhaseRun, prepare: Callable[[], None]
) -> None:
    from training_app.preparation_inputs import rollout_files

    version = services.version_prepare(dataset=dataset, user=alice, config={"source": "rollouts"}, run=run)
    for path in rollout_files(run).values():
        path.unlink()
    prepare()
    version.refresh_from_db()
    assert (version.state, version.state_reason) == ("failed", f"The rollouts of run {run.pk} are not on this machine.")


@pytest.mark.django_db
@pytest.mark.parametrize(
    ("config", "given", "field", "words"),
    [
        ({"source": "rollouts"}, set(), "upload", "or choose a run"),
        (SUMS, {"run"}, "run", "reads no rollouts"),
        ({"source": "rollouts"}, {"run", "upload"}, "upload", "not from both"),
        ({"source": "rollouts"}, {"bare"}, "run", "stored no rollouts"),
        ({"source": "rollouts"}, {"foreign"}, "run", "no such run"),
        ({"source": "rollouts", "source_config": {"keep": "best"}}, {"run"}, "source_config.keep", "correct"),
        ({"source": "csv"}, {"upload"}, "source", "is jsonl, not csv"),
        ({"source": "hub"}, set(), "source_config.repository", "openai/gsm8k"),
        ({"source": "hub", "source_config": {"repository": "../etc"}}, set(), "source_config.repository", "pattern"),
        ({**MAPPED, "mapping": {"messages": "chat"}}, {"upload"}, "mapping.messages", "it has q, a"),
        (filters(), {"upload"}, "filters.0.config.benchmarks", "there are those of: none"),
    ],
)
def test_what_cannot_be_is_refused_at_its_field(
    config: dict[str, Any], given: set[str], field: str, words: str, dataset: Dataset, alice: User, charlie: User, run: PhaseRun
) -> None:
    runs = {"run": lambda: run, "bare": lambda: make_run(dataset.project, alice), "foreign": lambda: _foreign(charlie)}
    chosen = next((make() for name, make in runs.items() if name in given), None)
    upload = row_of_upload(dataset.project, columns=["q", "a"]) if "upload" in given else None
    before = DatasetVersion.objects.count()
    with pytest.raises(ModelCoreError, match=words) as refused:
        services.version_prepare(dataset=dataset, user=alice, config=config, upload=upload, run=chosen)
    assert refused.value.field == field and DatasetVersion.objects.count() == before


def _foreign(charlie: User) -> PhaseRun:
    return make_run(Project.objects.get(memberships__user=charlie), charlie)


@pytest.mark.django_db
def test_the_hub_can_be_switched_off(dataset: Dataset, alice: User, settings: Any) -> None:
    settings.R1_HUB_URL = ""
    with pytest.raises(ConfigError, match="R1_HUB_URL") as refused:
        services.version_prepare(
            dataset=dataset, user=alice, config={"source": "hub", "source_config": {"repository": "openai/gsm8k"}}
        )
    assert refused.value.field == "source"


@pytest.mark.django_db
def test_only_the_hub_s_loader_has_a_way_to_the_hub(settings: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from training_app.preparation_inputs import source_environment

    monkeypatch.delenv("HF_HUB_OFFLINE", raising=False)
    settings.R1_HUB_URL = "https://hub.example"
    assert source_environment("jsonl", mark=tmp_path)["HF_HUB_OFFLINE"] == "1"
    env = source_environment("hub", mark=tmp_path)
    assert env["HF_HUB_OFFLINE"] == "0" and env["HF_ENDPOINT"] == "https://hub.example" and "DATABASE_URL" not in env
    assert env["MODEL_CORE_HOSTS"] == "hub.example,.hub.example"
    settings.R1_HUB_URL = "https://huggingface.co"
    assert source_environment("hub", mark=tmp_path)["MODEL_CORE_HOSTS"] == "huggingface.co,.huggingface.co,.hf.co"


@pytest.mark.django_db
def test_a_hub_that_cannot_be_reached_is_the_loader_s_sentence(project: Project, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    with pytest.raises(DataError, match=r"The dataset cannot be read: .*openai/gsm8k") as refused:
        services.rows_look(project=project, config={"source": "hub", "source_config": {"repository": "openai/gsm8k"}})
    assert refused.value.field == "source_config.repository" and "Traceback" not in refused.value.message


@pytest.mark.django_db
def test_an_upload_can_be_read_as_rated_chats(dataset: Dataset, alice: User) -> None:
    upload = send(dataset.project, alice, "chats.jsonl", CHAT)
    found = services.rows_look(project=dataset.project, config={"source": "chats"}, upload=upload)
    assert found["mapped"][0]["row"]["completion"] == "Hello"
    version = services.version_prepare(dataset=dataset, user=alice, config={"source": "chats"}, upload=upload)
    assert version.config["source"] == "chats" and version.upload == upload
    chat = {"source": "jsonl", "mapping": {"messages": "messages"}}
    assert services.version_prepare(dataset=dataset, user=alice, config=chat, upload=upload).number == 2


@pytest.mark.django_db
def test_benchmarks_at_hand_are_the_operator_s_and_the_project_s(
    project: Project, alice: User, charlie: User, settings: Any, tmp_path: Path
) -> None:
    settings.R1_BENCHMARKS = tmp_path
    for name in ("gsm8k.jsonl.gz", "math500.csv", "notes.md"):
        (tmp_path / name).write_bytes(b"x")
    mine = services.upload_create(
        project=project, user=alice, file_name="test.jsonl", file=io.BytesIO(QUESTIONS), benchmark="gsm8k"
    )
    found = selectors.benchmark_files(project)
    assert list(found) == ["gsm8k", "math500"] and (found["gsm8k"].upload, found["math500"].upload) == (mine.pk, None)
    assert found["gsm8k"].ending == ".jsonl" and found["math500"].ending == ".csv"
    elsewhere = selectors.benchmark_files(Project.objects.get(memberships__user=charlie))
    assert elsewhere["gsm8k"].upload is None and elsewhere["gsm8k"].ending == ".jsonl.gz"
    services.upload_benchmark_set(upload=mine, user=alice, name="")
    assert selectors.benchmark_files(project)["gsm8k"].upload is None
    assert AuditEntry.objects.filter(action="upload.benchmark").count() == 2


@pytest.mark.django_db
@pytest.mark.parametrize(
    ("name", "content", "field"), [("GSM 8K", QUESTIONS, "benchmark"), ("gsm8k", LINES, "file"), ("taken", QUESTIONS, "benchmark")]
)
def test_a_file_that_is_no_benchmark_is_not_kept(name: str, content: bytes, field: str, project: Project, alice: User) -> None:
    upload = {"project": project, "user": alice, "file_name": "b.jsonl"}
    row_of_upload(project, benchmark="taken")
    with pytest.raises(ModelCoreError) as refused:
        services.upload_create(**upload, file=io.BytesIO(content), benchmark=name)
    assert refused.value.field == field and Upload.objects.count() == 1


@pytest.mark.django_db(transaction=True)
def test_leaks_are_dropped_and_told_by_benchmark_and_bad_rows_by_reason(
    dataset: Dataset, alice: User, settings: Any, tmp_path: Path, prepare: Callable[[], None]
) -> None:
    settings.R1_BENCHMARKS = tmp_path
    (tmp_path / "empty_one.csv").write_text("question,answer\nWhat is the capital of the country of France?,Paris\n")
    services.upload_create(
        project=dataset.project, user=alice, file_name="t.jsonl.gz", file=io.BytesIO(_packed(QUESTIONS)), benchmark="gsm8k"
    )
    rows = LINES + json.dumps({"q": f"Say {LEAK}, please", "a": "#### 9"}).encode() + b'\n{broken\n{"q": "x", "a": "no mark"}\n'
    upload = send(dataset.project, alice, content=LINES)
    _replace(upload, rows)
    version = services.version_prepare(
        dataset=dataset, user=alice, config={**filters(), "on_bad_row": "skip", "max_bad_rows": 2}, upload=upload
    )
    assert version.config["filters"][0]["config"]["benchmarks"] == ["empty_one", "gsm8k"]
    prepare()
    version.refresh_from_db()
    assert version.state == "ready", version.state_reason
    report = selectors.version_report(version)
    first, second = report["contamination"]
    assert (first["benchmark"], first["dropped"], len(first["sha256"])) == ("empty_one", 0, 64)
    assert (second["benchmark"], second["dropped"], second["file_name"]) == ("gsm8k", 1, "t.jsonl.gz")
    assert "apples" in second["examples"][0]["why"] and LEAK in second["examples"][0]["row"]["prompt"]
    assert (report["num_read"], report["num_rows"], report["bad_rows"]["num"]) == (5, 2, 2)
    reasons = {one["reason"]: one for one in report["bad_rows"]["reasons"]}
    assert set(reasons) == {"not JSON", "answer_pattern finds nothing"} and "{broken" in reasons["not JSON"]["examples"][0]["excerpt"]
    assert report["funnel"][0]["share"] == pytest.approx(2 / 5)


@pytest.mark.django_db(transaction=True)
def test_a_preparation_that_fails_keeps_its_counts_and_its_reason(
    dataset: Dataset, alice: User, prepare: Callable[[], None]
) -> None:
    upload = send(dataset.project, alice, content=LINES)
    _replace(upload, LINES + b"{broken\n" * 3)
    config = {**MAPPED, "on_bad_row": "skip", "max_bad_rows": 2, "filters": [{"name": "length", "config": {}}]}
    version = services.version_prepare(dataset=dataset, user=alice, config=config, upload=upload)
    prepare()
    version.refresh_from_db()
    assert version.state == "failed" and "3 rows cannot be used, and max_bad_rows is 2" in version.state_reason
    report = selectors.version_report(version)
    assert report["bad_rows"]["num"] == 3 and [step["filter"] for step in report["funnel"]] == ["length"]
    assert version.manifest is None and not (version_dir(version.pk) / "data").exists()


def _replace(upload: Upload, content: bytes) -> None:
    """What the file holds behind its looked-at beginning, so that the looking does not refuse it."""
    from r1platform.lib.storage import upload_path

    upload_path(upload.pk).write_bytes(content)


def _packed(content: bytes) -> bytes:
    import gzip

    return gzip.compress(content, mtime=0)


@pytest.mark.django_db
def test_the_report_of_a_version_from_before_counts_is_its_manifest_s(project: Project) -> None:
    from tests.training_app.rows import make_version

    step = {"filter": "length", "kept": 15, "dropped": 5, "reasons": {"too long": 5}, "examples": []}
    version = make_version(project, manifest={"num_rows": 10, "num_held_out": 5, "funnel": [step]})
    report = selectors.version_report(version)
    assert report["num_read"] == 20 and report["funnel"][0]["reasons"] == [{"reason": "too long", "num": 5, "examples": []}]
    assert selectors.version_report(make_version(project))["num_read"] == 0


@pytest.mark.django_db
def test_through_the_api(
    api_erin: APIClient, api_bob: APIClient, api_charlie: APIClient, api_anonymous: APIClient, dataset: Dataset, run: PhaseRun
) -> None:
    url = f"{API}/datasets/{dataset.pk}/"
    body = {"config": {"source": "rollouts", "source_config": {"keep": "all", "prefer": "best_reward"}}, "run": run.pk}
    for door in ("versions/", "look/"):
        refused = [client.post(f"{url}{door}", body).status_code for client in (api_anonymous, api_bob, api_charlie)]
        assert refused == [401, 403, 404], door
    look = api_erin.post(f"{url}look/", body)
    assert look.status_code == 200 and look.json()["mapped"][0]["row"]["prompt"] == "1+0+1?"
    made = api_erin.post(f"{url}versions/", body)
    assert made.status_code == 201 and made.json()["rollouts_of"] == run.pk
    foreign = api_charlie.get(f"{API}/projects/").json()["results"][0]["id"]
    strange = make_run(Project.objects.get(pk=foreign), User.objects.get(username="charlie"))
    wrong = api_erin.post(f"{url}versions/", {**body, "run": strange.pk})
    assert wrong.status_code == 400 and set(wrong.json()["errors"]) == {"run"}
    version = f"{API}/dataset-versions/{made.json()['id']}/"
    readers = (api_erin, api_bob, api_charlie, api_anonymous)
    assert [client.get(f"{version}report/").status_code for client in readers] == [200, 200, 404, 401]
    assert api_bob.get(f"{version}lineage/").json()["rollouts_of"]["id"] == run.pk
    sources = {one["name"]: one for one in api_bob.get(f"{API}/sources/").json()}
    assert sources["rollouts"]["reads"] == ["upload", "run"] and sources["hub"]["reads"] == [] and sources["chats"]["is_mapped"]


@pytest.mark.django_db
def test_benchmark_files_through_the_api(
    api_erin: APIClient, api_bob: APIClient, api_charlie: APIClient, api_anonymous: APIClient, project: Project
) -> None:
    given = {"file": SimpleUploadedFile("b.jsonl", QUESTIONS), "benchmark": "mine"}
    made = api_erin.post(f"{API}/uploads/", given, format="multipart")
    assert made.status_code == 201 and made.json()["benchmark"] == "mine"
    assert [file["name"] for file in api_bob.get(f"{API}/benchmark-files/").json()] == ["mine"]
    assert api_charlie.get(f"{API}/benchmark-files/").json() == []
    assert api_charlie.get(f"{API}/benchmark-files/?project={project.pk}").status_code == 400
    assert api_anonymous.get(f"{API}/benchmark-files/").status_code == 401
    url = f"{API}/uploads/{made.json()['id']}/benchmark/"
    refused = [client.post(url, {"name": "x"}).status_code for client in (api_anonymous, api_bob, api_charlie)]
    assert refused == [401, 403, 404]
    wrong = api_erin.post(url, {"name": "No Name"})
    assert wrong.status_code == 400 and set(wrong.json()["errors"]) == {"benchmark"}
    assert api_erin.post(url, {"name": ""}).json()["benchmark"] == "" and api_bob.get(f"{API}/benchmark-files/").json() == []


@pytest.mark.django_db
def test_counts_are_what_the_process_says(dataset: Dataset, alice: User) -> None:
    from training_app.preparation_dir import PreparationDir

    version = services.version_prepare(dataset=dataset, user=alice, config=SUMS)
    directory = PreparationDir(version_dir(version.pk))
    assert directory.read_counts() == {}
    directory.clear()
    (directory.path / "counts.json").write_text('{"num_read": 7, "bad_rows": {"num": 0}, "funnel": [], "x": "\\u0000"}')
    assert directory.read_counts()["num_read"] == 7 and "\x00" not in str(directory.read_counts())
    DatasetVersion.objects.filter(pk=version.pk).update(state="preparing", counts=directory.read_counts())
    version.refresh_from_db()
    assert selectors.version_report(version)["num_read"] == 7
    directory.clear()
    assert directory.read_counts() == {}
