"""Pages of datasets: a version from a run, a look before preparing, benchmarks, the funnel of one that goes on and of one that failed."""

from __future__ import annotations

import json
from typing import Any

import pytest
from django.contrib.auth.models import User
from django.core.files.uploadedfile import SimpleUploadedFile
from django.test import Client
from django.urls import reverse

from r1platform.lib.storage import upload_path
from r1platform.models import Node, Project
from tests.training_app.rows import make_version
from tests.training_app.stored_rollouts import run_with_rollouts
from training_app import services
from training_app.models import Dataset, DatasetVersion, PhaseRun, Upload

pytestmark = pytest.mark.django_db
BAD = {
    "num": 3, "reasons": {"not JSON": 2, "no “a”": 1},
    "examples": [{"why": "Line 4 is not JSON <b>", "excerpt": "{broken <script>", "reason": "not JSON"}],
}  # fmt: skip
LEAKS = {
    "filter": "contamination", "kept": 15, "dropped": 2, "reasons": {"in gsm8k": 2}, "noted": {}, "rewritten": 0,
    "examples": [{"why": "10 words in a row are those of gsm8k", "reason": "in gsm8k", "row": {"prompt": "ducks", "answer": "18"}}],
}  # fmt: skip
NOTED = {"filter": "language", "kept": 17, "dropped": 0, "reasons": {}, "noted": {"unknown language": 4}, "rewritten": 0, "examples": []}
COUNTS = {"num_read": 20, "num_rows": 13, "num_held_out": 2, "bad_rows": BAD, "funnel": [NOTED, LEAKS]}
INPUTS = {"benchmarks": {"gsm8k": {"file_name": "t.jsonl", "sha256": "ab" * 32, "upload": None},
                         "math500": {"file_name": "m.jsonl", "sha256": "cd" * 32, "upload": None}}}  # fmt: skip


@pytest.fixture
def run(project: Project, alice: User, node: Node) -> PhaseRun:
    return run_with_rollouts(project, alice, node)


def upload_of(project: Project, rows: list[dict[str, Any]], name: str = "rows.jsonl") -> Upload:
    """An upload with its file, as it is after it was looked into."""
    content = "\n".join(map(json.dumps, rows)).encode()
    made = Upload.objects.create(
        project=project, file_name=name, format="jsonl", size_bytes=len(content), sha256="ab" * 32, columns=list(rows[0]), preview=rows
    )
    upload_path(made.pk).parent.mkdir(parents=True, exist_ok=True)
    upload_path(made.pk).write_bytes(content)
    return made


def sent_by(page: Any, **changed: str) -> dict[str, Any]:
    """What a browser posts of the page of the second step."""
    out: dict[str, Any] = {}
    for form in (page.context["form"], page.context["funnel"], *([page.context["about"]] if page.context["about"] else [])):
        for name in form.fields:
            value = form[name].value()
            if value not in (None, False, []):
                out[form.add_prefix(name)] = value if isinstance(value, list) else str(value) if value is not True else "on"
    return {**out, **changed}


def page_of(client: Client, version: DatasetVersion) -> str:
    return client.get(reverse("version-detail", args=[version.dataset_id, version.number])).content.decode()


def test_a_run_is_chosen_and_its_rollouts_become_a_version(run: PhaseRun, client_erin: Client) -> None:
    address = reverse("dataset-new")
    assert "1 run has stored some" in client_erin.get(address).content.decode()
    assert f"?from=rollouts&amp;run={run.pk}" in client_erin.get(address, {"from": "rollouts"}).content.decode()
    address += f"?from=rollouts&run={run.pk}"
    page = client_erin.get(address)
    assert "mapping.prompt" not in page.context["form"].fields
    answer = client_erin.post(address, sent_by(page, **{"source_config.keep": "all", "source_config.prefer": "best_reward"}))
    assert answer.status_code == 302, answer.context["form"].errors
    version = DatasetVersion.objects.get(rollouts_of=run)
    assert version.config["source_config"]["prefer"] == "best_reward" and version.dataset.kind == "self"
    shown = page_of(client_erin, version)
    assert f"Rollouts of run {run.pk}" in shown
    learnt = page_of(client_erin, run.dataset_version)  # type: ignore[arg-type]
    assert "of its rollouts" in learnt and str(version) in learnt


def test_without_a_run_the_page_says_what_stores_rollouts(client_erin: Client) -> None:
    assert "No run has stored rollouts" in client_erin.get(reverse("dataset-new"), {"from": "rollouts"}).content.decode()


