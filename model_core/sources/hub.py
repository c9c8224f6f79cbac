"""A dataset of the Hugging Face hub, streamed with the `datasets` library; nothing is downloaded as a whole.

Source: https://huggingface.co/docs/datasets/stream. With a path, which only a caller of the library can give, the path is a
local copy of the repository and nothing goes over the network.
"""

from __future__ import annotations

import itertools
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from pydantic import Field

from model_core.errors import ConfigError, DataError
from model_core.registry import registered
from model_core.sources._bad import OnBad, refuse
from model_core.sources._hosts import narrow_as_asked
from model_core.sources._limits import RowLimit
from model_core.sources._values import plain

_BATCH_ROWS = 256


@registered
class Hub:
    """Rows of a split of a repository of datasets; no code of a repository is run."""

    is_file = False

    class Config(RowLimit):
        """Which rows."""

        repository: str = Field("", max_length=200, pattern=r"^([A-Za-z0-9][\w.-]*(/[A-Za-z0-9][\w.-]*)?)?$")
        """Name on the hub, for example `openai/gsm8k`."""
        subset: str = Field("", max_length=200)
        """Configuration of the repository, for example `main`; empty: its default."""
        split: str = Field("train", min_length=1, max_length=200)
        """Split that is read."""
        revision: str = Field("", max_length=200)
        """Commit, tag or branch; a commit gives the same rows for ever, empty is the newest."""
        num_rows: int | None = Field(None, ge=1)
        """Reads only so many rows from the beginning; empty: all."""

    def __init__(self, config: Config) -> None:
        self.config = config

    def rows(self, path: Path | None = None, on_bad: OnBad = refuse) -> Iterator[dict[str, Any]]:
        """Yields each row by its column names. Raises ConfigError and DataError with the hub's own words."""
        rows = itertools.islice(self._rows(path), self.config.num_rows)
        return self.config.limited(rows)

    def _rows(self, path: Path | None) -> Iterator[dict[str, Any]]:
        from datasets.exceptions import DatasetsError
        from huggingface_hub.errors import HfHubHTTPError

        try:
            yield from _streamed(self._opened(path))
        except (DatasetsError, HfHubHTTPError, OSError, ValueError) as error:
            words = " ".join(str(error).split())[:400] or type(error).__name__
            raise DataError(f"The dataset cannot be read: {words}", field="source_config.repository") from error

    def _opened(self, path: Path | None) -> Any:
        import datasets

        name = self._name(path)
        narrow_as_asked()
        return datasets.load_dataset(
            name, self.config.subset or None, split=self.config.split, revision=self.config.revision or None, streaming=True
        )

    def _name(self, path: Path | None) -> str:
        """What the library is asked for; it would take a folder of that name for the repository."""
        if path is not None:
            return str(path)
        if not self.config.repository:
            raise ConfigError("Say which repository, for example “openai/gsm8k”.", field="source_config.repository")
        if Path(self.config.repository).exists():
            message = f"“{self.config.repository}” is a folder here, and no folder is read by name. Name a repository of the hub."
            raise ConfigError(message, field="source_config.repository")
        return self.config.repository


def _streamed(dataset: Any) -> Iterator[dict[str, Any]]:
    """Rows without their pictures and sounds, which would have to be decoded."""
    import datasets

    features = dataset.features or {}
    heavy = [name for name, kind in features.items() if isinstance(kind, datasets.Image | datasets.Audio | datasets.Video)]
    for batch in dataset.remove_columns(heavy).iter(batch_size=_BATCH_ROWS):
        names = list(batch)
        for values in zip(*batch.values(), strict=True):
            yield {name: plain(value) for name, value in zip(names, values, strict=True)}
