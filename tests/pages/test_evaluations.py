"""Pages of evaluations: the matrix, the form, one evaluation, one problem; who may look and who may act."""

from __future__ import annotations

import json
from typing import Any

import pytest
from django.contrib.auth.models import User
from django.core.files.uploadedfile import SimpleUploadedFile
from django.test import Client
from django.urls import reverse

from r1platform.lib.storage import evaluation_dir
from r1platform.models import Node, Project
from tests.training_app.rows import make_attempt, make_run, make_version
from training_app import services
from training_app.models import Checkpoint, Evaluation, EvaluationProblem

pytestmark = pytest.mark.django_db
RESULT = {
    "accuracy": 0.5, "stderr": 0.2, "low": 0.1, "high": 0.9, "num_problems": 2, "num_samples": 2, "pass_at_k": {"1": 0.5},
    "majority": {"k": 1, "accuracy": 0.5, "stderr": 0.2, "num_problems": 2}, "unscored": 0, "unscored_reasons": {}, "no_answer": 1,
    "truncated": 0, "references": [], "extractor": {"words": "A number.", "sha256": "ef" * 32},
}  # fmt: skip


@pytest.fixture
def gsm8k(project: Project, alice: User) -> None:
    file = SimpleUploadedFile("test.jsonl", b'{"question": "1+1?", "answer": "#### 2"}\n')
    services.upload_create(project=project, user=alice, file_name="test.jsonl", file=file, benchmark="gsm8k")


def done(project: Project, user: User, *, right: tuple[bool, bool] = (True, False), model: str = "m") -> Evaluation:
    """One that has succeeded, with the text of each sample on disk."""
    made = services.evaluation_create(
        project=project, user=user, benchmark="gsm8k", endpoint="https://api.example.com/v1", endpoint_model=model,
        config={"num_samples": 1},
    )  # fmt: skip
    Evaluation.objects.filter(pk=made.pk).update(state="succeeded", result=RESULT, accuracy=0.5, data_sha256="ab" * 32, num_problems=2)
    directory = evaluation_dir(made.pk)
    directory.mkdir(parents=True, exist_ok=True)
    at = 0
    with (directory / "result.json.samples.jsonl").open("wb") as file:
        for row, is_right in enumerate(right):
            text = "<think>hm</think><b>2</b> &amp;"
            line = json.dumps({"row": row, "samples": [{"completion": text, "finish_reason": "stop", "failure": ""}]}).encode() + b"\n"
            file.write(line)
            sample = {"correct": is_right, "answer": "2", "reason": "", "finish_reason": "stop"}
            EvaluationProblem.objects.create(
                evaluation=made, row=row, prompt=f"What is {row}?", expected="2", answer="2", correct=is_right,
                accuracy=float(is_right), samples=[sample], at_byte=at, num_bytes=len(line),
            )  # fmt: skip
            at += len(line)
    made.refresh_from_db()
    return made


@pytest.mark.usefixtures("gsm8k")
def test_one_evaluation_and_its_problems(project: Project, alice: User, client_bob: Client, client_charlie: Client) -> None:
    """A viewer reads everything as text; a stranger finds nothing."""
    evaluation = done(project, alice)
    page = reverse("evaluation-detail", args=[evaluation.pk])
    shown = client_bob.get(page).content.decode()
    for words in ("50.0\u202f%", "10.0\u202f% to 90.0\u202f%", "num samples 1 instead of 4", "82.7 %", "A number.", "efefefefefef"):
        assert words in shown, words
    assert "Delete" not in shown
    assert [one.row for one in client_bob.get(page, {"verdict": "wrong"}).context["page"]] == [1]
    assert [one.row for one in client_bob.get(page, {"q": "is 0"}).context["page"]] == [0]
    problem = reverse("evaluation-problem", args=[evaluation.pk, 1])
    text = client_bob.get(problem).content.decode()
    assert "&lt;b&gt;2&lt;/b&gt; &amp;amp;" in text and '<div class="rollout-think" tabindex="0">hm</div>' in text
    assert client_bob.get(reverse("evaluation-problem", args=[evaluation.pk, 7])).status_code == 404
    assert {client_charlie.get(address).status_code for address in (page, problem)} == {404}


@pytest.mark.usefixtures("gsm8k")
def test_two_models_are_laid_side_by_side(project: Project, alice: User, client_bob: Client) -> None:
    first, second = done(project, alice), done(project, alice, right=(False, False), model="n")
    page = client_bob.get(reverse("evaluation-detail", args=[first.pk]), {"with": second.pk, "verdict": "differs"})
    assert page.context["compared"] == {"both": 0, "first": 1, "second": 0, "none": 1}
    assert [one.row for one in page.context["page"]] == [0]
    side = client_bob.get(reverse("evaluation-problem", args=[first.pk, 0]), {"with": second.pk}).content.decode()
    assert "m at api.example.com" in side and "n at api.example.com" in side


