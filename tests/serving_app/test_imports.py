"""Models of others from the directory to the answer: seen, approved, hashed, deployed, and refused when they have changed."""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import Any

import httpx
import pytest
from django.contrib.auth.models import User
from django.db import IntegrityError, transaction
from django.db.models.functions import Now
from django.test import Client
from django.urls import reverse
from rest_framework.test import APIClient

from model_core.data.tokenizer import conversation_ids
from model_core.errors import CheckpointError, ConfigError
from model_core.model import load_pretrained
from model_core.published.template import rendered
from model_core.rollout import Sampler
from model_core.serving.engines import ENGINES
from model_core.training.start import load_tokenizer
from r1platform.models import AuditEntry, Node, Project
from serving_app import importing, services
from serving_app.gateway.routing import read_routes
from serving_app.importing import ImportCheck, imports_reconcile
from serving_app.model_directories import looked
from serving_app.models import Deployment, DeploymentRevision, ImportedModel, Replica
from tests.model_core.published.made import make_directory
from tests.serving_app.conftest import deploy, reconciled, replicas
from training_app.models import Checkpoint

pytestmark = [pytest.mark.django_db(transaction=True)]
NAME = "of-others"
NO_SGLANG = ENGINES.get("sglang")().installed()


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_directory(tmp_path_factory.mktemp("imports") / NAME)


@pytest.fixture
def directory(made: Path, tmp_path: Path, settings: Any, node: Node) -> Path:
    """A directory under R1_MODELS of this node."""
    settings.R1_MODELS, settings.R1_NODE_NAME = tmp_path / "models", node.name
    return Path(shutil.copytree(made, tmp_path / "models" / NAME))


def hashed(imported: ImportedModel) -> ImportedModel:
    """After its process has run."""
    ImportCheck(imported.pk, fence=imported.fence).run()
    imported.refresh_from_db()
    return imported


@pytest.fixture
def imported(directory: Path, project: Project, alice: User) -> ImportedModel:
    sha256 = looked(NAME).template_sha256
    return hashed(services.import_create(project=project, user=alice, name=NAME, chat_template_sha256=sha256))


def answers_as_the_files_do(replica: Replica, directory: Path) -> None:
    """The engine's greedy tokens are those of `load_pretrained` and our sampler."""
    tokenizer = load_tokenizer(directory)
    prompts = [conversation_ids(tokenizer, [{"role": "user", "content": f"{n} + 7 = ?"}]) for n in range(4)]
    sampler = Sampler(load_pretrained(directory), eos_token_id=int(tokenizer.eos_token_id), pad_token_id=0)
    ours = [one[0].tokens for one in sampler.generate(prompts, max_new_tokens=16, temperature=0.0)]
    sent = {"input_ids": prompts, "sampling_params": {"temperature": 0.0, "max_new_tokens": 16}}
    headers = {"Authorization": f"Bearer {replica.engine_key}"}
    theirs = httpx.post(f"{replica.base_url}/generate", json=sent, headers=headers, timeout=60, trust_env=False)
    assert theirs.is_success, theirs.text
    assert [one["output_ids"] for one in theirs.json()] == ours and len({tuple(one) for one in ours}) > 1


def test_what_is_imported_through_the_api_answers_as_the_files_do(
    directory: Path, project: Project, api_erin: APIClient, worker: Any, node: Node
) -> None:
    (found,) = api_erin.get("/api/v1/imported-models/found/").json()
    assert (found["name"], found["refusals"], found["imported_model"]) == (NAME, [], None)
    seen = api_erin.get(f"/api/v1/imported-models/found/{NAME}/").json()
    assert seen["example"] == rendered(looked(NAME).template, looked(NAME).special) and seen["refused_by"] == {}
    asked = {"name": NAME, "chat_template_sha256": seen["chat_template_sha256"]}
    told = api_erin.post("/api/v1/imported-models/", asked).json()
    body = {"name": "sums", "imported_model": told["id"], "engine": "builtin"}
    early = api_erin.post("/api/v1/deployments/", body)
    assert early.status_code == 400 and "being hashed" in early.json()["errors"]["imported_model"][0]
    model = hashed(ImportedModel.objects.get(pk=told["id"]))
    assert (model.state, model.node, model.progress, len(model.files)) == ("ready", node, 1.0, len(seen["files"]))

    answer = api_erin.post("/api/v1/deployments/", body)
    assert answer.status_code == 201, answer.json()
    revision = answer.json()["revision"]
    assert (revision["imported_model"], revision["checkpoint"], revision["run"]) == (model.pk, None, None)
    (replica,) = replicas(reconciled(Deployment.objects.get(), "ready", seconds=60))
    answers_as_the_files_do(replica, directory)
    assert replica.node == node and read_routes()["sums"].context == 128

    removed = api_erin.delete(f"/api/v1/imported-models/{model.pk}/")
    assert removed.status_code == 400 and "“sums” serves it" in removed.json()["detail"]
    services.deployment_delete(deployment=Deployment.objects.get(), user=model.approved_by)
    reconciled(Deployment.objects.get(), "stopped")
    assert api_erin.delete(f"/api/v1/imported-models/{model.pk}/").status_code == 204
    assert api_erin.get("/api/v1/imported-models/").json()["results"] == [] and (directory / "config.json").is_file()
    assert set(AuditEntry.objects.values_list("action", flat=True)) >= {"model.import", "model.remove"}


