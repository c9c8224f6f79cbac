"""The client: typed as the schema says, without Django, repeating what is safe to repeat; and the command over it."""

from __future__ import annotations

import json
import subprocess
import sys
import typing
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import httpx
import pytest
from django.contrib.auth.models import User
from django.core.management import CommandError, call_command
from drf_spectacular.generators import SchemaGenerator

from r1platform import client_rows
from r1platform.client import Client, PlatformError, Refused
from r1platform.keys import api_key_create
from r1platform.management.commands.api import parsed
from r1platform.models import Project, RequestKey
from tests.pages.b_rows import make_launch, make_run


def test_it_needs_no_django() -> None:
    code = "import sys; import r1platform.client; print(sorted({'django', 'celery', 'torch', 'pydantic'} & sys.modules.keys()))"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"


@pytest.fixture
def client(live_server: Any, alice: User, project: Project) -> Iterator[Client]:
    with Client(live_server.url, key=api_key_create(user=alice, name="k", scopes=["read", "write"])[1]) as made:
        yield made


def test_a_program_of_a_notebook(client: Client, project: Project) -> None:
    made = client.datasets.create(project=project.slug, name="Sums", kind="self")
    assert client.datasets.get(made["id"])["name"] == "Sums"
    runs = [make_run(project, name=f"run {number}") for number in range(3)]
    assert [run["id"] for run in client.runs.list(page_size=2, state="running")] == [run.pk for run in reversed(runs)]
    assert client.runs.metrics(runs[0].pk, "loss")["series"][0]["name"] == "loss"
    assert client.patch(f"runs/{runs[0].pk}/", tags=["a"])["tags"] == ["a"]
    assert client.launches.get(make_launch(project).pk)["runs"] == []
    upload = client.upload(project.slug, "rows.jsonl", b'{"prompt": "1+1=", "completion": "2"}\n')
    assert upload["columns"] == ["prompt", "completion"]
    client.delete(f"datasets/{made['id']}/")
    with pytest.raises(Refused, match="404") as gone:
        client.datasets.get(made["id"])
    assert gone.value.status == 404 and "no such" in gone.value.detail
    with pytest.raises(Refused) as wrong:
        client.projects.create(name="")
    assert wrong.value.errors["name"]
    with pytest.raises(PlatformError, match=r"took more than 0 s; the last state was 'running'"):
        client.runs.wait(runs[0].pk, seconds=0)
    assert RequestKey.objects.count() == 2, "each POST that was carried out had a key"


def test_the_command_says_what_the_api_says(client: Client, project: Project, monkeypatch: pytest.MonkeyPatch, capsys: Any, tmp_path: Any) -> None:
    monkeypatch.setenv("R1_URL", client.base_url)
    monkeypatch.setenv("R1_API_KEY", client.http.headers["Authorization"].removeprefix("Bearer "))
    run = make_run(project)
    call_command("api", "GET", "/runs/", "fields=id,state", "--all")
    assert [json.loads(line) for line in capsys.readouterr().out.splitlines()] == [{"id": run.pk, "state": "running"}]
    notes = tmp_path / "notes.md"
    notes.write_text("A note.")
    call_command("api", "PATCH", f"/api/v1/runs/{run.pk}/", 'tags:=["x"]', f"notes=@{notes}")
    told = json.loads(capsys.readouterr().out)
    assert (told["tags"], told["notes"]) == (["x"], "A note.")
    with pytest.raises(CommandError, match="404"):
        call_command("api", "get", "runs/999999/")
    with pytest.raises(CommandError, match="leave --all out"):
        call_command("api", "GET", f"runs/{run.pk}/", "--all")
    with pytest.raises(CommandError, match="with GET only"):
        call_command("api", "POST", "runs/", "--all")


def test_the_command_asks_the_platform_that_runs_in_the_home(
    client: Client, monkeypatch: pytest.MonkeyPatch, capsys: Any, tmp_path: Path, settings: Any
) -> None:
    settings.R1_HOME = tmp_path
    monkeypatch.delenv("R1_URL", raising=False)
    monkeypatch.setenv("R1_API_KEY", client.http.headers["Authorization"].removeprefix("Bearer "))
    with pytest.raises(CommandError, match=r"No platform runs in .*up\.json\. Start it with \./r1 up"):
        call_command("api", "GET", "runs/")
    (tmp_path / "up.json").write_text(json.dumps({"base_url": client.base_url}))
    call_command("api", "GET", "runs/")
    assert json.loads(capsys.readouterr().out)["results"] == []