@pytest.mark.usefixtures("gsm8k")
def test_the_matrix_names_where_figures_stand(
    project: Project, alice: User, client_bob: Client, django_assert_max_num_queries: Any
) -> None:
    for model in "abcde":
        done(project, alice, model=model)
    with django_assert_max_num_queries(16):
        page = client_bob.get(reverse("evaluation-list"))
    shown = page.content.decode()
    assert "Published: “How DeepSeek-R1 Was Built”, as the article states" in shown and "82.7\u202f%" in shown
    assert len(page.context["matrix"]["rows"]) == 5 and "not as pinned" in shown and "Evaluate a model" not in shown
    assert client_bob.get(reverse("held-out-list")).status_code == 200


@pytest.mark.usefixtures("gsm8k")
def test_one_is_started_stopped_and_deleted_from_its_pages(project: Project, client_erin: Client, client_bob: Client) -> None:
    new = reverse("evaluation-new")
    assert client_bob.get(new).status_code == 403
    form = client_erin.get(new, {"what": "gsm8k:gsm8k"}).context["config"]
    values = {f"config-{name}": form[name].value() for name in form.fields}
    wrong = client_erin.post(f"{new}?what=gsm8k:gsm8k", {**values, "endpoint": "https://127.0.0.1/v1", "seed": 0})
    assert wrong.status_code == 422 and "not a public address" in wrong.context["form"].errors["endpoint"][0]
    sent = client_erin.post(f"{new}?what=gsm8k:gsm8k", {**values, "endpoint": "https://api.example.com/v1", "seed": 0})
    evaluation = Evaluation.objects.get()
    assert sent.status_code == 302 and evaluation.config["temperature"] == 0.6
    act = {verb: reverse("evaluation-act", args=[evaluation.pk, verb]) for verb in ("stop", "resume", "delete", "burn")}
    assert client_bob.post(act["stop"]).status_code == 403 and client_erin.post(act["burn"]).status_code == 404
    assert client_erin.get(reverse("evaluation-detail", args=[evaluation.pk])).status_code == 200
    client_erin.post(act["stop"])
    client_erin.post(act["resume"], {"endpoint_key": "sk"})
    evaluation.refresh_from_db()
    assert (evaluation.state, evaluation.endpoint_key) == ("queued", "sk")
    client_erin.post(act["delete"])
    assert Evaluation.objects.exists(), "one that waits is stopped first"
    client_erin.post(act["stop"])
    client_erin.post(act["delete"])
    assert not Evaluation.objects.exists()


def test_the_newest_final_checkpoint_is_proposed_with_what_it_learnt(
    project: Project, alice: User, node: Node, client_erin: Client
) -> None:
    new, told = reverse("evaluation-new"), {"task": "two_step_stories", "task_config": {"max_level": 2}}
    made = {"source": "generated", "source_config": told}
    run = make_run(project, alice, dataset_version=make_version(project, config=made))
    attempt = make_attempt(run, node, state="succeeded")
    final, newer = (Checkpoint.objects.create(run=run, attempt=attempt, step=step, is_final=step == 3) for step in (3, 4))
    page = client_erin.get(new)
    assert page.context["form"]["checkpoint"].value() == final.pk and page.context["what"] == "task:two_step_stories"
    assert page.context["task"].values == {"max_level": 2}
    assert client_erin.get(new, {"what": "task:sums"}).context["form"]["checkpoint"].value() == final.pk
    named = client_erin.get(new, {"checkpoint": newer.pk})
    assert named.context["form"]["checkpoint"].value() == newer.pk and named.context["what"] == "task:two_step_stories"
    assert client_erin.get(new, {"checkpoint": ""}).context["form"]["checkpoint"].value() is None


def test_what_is_missing_is_said_with_the_fields_name(project: Project, client_erin: Client) -> None:
    sent = client_erin.post(f"{reverse('evaluation-new')}?what=task:sums", {"seed": "x", "limit": 0, "checkpoint": "9"})
    assert sent.status_code == 422
    told = sent.context["form"].errors
    assert told["seed"] == ["“Seed” takes a whole number from 0 to 2147483647."]
    assert told["limit"] == ["“Problems” is at least 1; you gave 0."] and told["checkpoint"][0].startswith("“Checkpoint” has no choice “9”.")
    assert all(words[0].startswith("“") for words in sent.context["config"].errors.values())


def test_a_task_is_asked_without_a_file(project: Project, client_erin: Client) -> None:
    new = f"{reverse('evaluation-new')}?what=task:sums"
    page = client_erin.get(new)
    values = {f"config-{name}": page.context["config"][name].value() for name in page.context["config"].fields}
    values |= {f"task_config-{name}": page.context["task"][name].value() for name in page.context["task"].fields}
    sent = client_erin.post(new, {**values, "endpoint": "https://api.example.com/v1", "seed": 4})
    evaluation = Evaluation.objects.get()
    assert sent.status_code == 302 and (evaluation.data_name, evaluation.limit) == ("sums", 200)