@pytest.mark.sglang
@pytest.mark.slow
@pytest.mark.skipif(NO_SGLANG is not None, reason=str(NO_SGLANG))
def test_sglang_serves_an_import(imported: ImportedModel, directory: Path, project: Project, alice: User, worker: Any) -> None:
    served = services.deployment_create(project=project, user=alice, name="sums", imported_model=imported, engine="sglang")
    (replica,) = replicas(reconciled(served, "ready", seconds=200))
    answers_as_the_files_do(replica, directory)


def test_the_page_shows_the_template_and_approves_only_what_it_showed(directory: Path, client_erin: Client) -> None:
    address = reverse("model-found", args=[NAME])
    assert NAME in client_erin.get(reverse("imported-models")).content.decode()
    page = client_erin.get(address)
    assert page.context["may_import"] and "&lt;|assistant|&gt;" in page.content.decode()
    stale = client_erin.post(address, {"chat_template_sha256": "0" * 64})
    assert stale.status_code == 422 and "not the one that you looked at" in stale.content.decode()
    assert not ImportedModel.objects.exists()
    answer = client_erin.post(address, {"chat_template_sha256": page.context["found"].template_sha256})
    row = hashed(ImportedModel.objects.get())
    assert answer["Location"] == reverse("imported-model", args=[row.pk]) and row.approved_by.username == "erin"  # type: ignore[union-attr]
    shown = client_erin.get(answer["Location"]).content.decode()
    assert row.sha256[:16] in shown and "Built in" in shown
    form = client_erin.get(reverse("deployment-new"), {"imported_model": row.pk}).context["form"]
    assert form.initial["imported_model"] == row.pk and "checkpoint" not in form.initial
    sent = {"imported_model": row.pk, "name": "sums", "engine": "builtin", "replicas": 1}
    sent |= {"config-max_running_requests": 4, "config-num_threads": 1}
    assert client_erin.post(reverse("deployment-new"), sent).status_code == 302
    page = client_erin.get(reverse("deployment-detail", args=[Deployment.objects.get().pk])).content.decode()
    assert f"{NAME}, imported" in page and NAME in client_erin.get(reverse("deployment-list")).content.decode()


def test_refusals_are_told_at_their_fields_and_nothing_is_made(directory: Path, api_erin: APIClient, client_erin: Client) -> None:
    (directory / "modeling.py").touch()
    (directory / "tokenizer.json").unlink()
    answer = api_erin.post("/api/v1/imported-models/", {"name": NAME, "chat_template_sha256": looked(NAME).template_sha256})
    assert answer.status_code == 400 and set(answer.json()["errors"]) == {"files", "tokenizer"}
    page = client_erin.get(reverse("model-found", args=[NAME]))
    assert not page.context["may_import"] and "modeling.py" in page.content.decode()
    (directory.parent / "away").symlink_to("/etc")
    told = {one["name"]: one["refusals"] for one in api_erin.get("/api/v1/imported-models/found/").json()}
    assert "leads out" in told["away"][0]["message"]
    for name in ("away", "..", ".", "no-such"):
        answer = api_erin.post("/api/v1/imported-models/", {"name": name, "chat_template_sha256": "0"})
        assert answer.status_code == 400 and "name" in answer.json()["errors"], name
    assert not ImportedModel.objects.exists()


