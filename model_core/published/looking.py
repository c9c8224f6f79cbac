"""What lies in a directory of a Hugging Face model, and why it is refused. Nothing of it is run, no weight is read.

Across this border goes data only: safetensors, JSON, text. A `.py` file, a pickle or an `auto_map` would run somebody's code in
the engine; a link could lead anywhere.
"""

from __future__ import annotations

import hashlib
import json
import math
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from model_core.errors import CheckpointError
from model_core.published.files import WeightFiles, read_object
from model_core.published.template import FIELD as TEMPLATE
from model_core.published.template import parsed, special_tokens, template_of

CODE_SUFFIXES = frozenset({
    ".py", ".pyc", ".pyd", ".so", ".dll", ".dylib", ".sh", ".bin", ".pt", ".pth", ".pkl", ".pickle", ".ckpt", ".joblib", ".npy",
    ".npz", ".h5",
})  # fmt: skip
MODELS_FIELDS = ("files", "config", "tokenizer", "weights", TEMPLATE)
"""What a refusal is about."""
MAX_FILES = 10_000
_SCALES = "_scale_inv"


@dataclass(frozen=True)
class Refused:
    """One reason, at one of MODELS_FIELDS."""

    field: str
    message: str


@dataclass(frozen=True)
class Published:
    """A directory as it was found; without `refusals` it can be served."""

    files: dict[str, int] = field(default_factory=dict)
    """Bytes of each, by its name in the directory."""
    config: dict[str, Any] = field(default_factory=dict)
    num_parameters: int = 0
    stored_as: str = ""
    """Format of most parameters, as safetensors calls it."""
    template: str = ""
    special: dict[str, str] = field(default_factory=dict)
    added_tokens: frozenset[str] = frozenset()
    """Texts that the tokenizer takes for one token."""
    refusals: tuple[Refused, ...] = ()

    @property
    def num_bytes(self) -> int:
        """Of all files."""
        return sum(self.files.values())

    @property
    def model_type(self) -> str:
        """As config.json says it; empty when it does not."""
        return _text(self.config.get("model_type"))

    @property
    def architecture(self) -> str:
        """The class that config.json names first."""
        named = self.config.get("architectures")
        return _text(named[0]) if isinstance(named, list) and named else ""

    @property
    def context(self) -> int:
        """Tokens that prompt and answer may have together; 0 when config.json does not say."""
        said = self.config.get("max_position_embeddings")
        return said if isinstance(said, int) and 0 < said < 1 << 31 else 0

    @property
    def template_sha256(self) -> str:
        """Of the template's text in UTF-8."""
        return hashlib.sha256(self.template.encode()).hexdigest() if self.template else ""


def look(directory: Path) -> Published:
    """Everything about the directory but the content of its weights."""
    refusals: list[Refused] = []
    found: dict[str, Any] = {}
    try:
        found["files"] = files_of(directory)
    except CheckpointError as error:  # what a link leads to, or a pipe, is not read any further
        return Published(refusals=(Refused(error.field, _plain(error, directory)),))
    refusals += [Refused(error.field, _plain(error, directory)) for error in refusals_of_code(directory)]
    for name, part in (("config", _config), ("tokenizer", _tokenizer), ("weights", _weights), (TEMPLATE, _template)):
        try:
            found |= part(directory)
        except (CheckpointError, OSError) as error:
            refusals.append(Refused(name, _plain(error, directory)))
    return Published(**found, refusals=tuple(dict.fromkeys(refusals)))


def files_of(directory: Path) -> dict[str, int]:
    """Bytes of each file. Raises CheckpointError at `files` for a link that leads out, and for what is no file."""
    found: dict[str, int] = {}
    base = directory.resolve()
    for path in sorted(directory.rglob("*")):
        name = path.relative_to(directory).as_posix()
        if path.is_symlink() and not path.resolve().is_relative_to(base):
            raise CheckpointError(f"“{name}” is a link that leads out of the directory. Put the file itself there.", field="files")
        if path.is_dir() and not path.is_symlink():
            continue
        if not path.is_file():
            raise CheckpointError(f"“{name}” is no file. Only files and folders of files are taken; remove it.", field="files")
        found[name] = path.stat().st_size
        if len(found) > MAX_FILES:
            raise CheckpointError(f"It holds more than {MAX_FILES:,} files. A model has fewer; remove the others.", field="files")
    return found


def refusals_of_code(directory: Path) -> Iterator[CheckpointError]:
    """An error for each file that could run code, and for each configuration that asks for code of its own."""
    for path in sorted(directory.rglob("*")):
        if not path.is_dir() and path.suffix.lower() in CODE_SUFFIXES:
            yield CheckpointError(
                f"“{path.name}” could run code when it is loaded. Only safetensors and JSON are served; remove it.", field="files"
            )
    for path in sorted(directory.glob("*.json")):
        about = "config" if path.name == "config.json" else "tokenizer" if path.name.startswith("tokenizer") else "files"
        try:
            stored = json.loads(path.read_bytes())
        except (ValueError, RecursionError) as error:
            yield CheckpointError(f"“{path.name}” is not valid JSON: {error}.", field=about)
            continue
        if isinstance(stored, dict) and "auto_map" in stored:
            yield CheckpointError(f"“{path.name}” asks for code of its own (auto_map), which is never run. Remove it.", field=about)


def _config(directory: Path) -> dict[str, Any]:
    stored = read_object(directory / "config.json")
    if not _text(stored.get("model_type")) or not Published(config=stored).architecture:
        raise CheckpointError("config.json does not say model_type and architectures, by which an engine knows what to build.")
    return {"config": stored}


def _tokenizer(directory: Path) -> dict[str, Any]:
    if not any((directory / name).is_file() for name in ("tokenizer.json", "tokenizer.model")):
        raise CheckpointError("There is no tokenizer: neither tokenizer.json nor tokenizer.model.")
    if not (directory / "tokenizer_config.json").is_file():
        raise CheckpointError("There is no tokenizer_config.json, which says the tokenizer's class and special tokens.")
    special = special_tokens(directory)
    whole = directory / "tokenizer.json"
    added = read_object(whole).get("added_tokens") if whole.is_file() else None
    told = [one.get("content") for one in added if isinstance(one, dict)] if isinstance(added, list) else []
    return {"special": special, "added_tokens": frozenset(text for text in told if isinstance(text, str))}


def _weights(directory: Path) -> dict[str, Any]:
    weights = WeightFiles(directory)
    formats: Counter[str] = Counter()
    for name, header in weights.headers.items():
        if not name.endswith(_SCALES):
            formats[header.stored_as] += math.prod(header.shape)
    return {"num_parameters": formats.total(), "stored_as": formats.most_common(1)[0][0] if formats else ""}


def _template(directory: Path) -> dict[str, Any]:
    template = template_of(directory)
    parsed(template)
    return {"template": template}


def _text(value: Any) -> str:
    return value[:200] if isinstance(value, str) else ""


def _plain(error: Exception, directory: Path) -> str:
    """Its sentence without the path, which is the operator's."""
    return str(error).replace(f"{directory}/", "").replace(str(directory), "The directory")
