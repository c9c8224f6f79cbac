"""The safetensors files of a directory: which there are, what their headers say, and one tensor of them at a time.

Nothing but headers is read, and no torch loaded, until a tensor is asked for. Every disagreement of index, files and headers is
refused.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from safetensors import SafetensorError, safe_open

from model_core.errors import CheckpointError

if TYPE_CHECKING:
    from torch import Tensor

WEIGHTS = "model.safetensors"
INDEX = f"{WEIGHTS}.index.json"
NUM_NAMED = 3
NUM_OPEN = 2
"""A weight's scales may lie in another file than the weight."""


@dataclass(frozen=True)
class Header:
    """Where a tensor is stored and how."""

    file: str
    shape: tuple[int, ...]
    stored_as: str


class WeightFiles:
    """All tensors of a directory by their published names. Raises CheckpointError naming the file or the tensor."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self._open: dict[str, Any] = {}
        self.headers: dict[str, Header] = {}
        index = _index(path)
        files = sorted(set(index.values())) if index is not None else [WEIGHTS]
        _check_files(path, files, has_index=index is not None)
        for file in files:
            self._read_headers(file)
        if index is not None:
            self._compare(index)

    def tensor(self, name: str) -> Tensor:
        """One tensor as it is stored."""
        file = self.headers[name].file
        with _damage(self.path / file):
            found: Tensor = self._handle(file).get_tensor(name)
        return found

    def close(self) -> None:
        """Lets go of the files, and with them of the memory that they are mapped into."""
        self._open.clear()

    def _handle(self, file: str) -> Any:
        if file not in self._open:
            if len(self._open) == NUM_OPEN:
                del self._open[next(iter(self._open))]
            self._open[file] = safe_open(self.path / file, framework="pt")
        return self._open[file]

    def _read_headers(self, file: str) -> None:
        with _damage(self.path / file), safe_open(self.path / file, framework="np") as opened:
            for name in opened.keys():  # noqa: SIM118 - not a dictionary
                if name in self.headers:
                    raise CheckpointError(f"{self.path} holds {name} twice, in {self.headers[name].file} and in {file}.")
                part = opened.get_slice(name)
                self.headers[name] = Header(file, tuple(part.get_shape()), part.get_dtype())

    def _compare(self, index: dict[str, str]) -> None:
        unsaid = [name for name in self.headers if name not in index]
        if unsaid:
            file = self.headers[unsaid[0]].file
            raise CheckpointError(f"{self.path / file} holds {named(unsaid)}, which {INDEX} does not name.")
        for name, file in index.items():
            if name not in self.headers or self.headers[name].file != file:
                raise CheckpointError(f"{self.path / file} lacks the tensor {name}, which {INDEX} says is there.")


def read_object(file: Path) -> dict[str, Any]:
    """The object in a JSON file. Raises CheckpointError when there is none."""
    try:
        stored = json.loads(file.read_text())
    except FileNotFoundError:
        raise CheckpointError(f"{file.parent} has no {file.name}.") from None
    except (json.JSONDecodeError, UnicodeDecodeError) as error:
        raise CheckpointError(f"{file} is not JSON: {error}.") from error
    if not isinstance(stored, dict):
        raise CheckpointError(f"{file} is a {type(stored).__name__}, not an object.")
    return stored


def named(names: list[str]) -> str:
    """A few of the names and how many more there are."""
    more = len(names) - NUM_NAMED
    return ", ".join(sorted(names)[:NUM_NAMED]) + (f" and {more} more" if more > 0 else "")


def _index(path: Path) -> dict[str, str] | None:
    file = path / INDEX
    if not file.exists():
        return None
    stored = read_object(file).get("weight_map")
    if not isinstance(stored, dict) or not stored or not all(isinstance(name, str) for name in stored.values()):
        raise CheckpointError(f"{file} has no weight_map that says in which file each tensor is.")
    return stored


def _check_files(path: Path, files: list[str], *, has_index: bool) -> None:
    for name in files:
        if Path(name).name != name or not name.endswith(".safetensors"):
            raise CheckpointError(f"{path / INDEX} names the file {name!r}, which is no safetensors file beside it.")
        if not (path / name).is_file():
            raise CheckpointError(f"{path} lacks the weights file {name}.")
    others = sorted(file.name for file in path.glob("*.safetensors") if file.name not in files)
    if others:
        says = f"{INDEX} does not name" if has_index else f"is neither {WEIGHTS} nor named by an {INDEX}"
        raise CheckpointError(f"{path} holds {others[0]}, which {says}; remove it or mend the index.")


@contextmanager
def _damage(file: Path) -> Iterator[None]:
    try:
        yield
    except (SafetensorError, OSError) as error:
        raise CheckpointError(f"{file} is damaged or cannot be read: {error}.") from error
