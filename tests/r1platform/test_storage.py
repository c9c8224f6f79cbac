"""A file is reached by the id of its row; no name leads out of its directory."""

from __future__ import annotations

from pathlib import Path

import pytest

from r1platform.lib.storage import UnsafePath, open_artifact, run_dir


@pytest.fixture
def root(tmp_path: Path) -> Path:
    """A directory with a file, beside one that nobody may reach."""
    (tmp_path / "inside" / "deep").mkdir(parents=True)
    (tmp_path / "inside" / "deep" / "file").write_text("ours")
    (tmp_path / "secret").write_text("theirs")
    (tmp_path / "inside" / "link").symlink_to(tmp_path / "secret")
    (tmp_path / "inside" / "away").symlink_to(tmp_path)
    return tmp_path / "inside"


def test_what_is_inside_is_found(root: Path) -> None:
    assert open_artifact(root, "deep/file").read_text() == "ours"
    assert open_artifact(root, "deep/../deep/file").read_text() == "ours"
    with pytest.raises(FileNotFoundError):
        open_artifact(root, "deep/other")


@pytest.mark.parametrize("name", ["../secret", "deep/../../secret", "link", "away/secret", "/etc/passwd", "a\x00b"])
def test_what_leads_out_is_refused(root: Path, name: str) -> None:
    with pytest.raises(UnsafePath):
        open_artifact(root, name)


def test_a_directory_follows_from_numbers_only() -> None:
    with pytest.raises(ValueError, match="invalid literal"):
        run_dir("../1", 1)  # type: ignore[arg-type]
