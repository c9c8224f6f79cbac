"""Settings that cannot be meant end every command with one sentence; the secret key is whole or not there."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from r1platform.lib.environment import SettingError, database, positive_number, redis_address, yes_or_no
from r1platform.lib.home import secret_key
from tests.r1platform.command_line import run, sentence_of


@pytest.mark.parametrize(
    ("name", "value", "says"),
    [
        ("DATABASE_URL", "nonsense", "postgres://"),
        ("R1_MAX_UPLOAD_BYTES", "2GB", "“2GB”"),
        ("R1_HTTPS", "perhaps", "“perhaps”"),
        ("REDIS_URL", "localhost:6379", "redis://"),
    ],
)
def test_a_setting_that_cannot_be_meant_is_one_sentence(tmp_path: Path, name: str, value: str, says: str) -> None:
    said = sentence_of(run("up", home=tmp_path, **{name: value}))
    assert name in said and says in said


@pytest.mark.parametrize("below", ["", "deeper/still"])
def test_a_home_that_is_a_file_is_one_sentence(tmp_path: Path, below: str) -> None:
    file = tmp_path / "file"
    file.write_text("")
    said = sentence_of(run("up", home=file / below))
    assert str(file) in said and "R1_HOME" in said and "directory" in said


def test_a_full_disk_leaves_no_empty_key(tmp_path: Path) -> None:
    said = sentence_of(run("up", home=tmp_path / "new", full_disk=True))
    assert "R1_HOME" in said and "free space" in said
    assert not (tmp_path / "new" / "secret_key").exists()
    assert not list((tmp_path / "new").glob(".secret_key*"))
    assert len(secret_key(tmp_path / "new")) > 40


def test_an_empty_key_is_made_anew_and_a_made_one_stays(tmp_path: Path) -> None:
    (tmp_path / "secret_key").write_text("")
    made = secret_key(tmp_path)
    assert len(made) > 40 and secret_key(tmp_path) == made
    assert (tmp_path / "secret_key").stat().st_mode & 0o077 == 0


def test_of_many_that_start_at_once_all_have_one_key(tmp_path: Path) -> None:
    with ThreadPoolExecutor(8) as pool:
        assert len(set(pool.map(secret_key, [tmp_path / "home"] * 32))) == 1


def test_what_can_be_meant_is_taken() -> None:
    found = database("postgres://u:secret@db:5433/r1")
    assert (found["NAME"], found["USER"], found["HOST"], found["PORT"]) == ("r1", "u", "db", 5433)
    assert redis_address("redis://cache:6379/0") == "redis://cache:6379/0"
    assert positive_number("N", "", default=3) == 3 and positive_number("N", "17", default=3) == 17
    assert [yes_or_no("N", text) for text in ("", "false", "True", "1", "on")] == [False, False, True, True, True]


@pytest.mark.parametrize("url", ["postgres://u:secret@db:port/r1", "postgres://u:secret@db/", "mysql://u:secret@db/r1", "secret"])
def test_a_password_is_never_said(url: str) -> None:
    with pytest.raises(SettingError) as refused:
        database(url)
    assert "secret" not in str(refused.value)


@pytest.mark.parametrize("text", ["0", "-1", "2GB", "1.5", "9" * 5000, "²"])
def test_no_number_is_refused(text: str) -> None:
    with pytest.raises(SettingError, match="whole number"):
        positive_number("R1_MAX_UPLOAD_BYTES", text, default=1)
