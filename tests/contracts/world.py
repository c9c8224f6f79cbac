"""One row of everything in one project, and six people who stand differently to it: what the walk over every door visits.

Every name of the project's things holds MARK, so that an answer to somebody who is no member shows a leak by itself.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from django.conf import settings
from django.contrib.auth.models import User
from django.test import Client

from model_core.evaluation.benchmarks import BENCHMARKS
from r1platform.invitations import invitation_create
from r1platform.keys import SCOPES, api_key_create
from r1platform.lib.storage import upload_path
from r1platform.models import Membership, Node, Project, Role
from r1platform.services import project_create, sign_in_link_create
from r1platform.webhooks import webhook_create, webhook_send
from serving_app.models import Conversation, Deployment, Message, Replica
from serving_app.services import conversation_share, message_rate, preset_create
from tests.pages.b_rows import make_benchmark, make_checkpoint, make_conversation, make_deployment, make_import, make_launch
from tests.training_app.rows import make_attempt, make_run, make_version, put_checkpoint, put_series, rundir_of, tell
from training_app.ingest import Ingest
from training_app.models import (
    Alert,
    AlertRule,
    Checkpoint,
    Dataset,
    Evaluation,
    EvaluationProblem,
    PhaseRun,
    Pipeline,
    PipelinePhase,
    RoutedText,
    Upload,
)

MARK = "zanzibar"
ROLES = ("anonymous", "stranger", "viewer", "editor", "owner", "staff")
"""Who visits. A stranger owns a project of their own; so does who is staff, and neither is a member of this one."""


class World:
    """`ids` fills the `$names` of doors; `clients` are the six, signed in, and `keys` their API keys."""

    def __init__(self, node: Node) -> None:
        people = {role: User.objects.create_user(role) for role in ROLES[1:]}
        people["staff"].is_staff = people["staff"].is_superuser = True
        people["staff"].save(update_fields=["is_staff", "is_superuser"])
        for outsider in ("stranger", "staff"):
            project_create(user=people[outsider], name=f"Own of {outsider}")
        self.owner = people["owner"]
        self.project = project_create(user=self.owner, name=MARK)
        for role in (Role.VIEWER, Role.EDITOR):
            Membership.objects.create(project=self.project, user=people[role.value], role=role)
        self.ids: dict[str, Any] = {"project": self.project.pk, "slug": self.project.slug, "node": node.pk}
        self.ids["device"] = node.devices.all()[0].pk
        self._people_things()
        self.ids |= _training(self.project, self.owner, node, name=MARK)
        self.ids |= _serving(self.project, self.owner, self.ids["checkpoint"], name=MARK)
        self.keys = {role: api_key_create(user=user, name="walk", scopes=SCOPES)[1] for role, user in people.items()}
        self._clients = {role: _client(people.get(role)) for role in ROLES}
        self._cookies = {role: client.cookies.output(header="") for role, client in self._clients.items()}

    def signed_in(self, role: str) -> Client:
        """The browser of one of the six, as it was before any visit."""
        client = self._clients[role]
        client.cookies.clear()
        client.cookies.load(self._cookies[role])
        return client

    def _people_things(self) -> None:
        invited, self.ids["invitation_link"] = invitation_create(project=self.project, by=self.owner, role=Role.VIEWER, note=MARK)
        self.ids["token"] = self.ids["invitation_link"].rstrip("/").rpartition("/")[2]
        hook = webhook_create(project=self.project, user=self.owner, name=MARK, url=f"https://{MARK}.example.org/")[0]
        webhook_send(webhook=hook, event="ping", data={})
        self.ids |= {
            "invitation": invited.pk, "webhook": hook.pk, "key": api_key_create(user=self.owner, name=MARK, scopes=["read"])[0].pk,
            "sign_in_link": sign_in_link_create(user=self.owner),
        }  # fmt: skip

    def furnish_the_stranger(self, node: Node) -> None:
        """The same for the project that the stranger owns; its ids begin with `own_`."""
        own = Project.objects.get(name="Own of stranger")
        stranger = own.created_by
        made = {"project": own.pk, **_training(own, stranger, node, name="own")}
        made |= _serving(own, stranger, made["checkpoint"], name="own")
        self.ids |= {f"own_{name}": pk for name, pk in made.items()}


def _training(project: Project, owner: User, node: Node, *, name: str) -> dict[str, Any]:
    version = make_version(project)
    Dataset.objects.filter(pk=version.dataset_id).update(name=name)
    launch = make_launch(project)
    Pipeline.objects.filter(pk=launch.pipeline_id).update(name=name)
    run = make_run(project, owner, state="running", launch=launch, dataset_version=version)
    PhaseRun.objects.filter(pk=run.pk).update(name=name)
    attempt = make_attempt(run, node)
    rundir = rundir_of(attempt)
    put_checkpoint(rundir, 3)
    rundir.log.write_text(f"{name}\n")
    measured = {"accuracy": 0.5, "quality": None, "num_problems": 8, "unscored": 8, "components": {}, "examples": []}
    tell(rundir, 1, "evaluation", step=3, when="after", **measured)
    Ingest(attempt, rundir, fence=1).take()
    put_series(run, "loss", {1: 1.0, 2: 0.5})
    checkpoint = make_checkpoint(run, node, 3)
    phase = PipelinePhase.objects.create(pipeline=launch.pipeline, position=0, name="cold-start", phase="cold_start",
                                         config=run.config, gate_metric="", dataset_version=version)  # fmt: skip
    upload = Upload.objects.create(project=project, file_name=f"{name}.jsonl", format="jsonl", size_bytes=1, sha256="ab" * 32,
                                   benchmark=name)  # fmt: skip
    upload_path(upload.pk).parent.mkdir(parents=True, exist_ok=True)
    upload_path(upload.pk).write_text("{}\n")
    rule = AlertRule.objects.create(project=project, name=name, kind="ended")
    pinned = BENCHMARKS.get("gsm8k").Config().resolved()
    asked = Evaluation.objects.create(project=project, benchmark="gsm8k", data_name="gsm8k", config=pinned,
                                      endpoint=f"https://{name}.example.org")  # fmt: skip
    EvaluationProblem.objects.create(evaluation=asked, row=0, prompt=name, expected="42")
    return {
        "dataset": version.dataset_id, "version": version.pk, "pipeline": launch.pipeline_id, "launch": launch.pk,
        "run": run.pk, "checkpoint": checkpoint.pk, "phase": phase.pk, "upload": upload.pk, "rule": rule.pk,
        "alert": Alert.objects.create(project=project, run=run, rule=rule, name=name, message=name).pk, "evaluation": asked.pk,
        "measurement": run.events.get(kind="evaluation").pk,
        "route": RoutedText.objects.create(run=run, checkpoint=checkpoint, prompt=name).pk,
    }  # fmt: skip


def _serving(project: Project, owner: User, checkpoint: int, *, name: str) -> dict[str, Any]:
    deployment: Deployment = make_deployment(project, Checkpoint.objects.get(pk=checkpoint), name=name)
    chat: Conversation = make_conversation(project, owner, deployment, title=name)
    asked, answer = chat.messages.order_by("pk")
    Message.objects.filter(pk=answer.pk).update(tokens=[[name, -0.1, []]])
    judgement = message_rate(message=answer, user=owner, value=1)
    assert judgement is not None
    shelved = Path(settings.R1_MODELS) / "shelved"
    shelved.mkdir(parents=True, exist_ok=True)
    return {
        "import": make_import(project, owner, name=name).pk, "shelved": shelved.name,
        "deployment": deployment.pk, "replica": Replica.objects.get(revision__deployment=deployment).pk, "conversation": chat.pk,
        "asked": asked.pk, "answer": answer.pk, "share": conversation_share(conversation=chat, user=owner).token,
        "preset": preset_create(project=project, user=owner, name=name, is_shared=True).pk, "judgement": judgement.pk,
        "model": deployment.name, "load": make_benchmark(deployment).pk, "revision": deployment.revisions.get().pk,
    }  # fmt: skip


def _client(user: User | None) -> Client:
    client = Client(raise_request_exception=False)
    if user is not None:
        client.force_login(user)
    return client


def filled(text: str, ids: dict[str, Any]) -> str:
    """`$name` of a door by the id that it stands for."""
    for name in sorted(ids, key=len, reverse=True):
        text = text.replace(f"${name}", str(ids[name]))
    return text


def body_of(text: str) -> dict[str, Any]:
    """What a door is sent."""
    found: dict[str, Any] = json.loads(text or "{}")
    return found