def test_doors_of_making_are_shut_to_those_who_may_not(
    project: Project, run: PhaseRun, client_bob: Client, client_charlie: Client, client_alice: Client, client: Client
) -> None:
    made = upload_of(project, [{"question": "1+1?", "answer": "2"}])
    remove = reverse("benchmark-file-remove", args=[made.pk])
    for query in (f"?from=rollouts&run={run.pk}", f"?upload={made.pk}", "?from=hub"):
        address = reverse("dataset-new") + query
        assert client_bob.get(address).status_code == 403 and client.get(address).status_code == 302
        assert client_charlie.get(address).status_code == (200 if query == "?from=hub" else 404)
    files = reverse("benchmark-file-list")
    assert [one.get(files).status_code for one in (client_alice, client_bob, client_charlie, client)] == [200, 200, 200, 302]
    assert [one.post(files, {}).status_code for one in (client_alice, client_bob, client)] == [422, 403, 302]
    assert [one.post(remove).status_code for one in (client_bob, client_charlie, client)] == [403, 404, 302]
    assert client_alice.post(remove).status_code == 302


def test_a_look_shows_what_the_rows_become_and_prepares_nothing(project: Project, client_erin: Client) -> None:
    made = upload_of(project, [{"question": "1+1?", "answer": "one and one #### 2"}, {"question": "2+2?", "answer": "no mark"}])
    address = f"{reverse('dataset-new')}?upload={made.pk}"
    page = client_erin.get(address)
    looked = client_erin.post(address, sent_by(page, look="1"))
    assert looked.status_code == 200 and not Dataset.objects.exists()
    assert looked.context["rows_become"][0]["completion"] == "<think>one and one</think>2"
    text = looked.content.decode()
    assert "&lt;think&gt;one and one&lt;/think&gt;2" in text and "Row 2: answer_pattern" in text


@pytest.mark.parametrize(
    ("row", "source", "mapping"),
    [
        ({"messages": [{"role": "user", "content": "Hi"}], "rating": 1}, "chats", {}),
        ({"prompt": "1", "completions": []}, "rollouts", {}),
        ({"messages": [], "topic": "x"}, "jsonl", {"messages": "messages"}),
        ({"prompt": "q", "chosen": "a", "rejected": "b"}, "jsonl", {"chosen": "chosen", "rejected": "rejected"}),
        ({"problem": "q", "solution": "s", "reasoning": "r", "pass_rate": 0.5}, "jsonl", {"reasoning": "reasoning", "keep": ["pass_rate"]}),
    ],
)
def test_a_file_is_taken_for_what_its_fields_say(
    row: dict[str, Any], source: str, mapping: dict[str, Any], project: Project, client_erin: Client
) -> None:
    made = upload_of(project, [row])
    page = client_erin.get(reverse("dataset-new"), {"upload": made.pk})
    form = page.context["form"]
    assert page.context["source"] == source and ("mapping.prompt" in form.fields) == (source == "jsonl")
    assert {name: form[f"mapping.{name}"].value() for name in mapping} == mapping
    again = client_erin.get(reverse("dataset-new"), {"upload": made.pk, "as": "jsonl"})
    assert again.context["source"] == "jsonl" and "Rated chats" in again.content.decode()


def test_benchmarks_are_added_chosen_and_taken_away(project: Project, client_erin: Client) -> None:
    files = reverse("benchmark-file-list")
    question = json.dumps({"question": "How many eggs do the ducks lay?"}).encode()
    wrong = client_erin.post(files, {"name": "GSM", "file": SimpleUploadedFile("b.jsonl", question)})
    assert wrong.status_code == 422 and set(wrong.context["form"].errors) == {"name"}
    added = client_erin.post(files, {"name": "gsm8k", "file": SimpleUploadedFile("b.jsonl", question)})
    file = Upload.objects.get()
    assert added.status_code == 302 and f"upload={file.pk}" in added["Location"]
    rows = upload_of(project, [{"question": "1+1?", "answer": "2"}])
    address = f"{reverse('dataset-new')}?upload={rows.pk}"
    page = client_erin.get(address)
    chosen = {"filters-contamination": "on", "filters-contamination.benchmarks": ["gsm8k"]}
    assert client_erin.post(address, sent_by(page, **chosen)).status_code == 302  # type: ignore[arg-type]
    version = DatasetVersion.objects.get()
    assert version.inputs["benchmarks"]["gsm8k"]["upload"] == file.pk
    client_erin.post(reverse("benchmark-file-remove", args=[file.pk]))
    refused = client_erin.post(address, sent_by(page, name="other", **{"filters-contamination": "on"}))
    assert refused.status_code == 422 and "contamination.benchmarks" in refused.context["funnel"].errors
    assert DatasetVersion.objects.count() == 1


