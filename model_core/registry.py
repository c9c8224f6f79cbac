"""A folder is a registry: one file a thing, the file's name is its name.

Files with a leading underscore are not listed. A module is imported at first use and holds exactly one class that
is marked with `@registered`. Importing a registry imports none of its things.
"""

from __future__ import annotations

import importlib
import pkgutil
from collections.abc import Iterator
from typing import Any, TypeVar

from model_core.errors import UnknownName

_MARK = "__registered__"
T = TypeVar("T", bound=type)


def registered(cls: T) -> T:
    """Marks the one class of a file that its folder's registry hands out."""
    setattr(cls, _MARK, cls.__module__)
    return cls


class Registry:
    """The things in the folder of `package`, for example `Registry("model_core.rewards", kind="reward")`."""

    def __init__(self, package: str, *, kind: str) -> None:
        self.package = package
        self.kind = kind
        self._found: dict[str, Any] = {}

    def names(self) -> list[str]:
        """Names in alphabetical order, found by listing the folder."""
        paths = importlib.import_module(self.package).__path__
        return sorted(m.name for m in pkgutil.iter_modules(paths) if not m.name.startswith("_") and not m.ispkg)

    def get(self, name: str, *, field: str = "") -> Any:
        """The class called `name`. Raises UnknownName at `field` with the names that exist."""
        if name in self._found:
            return self._found[name]
        names = self.names()
        if name not in names:
            raise UnknownName(f"There is no {self.kind} “{name}”. There are: {', '.join(names)}.", field=field)
        module = importlib.import_module(f"{self.package}.{name}")
        found = [v for v in vars(module).values() if getattr(v, _MARK, None) == module.__name__]
        assert len(found) == 1, f"{module.__name__} must hold exactly one @registered class"
        self._found[name] = found[0]
        return found[0]

    def items(self) -> Iterator[tuple[str, Any]]:
        """Name and class of each; imports them all."""
        for name in self.names():
            yield name, self.get(name)
