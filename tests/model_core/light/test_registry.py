"""A folder is a registry: what lies there is listed, what is asked for is imported, and nothing else is."""

from __future__ import annotations

import itertools
import sys
from pathlib import Path

import pytest

from model_core.errors import UnknownName
from model_core.registry import Registry, registered

_NUMBERS = itertools.count()
THING = "from model_core.registry import registered\n\n@registered\nclass {name}:\n    pass\n"


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An importable package of its own with two things."""
    made = tmp_path / f"things_{next(_NUMBERS)}"
    made.mkdir()
    (made / "__init__.py").write_text("")
    for name in ("beta", "alpha"):
        (made / f"{name}.py").write_text(THING.format(name=name.title()))
    monkeypatch.syspath_prepend(tmp_path)
    return made


def test_names_are_the_files_in_order_without_what_is_hidden(folder: Path) -> None:
    (folder / "_shared.py").write_text("")
    (folder / "notes.txt").write_text("")
    (folder / "inner").mkdir()
    (folder / "inner" / "__init__.py").write_text("")
    things = Registry(folder.name, kind="thing")
    assert things.names() == ["alpha", "beta"]
    (folder / "gamma.py").write_text(THING.format(name="Gamma"))
    assert things.names() == ["alpha", "beta", "gamma"]


def test_listing_imports_nothing_and_getting_imports_one(folder: Path) -> None:
    things = Registry(folder.name, kind="thing")
    assert things.names() and not any(name.startswith(f"{folder.name}.") for name in sys.modules)
    found = things.get("beta")
    assert found.__name__ == "Beta" and found is things.get("beta")
    assert [name for name in sys.modules if name.startswith(f"{folder.name}.")] == [f"{folder.name}.beta"]
    assert [(name, cls.__name__) for name, cls in things.items()] == [("alpha", "Alpha"), ("beta", "Beta")]


@pytest.mark.parametrize("name", ["gamma", "", "_shared", "Alpha", "alpha.x", "../alpha", "__init__"])
def test_an_unknown_name_is_told_with_those_that_exist(folder: Path, name: str) -> None:
    (folder / "_shared.py").write_text(THING.format(name="Shared"))
    with pytest.raises(UnknownName, match=f"no thing “{name}”. There are: alpha, beta.") as refused:
        Registry(folder.name, kind="thing").get(name, field="at.this")
    assert refused.value.field == "at.this"


def test_a_class_of_another_file_is_not_taken_for_the_files_own(folder: Path) -> None:
    (folder / "gamma.py").write_text(f"from {folder.name}.alpha import Alpha\n" + THING.format(name="Gamma(Alpha)"))
    assert Registry(folder.name, kind="thing").get("gamma").__name__ == "Gamma"


@pytest.mark.parametrize("text", ["", "class Gamma:\n    pass\n", THING.format(name="One") + "\n" + THING.format(name="Two")])
def test_a_file_of_none_or_two_is_our_mistake(folder: Path, text: str) -> None:
    (folder / "gamma.py").write_text(text)
    with pytest.raises(AssertionError, match="exactly one @registered class"):
        Registry(folder.name, kind="thing").get("gamma")


def test_a_class_is_marked_and_stays_what_it_was() -> None:
    class Thing:
        """Anything."""

    assert registered(Thing) is Thing