def spoil(directory: Path, how: str) -> None:
    weights = directory / "model.safetensors"
    if how == "content":
        with weights.open("r+b") as opened:
            opened.seek(-1, 2)
            opened.write(b"\x01")
    elif how == "size":
        (directory / "generation_config.json").write_text("{}")
    elif how == "template":
        (directory / "chat_template.jinja").write_text("{{ messages }}")
    elif how == "new":
        (directory / "more.json").write_text("{}")
    else:
        shutil.rmtree(directory)


@pytest.mark.parametrize(("how", "why"), [
    ("content", "“model.safetensors” has other content"), ("size", "“generation_config.json” has 2 bytes"),
    ("template", "its chat template is another one"), ("new", "“more.json” is new"), ("gone", "There is no directory"),
])  # fmt: skip
def test_a_directory_that_has_changed_is_refused_for_good_at_the_start(
    how: str, why: str, imported: ImportedModel, directory: Path, alice: User, project: Project, worker: Any
) -> None:
    served = services.deployment_create(project=project, user=alice, name="sums", imported_model=imported, engine="stub")
    spoil(directory, how)
    reconciled(served, "failed")
    (replica,) = replicas(served)
    assert replica.permanent and why in served.state_reason
    if how not in {"content", "gone"}:
        with pytest.raises(CheckpointError, match="not what was approved"):
            services.revision_create(deployment=served, user=alice, engine_config={})


def test_a_revision_goes_from_a_checkpoint_to_an_import_and_back(
    imported: ImportedModel, checkpoint: Checkpoint, project: Project, alice: User
) -> None:
    made = deploy(project, checkpoint, state="stopped")
    Deployment.objects.filter(pk=made.pk).update(desired_replicas=0)
    second = services.revision_create(deployment=made, user=alice, imported_model=imported, engine="stub")
    assert (second.served.artifact, second.checkpoint) == (imported, None)
    third = services.revision_create(deployment=made, user=alice, engine_config={"ready_after": 0.1})
    assert third.imported_model == imported, "what is not given stays"
    with pytest.raises(CheckpointError, match="serves it"):
        services.import_remove(imported=imported, user=alice)
    fourth = services.revision_create(deployment=made, user=alice, checkpoint=checkpoint)
    assert (fourth.checkpoint, fourth.imported_model) == (checkpoint, None)
    services.import_remove(imported=imported, user=alice)
    with pytest.raises(CheckpointError, match="was removed"):
        services.revision_rollback(deployment=made, user=alice, number=2)
    for both in ({}, {"checkpoint": checkpoint, "imported_model": imported}):
        with pytest.raises(ConfigError):
            services.deployment_create(project=project, user=alice, name="other", engine="stub", **both)
        with pytest.raises(IntegrityError), transaction.atomic():
            DeploymentRevision.objects.create(deployment=made, number=9, engine="stub", state="retired", share=0, **both)


def test_an_import_belongs_to_its_project_and_to_one_at_a_time(imported: ImportedModel, alice: User, charlie: User) -> None:
    theirs = charlie.memberships.get().project
    with pytest.raises(CheckpointError, match="another project"):
        services.deployment_create(project=theirs, user=charlie, name="mine", imported_model=imported, engine="stub")
    again = {"user": alice, "name": NAME, "chat_template_sha256": imported.chat_template_sha256}
    with pytest.raises(ConfigError, match="imported already"):
        services.import_create(project=imported.project, **again)
    assert services.import_create(project=theirs, **again).state == "checking"


def test_a_silent_hashing_is_begun_again_and_the_old_one_writes_nothing(
    imported: ImportedModel, monkeypatch: pytest.MonkeyPatch, directory: Path
) -> None:
    row = ImportedModel.objects.filter(pk=imported.pk)
    row.update(state="checking", sha256="", heartbeat_at=Now() - 2 * importing.SILENT)
    begun: list[tuple[int, int]] = []
    monkeypatch.setattr(importing, "import_check_start", lambda *args: begun.append(args))
    old = ImportedModel.objects.get(pk=imported.pk)
    assert (imports_reconcile(), imports_reconcile()) == (1, 0) and begun == [(old.pk, old.fence + 1)]
    assert hashed(old).state == "checking", "its fence is an older one"
    (directory / "tokenizer_config.json").unlink()
    failed = hashed(ImportedModel.objects.get(pk=imported.pk))
    assert failed.state == "failed" and "tokenizer_config.json" in failed.state_reason