@pytest.mark.parametrize("text", ["x", "=1", ":=1", "x:=[", "x=@/nowhere/at/all"])
def test_a_value_that_is_none_is_refused(text: str) -> None:
    with pytest.raises(CommandError):
        parsed(text)
    assert parsed("a=b=c") == ("a", "b=c") and parsed("a:=null") == ("a", None) and parsed("a=") == ("a", "")


def fake(answers: Callable[[httpx.Request], httpx.Response], monkeypatch: pytest.MonkeyPatch) -> Client:
    monkeypatch.setattr("r1platform.client.time.sleep", lambda _: None)
    made = Client("http://platform")
    made.http = httpx.Client(base_url="http://platform", transport=httpx.MockTransport(answers))
    return made


def test_a_broken_way_is_tried_again_under_the_same_key(monkeypatch: pytest.MonkeyPatch) -> None:
    keys: list[str] = []

    def answers(request: httpx.Request) -> httpx.Response:
        keys.append(request.headers["Idempotency-Key"])
        if len(keys) == 1:
            raise httpx.ReadTimeout("gone", request=request)
        return httpx.Response(503 if len(keys) == 2 else 201, json={"id": 1})

    assert fake(answers, monkeypatch).post("runs/", name="x") == {"id": 1}
    assert len(keys) == 3 and len(set(keys)) == 1


def test_what_is_not_safe_is_not_tried_again(monkeypatch: pytest.MonkeyPatch) -> None:
    tried: list[str] = []

    def answers(request: httpx.Request) -> httpx.Response:
        tried.append(request.method)
        return httpx.Response(503, json={"detail": "The database does not answer."})

    client = fake(answers, monkeypatch)
    with pytest.raises(Refused, match="The database does not answer"):
        client.patch("runs/1/", notes="x")
    assert tried == ["PATCH"]
    with pytest.raises(Refused):
        client.get("runs/1/")
    assert tried == ["PATCH", *["GET"] * 4]


def test_a_platform_that_is_not_there_is_told_at_once() -> None:
    with pytest.raises(PlatformError, match=r"does not answer: .* R1_URL names another"), Client("http://127.0.0.1:9") as client:
        client.get("runs/")


def test_who_sent_no_key_is_told_where_to_get_one(live_server: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("R1_API_KEY", raising=False)
    with Client(live_server.url) as client, pytest.raises(Refused, match=r"Settings, API keys.*R1_API_KEY") as refused:
        client.get("runs/")
    assert refused.value.status == 401
    with Client(live_server.url, key="r1_wrong") as client, pytest.raises(Refused) as refused:
        client.get("runs/")
    assert refused.value.status == 401 and "No key was sent" not in str(refused.value)


KINDS = {int: {"integer"}, str: {"string"}, float: {"number"}, bool: {"boolean"}, dict: {"object"}, list: {"array"}, type(None): {"null"}}


@pytest.mark.django_db
def test_rows_are_typed_as_the_schema_says() -> None:
    """What a row of ours names is in the schema, and null where it may be null."""
    parts = SchemaGenerator().get_schema(public=True)["components"]["schemas"]
    rows = {name: kind for name, kind in vars(client_rows).items() if typing.is_typeddict(kind)}
    assert len(rows) >= 9
    for name, kind in rows.items():
        told = parts[SCHEMA.get(name, name)]["properties"]
        for field, hint in typing.get_type_hints(kind).items():
            assert field in told, f"{name}.{field}"
            if hint is not Any:
                assert types_of(hint) >= kinds_of(told[field], parts), f"{name}.{field}: {hint} but {told[field]}"


SCHEMA = {"DatasetVersion": "Version"}


def types_of(hint: Any) -> set[str]:
    members = typing.get_args(hint) if type(None) in typing.get_args(hint) else (hint,)
    return {kind for member in members for kind in KINDS[dict if typing.is_typeddict(member) else typing.get_origin(member) or member]}


def kinds_of(told: dict[str, Any], parts: Any) -> set[str]:
    """The JSON types of a property; {} is anything, which needs Any."""
    if "$ref" in told:
        return kinds_of(parts[told["$ref"].rpartition("/")[2]], parts)
    for word in ("oneOf", "anyOf", "allOf"):
        if word in told:
            return set().union(*(kinds_of(one, parts) for one in told[word]))
    if "const" in told or "enum" in told:
        return {"null" if value is None else "string" for value in told.get("enum", [told.get("const")])}
    kinds = told.get("type", "anything")
    return set(kinds) if isinstance(kinds, list) else {kinds}
