"""A checkpoint as an archive: what is in it, that its length is true, and who gets it."""

from __future__ import annotations

import io
import tarfile
from pathlib import Path

import pytest
from asgiref.sync import async_to_sync
from django.contrib.auth.models import User
from django.utils import timezone
from rest_framework.test import APIClient

from model_core.errors import CheckpointError
from r1platform.models import Node, Project
from tests.training_app.rows import make_attempt, make_run, put_checkpoint, rundir_of
from training_app.checkpoint_files import archive, archive_bytes, checkpoint_files
from training_app.models import Checkpoint

pytestmark = pytest.mark.django_db


@pytest.fixture
def checkpoint(project: Project, alice: User, node: Node) -> Checkpoint:
    attempt = make_attempt(make_run(project, alice, state="succeeded"), node, state="succeeded")
    model = put_checkpoint(rundir_of(attempt), 6) / "model"
    (model / "config.json").write_text('{"a": 1}')
    (model / "model.safetensors").write_bytes(bytes(range(256)) * 5000)
    (model / "empty.json").write_bytes(b"")
    (model / ("deep" * 30)).mkdir()
    (model / ("deep" * 30) / "more.json").write_text("{}")
    (model / "out").symlink_to("/etc/passwd")
    made = Checkpoint.objects.create(run=attempt.run, attempt=attempt, step=6)
    return Checkpoint.objects.select_related("attempt__node", "run").get(pk=made.pk)


async def whole(checkpoint: Checkpoint) -> bytes:
    files = checkpoint_files(checkpoint)
    return b"".join([piece async for piece in archive(files, "run")])


def test_the_archive_holds_every_file_and_no_link(checkpoint: Checkpoint, tmp_path: Path) -> None:
    data = async_to_sync(whole)(checkpoint)
    assert len(data) == archive_bytes(checkpoint_files(checkpoint), "run")
    with tarfile.open(fileobj=io.BytesIO(data)) as tar:
        tar.extractall(tmp_path, filter="data")
    found = {path.relative_to(tmp_path / "run").as_posix(): path.read_bytes() for path in (tmp_path / "run").rglob("*") if path.is_file()}
    assert found == {file.name: file.path.read_bytes() for file in checkpoint_files(checkpoint)} and len(found) == 4


def test_a_file_that_became_shorter_breaks_the_archive_off(checkpoint: Checkpoint) -> None:
    files = checkpoint_files(checkpoint)
    next(file for file in files if file.name == "config.json").path.write_text("{")

    async def read() -> None:
        async for _piece in archive(files, "run"):
            pass

    with pytest.raises(OSError, match="became shorter"):
        async_to_sync(read)()


def test_what_is_not_there_is_said(checkpoint: Checkpoint) -> None:
    (checkpoint_files(checkpoint)[0].path.parents[1] / "COMPLETE").unlink()
    with pytest.raises(CheckpointError, match="node-1"):
        checkpoint_files(checkpoint)
    checkpoint.removed_at = timezone.now()
    with pytest.raises(CheckpointError, match="to make room"):
        checkpoint_files(checkpoint)


def test_members_download_and_strangers_do_not(
    checkpoint: Checkpoint, api_bob: APIClient, api_charlie: APIClient, api_anonymous: APIClient
) -> None:
    base = f"/api/v1/checkpoints/{checkpoint.pk}"
    assert {"config.json", "model.safetensors"} <= {file["name"] for file in api_bob.get(f"{base}/files/").json()}
    answer = api_bob.get(f"{base}/download/")
    assert answer.status_code == 200 and answer["Content-Disposition"] == f'attachment; filename="run-{checkpoint.run_id}-step-6.tar"'
    assert int(answer["Content-Length"]) == archive_bytes(checkpoint_files(checkpoint), f"run-{checkpoint.run_id}-step-6")
    for path in ("files", "download"):
        assert api_charlie.get(f"{base}/{path}/").status_code == 404 and api_anonymous.get(f"{base}/{path}/").status_code == 401
    Checkpoint.objects.update(removed_at=timezone.now())
    assert api_bob.get(f"{base}/download/").status_code == 400