def test_the_hub_s_refusal_stands_at_its_field(client_erin: Client, monkeypatch: pytest.MonkeyPatch) -> None:
    from model_core.errors import DataError

    def unreachable(**_given: Any) -> dict[str, Any]:
        raise DataError("The dataset cannot be read: Couldn't reach the hub", field="source_config.repository")

    address = f"{reverse('dataset-new')}?from=hub"
    page = client_erin.get(address)
    monkeypatch.setattr(services, "rows_look", unreachable)
    refused = client_erin.post(address, sent_by(page, look="1", **{"source_config.repository": "openai/gsm8k"}))
    assert refused.status_code == 422 and "source_config.repository" in refused.context["form"].errors
    found = {"columns": ["question", "answer"], "preview": [], "num_rows_seen": 0, "mapped": []}
    monkeypatch.setattr(services, "rows_look", lambda **_given: found)
    looked = client_erin.post(address, sent_by(page, look="1", **{"source_config.repository": "openai/gsm8k"}))
    assert looked.status_code == 200 and looked.context["form"]["mapping.prompt"].value() == "question"
    assert looked.context["form"]["source_config.repository"].value() == "openai/gsm8k"
    assert '<option value="answer">' in looked.content.decode()


def test_the_hub_is_not_offered_when_it_is_switched_off(client_erin: Client, settings: Any) -> None:
    assert "?from=hub" in client_erin.get(reverse("dataset-new")).content.decode()
    settings.R1_HUB_URL = ""
    assert "?from=hub" not in client_erin.get(reverse("dataset-new")).content.decode()


@pytest.mark.parametrize("state", ["preparing", "failed", "ready"])
def test_the_funnel_is_shown_in_every_state(state: str, project: Project, client_bob: Client) -> None:
    version = make_version(
        project, state=state, state_reason="Row 9 has no “a”.", counts=COUNTS, inputs=INPUTS, config={"source": "jsonl"}
    )
    page = page_of(client_bob, version)
    assert 'data-part="funnel"' in page and "kept: unknown language, 4" in page
    assert "{broken &lt;script&gt;" in page and "Line 4 is not JSON &lt;b&gt;" in page and "85.0\u202f%" in page
    assert "compared with math500" in page and "ducks" in page
    words = {"preparing": "20 rows read, 15 kept so far", "failed": "as far as it came", "ready": "nothing in common"}
    assert all((sentence in page) == (name == state) for name, sentence in words.items())
    assert ("Row 9 has no “a”." in page) == (state == "failed")


def test_pairs_and_what_rows_carry_are_shown(project: Project, client_bob: Client) -> None:
    from r1platform.lib.storage import version_dir

    version = make_version(project, num_rows=1, num_held_out=0, config={"source": "jsonl"})
    data = version_dir(version.pk) / "data"
    data.mkdir(parents=True)
    row = {"prompt": "Which?", "completion": None, "answer": None, "task": "", "chosen": "the good one", "rejected": "the bad one",
           "meta": {"pass_rate": 0.25}}  # fmt: skip
    (data / "train.jsonl").write_text(json.dumps(row))
    page = page_of(client_bob, version)
    assert "the good one" in page and "the bad one" in page and "pass rate 0.25" in page and "<th>Completion</th>" not in page


def test_only_what_can_be_drawn_has_a_card(project: Project, client_bob: Client) -> None:
    lengths = {"mean": 1.0, "p50": 1, "p95": 1, "max": 1, "histogram": [[1, 2]]}
    statistics = {"answers": {"most_common": []}, "languages": {"most_common": [["en", 3]]}, "prompt_chars": lengths,
                  "completion_chars": None, "num_pairs": 0}  # fmt: skip
    version = make_version(project, manifest={"statistics": statistics}, config={"source": "jsonl"})
    page = client_bob.get(reverse("version-detail", args=[version.dataset_id, version.number]))
    assert [plot["title"] for plot in page.context["plots"]] == ["Prompt length", "Languages"]


def test_the_lists_cost_the_same_however_many_versions(
    project: Project, run: PhaseRun, client_bob: Client, django_assert_max_num_queries: Any
) -> None:
    for _ in range(12):
        make_version(project, config={"source": "rollouts"}, rollouts_of=run, counts=COUNTS)
    dataset = Dataset.objects.get()
    with django_assert_max_num_queries(20):
        assert client_bob.get(reverse("dataset-detail", args=[dataset.pk])).status_code == 200
    with django_assert_max_num_queries(20):
        assert client_bob.get(reverse("dataset-list")).status_code == 200


def test_a_new_version_goes_on_where_the_newest_was_made(project: Project, client_erin: Client) -> None:
    made = services.dataset_create(project=project, user=User.objects.get(username="erin"), name="D")
    upload = upload_of(project, [{"q": "1", "a": "2"}])
    config = {"source": "jsonl", "mapping": {"prompt": "q", "answer": "a"}, "on_bad_row": "skip", "max_bad_rows": 7}
    version = services.version_prepare(dataset=made, user=made.created_by, config=config, upload=upload)  # type: ignore[arg-type]
    page = client_erin.get(reverse("version-detail", args=[made.pk, version.number]))
    DatasetVersion.objects.update(state="stopped")
    page = client_erin.get(page.context["again"])
    assert page.context["form"]["max_bad_rows"].value() == 7 and page.context["form"]["mapping.answer"].value() == "a"
