"""What `up` refuses, in one sentence with the remedy, and who may run beside whom."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from dataclasses import asdict
from pathlib import Path

import pytest
from django.db import connection
from django.db.migrations.recorder import MigrationRecorder

from r1platform.demo.stack import free_port
from r1platform.lib import processes
from r1platform.lib.embedded import Redis
from r1platform.lib.home import secret_key
from r1platform.up.claims import Claims, UpError
from r1platform.up.stack import _require_whole_history
from tests.r1platform.command_line import run, sentence_of

ALL = ("web", "worker", "beat")
NOWHERE = "postgres://nobody@127.0.0.1:1/nothing"


Make = Callable[..., Claims]


@pytest.fixture
def claims(tmp_path: Path) -> Iterator[Make]:
    """Makes the claims of one more `up`; all are released at the end."""
    made: list[Claims] = []

    def make(*roles: str, node: str = "a", whole_home: bool = False) -> Claims:
        made.append(Claims(tmp_path, node=node, roles=roles or ALL, whole_home=whole_home))
        return made[-1]

    yield make
    for one in made:
        one.release()


def test_with_embedded_servers_one_up_has_the_home(claims: Make) -> None:
    first = claims(whole_home=True)
    first.take()
    for other in (claims("worker", whole_home=True), claims("web", node="b", whole_home=True)):
        with pytest.raises(UpError, match=r"already runs in .* set R1_HOME"):
            other.take()
        assert not other.held
    first.release()
    other.take()


def test_with_servers_of_ones_own_each_part_of_a_node_runs_once(claims: Make) -> None:
    web, worker = claims("web"), claims("worker")
    web.take()
    worker.take()
    claims("worker", node="b").take()
    everything = claims()
    for refused in (claims("worker"), everything):
        with pytest.raises(UpError, match=r"of node a already runs .* R1_NODE_NAME"):
            refused.take()
        assert not refused.held, "all or none"
    web.release()
    worker.release()
    everything.take()


def test_only_what_a_dead_up_left_is_an_orphan(claims: Make, tmp_path: Path) -> None:
    me = asdict(processes.this_process())
    dead = me | {"pid": 2**22 - 1}
    for name, found in {
        "up-worker-a": {**dead, "node": "a", "children": {"worker": dead}},
        "up-worker-b": {**dead, "node": "b", "children": {"worker": dead}},
        "up-web-a": {**me, "node": "a", "children": {"web": me}},
        "up-beat-a": {**dead, "node": "a", "children": {"beat": dead}},
    }.items():
        (tmp_path / f"{name}.json").write_text(json.dumps(found))
    (tmp_path / "up.json").write_text("{")
    assert [path.stem for path, _ in claims("worker").orphans()] == ["up-worker-a"]
    every = [path.stem for path, _ in claims("worker", whole_home=True).orphans()]
    assert every == ["up-beat-a", "up-worker-a", "up-worker-b"]


@pytest.mark.parametrize("port", ["99999", "-1", "0"])
def test_a_port_that_cannot_be_is_one_sentence(tmp_path: Path, port: str) -> None:
    said = sentence_of(run("up", "--port", port, home=tmp_path))
    assert f"port {port}" in said and "--port" in said


def test_a_full_disk_is_said_and_leaves_no_process(tmp_path: Path) -> None:
    secret_key(tmp_path)
    said = sentence_of(run("up", "--port", str(free_port()), home=tmp_path, full_disk=True, DATABASE_URL=NOWHERE))
    assert "redis" in said and "free space" in said
    assert Redis(tmp_path).running() is None


def test_a_failed_start_stops_only_what_it_started(tmp_path: Path) -> None:
    """A server that ran before is left alone until `up` has taken it over."""
    server = Redis(tmp_path)
    ref = server.start()
    try:
        assert "port" in sentence_of(run("up", "--port", "99999", home=tmp_path, DATABASE_URL=NOWHERE))
        assert server.running() == ref
        assert "does not answer" in sentence_of(run("up", "--port", str(free_port()), home=tmp_path, DATABASE_URL=NOWHERE))
    finally:
        server.stop(seconds=5)
    assert not processes.group_pids(ref)


@pytest.mark.django_db
def test_tables_of_an_older_platform_that_cannot_be_brought_further_are_refused() -> None:
    _require_whole_history()
    recorder = MigrationRecorder(connection)
    recorder.record_unapplied("training_app", "0001_squashed")
    _require_whole_history()
    recorder.record_unapplied("training_app", "0011_alerts_of_keys")
    with pytest.raises(UpError, match=r"lack training_app\.0011_alerts_of_keys; run `./r1 up` of the version before"):
        _require_whole_history()
