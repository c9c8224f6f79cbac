"""Drops rows that are nearly the same as an earlier one: MinHash with locality-sensitive hashing.

Source: Broder, “On the resemblance and containment of documents” (1997); banding as in Leskovec, Rajaraman and Ullman, “Mining
of Massive Datasets”, section 3.4; sequences of five words as in FineWeb (arXiv 2406.17557). Ours then compares signatures,
b bits of each hash (Li and König, arXiv 0910.3349), so that a shared band alone drops nothing.
"""

from __future__ import annotations

from array import array
from operator import eq
from typing import Any

import numpy as np
from numpy.typing import NDArray
from pydantic import Field

from model_core.config.base import StrictModel
from model_core.filters._judging import Drop, TextName, text_of
from model_core.filters._shingles import Numbers, Shingles, mixed, words_of
from model_core.registry import registered

_SEED = 20240901
_SHINGLES_AT_ONCE = 4096
"""Hashes of a very long text are taken in parts, so that they fit in a few megabytes."""
_CHANCE = 1 / 256
"""How often bytes of two different hashes are equal."""


@registered
class NearDuplicates:
    """Keeps the first of rows that share most of their word sequences; about 400 bytes of memory a row."""

    class Config(StrictModel):
        """What is compared and from when on it is a duplicate."""

        text: TextName = "prompt"
        """Which text is compared: the prompt, the completion, or both together."""
        min_similarity: float = Field(0.8, gt=0, le=1)
        """Share of common word sequences (Jaccard) from which a row is a duplicate; it is estimated, ± 0.05."""
        num_words: int = Field(5, ge=1, le=20)
        """Words in a sequence."""
        num_bands: int = Field(10, ge=1, le=64)
        """Chances to meet an earlier row; more find more, and take more memory."""
        rows_per_band: int = Field(6, ge=1, le=16)
        """Hashes that must all agree for one chance; more meet fewer rows that are not alike."""

    def __init__(self, config: Config | None = None) -> None:
        self.config = config or self.Config()
        num = self.config.num_bands * self.config.rows_per_band
        draw = np.random.default_rng(_SEED)
        self._factors = draw.integers(1 << 63, size=num, dtype=np.uint64) << np.uint64(1) | np.uint64(1)
        self._terms = draw.integers(1 << 63, size=num, dtype=np.uint64)
        self._band_factors = draw.integers(1 << 63, size=(self.config.num_bands, self.config.rows_per_band), dtype=np.uint64)
        self._shingles = Shingles()
        self._places, self._signatures = _Places(), bytearray()

    def why_dropped(self, row: dict[str, Any]) -> Drop | None:
        """The rule and a sentence, or None to keep the row."""
        return self.compare(self.sketch(row))

    def sketch(self, row: dict[str, Any]) -> bytes:
        """Keys of the bands, eight bytes each, and a byte of each hash."""
        text = text_of(row, self.config.text)
        words = words_of(text) or [text]
        hashes = self._min_hashes(self._shingles.of(words, self.config.num_words))
        bands = hashes.reshape(self.config.num_bands, self.config.rows_per_band).astype(np.uint64)
        keys = mixed((mixed(bands) * self._band_factors).sum(axis=1, dtype=np.uint64)) | np.uint64(1)
        return keys.tobytes() + hashes.astype(np.uint8).tobytes()

    def _min_hashes(self, shingles: Numbers) -> NDArray[np.uint32]:
        """The least value of each hash function over the sequences."""
        least = np.full(len(self._factors), np.iinfo(np.uint32).max, np.uint32)
        for start in range(0, len(shingles), _SHINGLES_AT_ONCE):
            part = shingles[start : start + _SHINGLES_AT_ONCE]
            values = self._factors[:, None] * part + self._terms[:, None]
            least = np.minimum(least, (values.min(axis=1) >> np.uint64(32)).astype(np.uint32))
        return least

    def compare(self, sketch: bytes) -> Drop | None:
        """Whether an earlier row is as similar as that; remembers the row otherwise."""
        size = 8 * self.config.num_bands
        keys, signature = array("Q", sketch[:size]), sketch[size:]
        met = {place for key in keys if (place := self._places.get(key)) is not None}
        for place in sorted(met):
            earlier = self._signatures[place * len(signature) : (place + 1) * len(signature)]
            found = _similarity(signature, earlier)
            if found >= self.config.min_similarity:
                return Drop("nearly came before", f"an earlier row shares about {100 * found:.0f} % of its word sequences")
        new = len(self._signatures) // len(signature)
        self._signatures += signature
        for key in keys:
            self._places.add(key, new)
        return None


def _similarity(one: bytes, other: bytes | bytearray) -> float:
    equal: int = sum(map(eq, one, other))
    return max(0.0, (equal / len(one) - _CHANCE) / (1 - _CHANCE))


class _Places:
    """Key → number of the first row that had it; an open table of plain numbers, a third of a dictionary's memory."""

    def __init__(self) -> None:
        self._resize(1 << 12)

    def _resize(self, size: int) -> None:
        self._keys, self._values = array("Q", bytes(8 * size)), array("I", bytes(4 * size))
        self._mask, self._num = size - 1, 0

    def _slot(self, key: int) -> int:
        slot = key >> 1 & self._mask
        while self._keys[slot] not in (0, key):
            slot = slot + 1 & self._mask
        return slot

    def get(self, key: int) -> int | None:
        """The number under `key`, which is not 0."""
        slot = self._slot(key)
        return self._values[slot] if self._keys[slot] else None

    def add(self, key: int, value: int) -> None:
        """Keeps what is there already."""
        slot = self._slot(key)
        if self._keys[slot]:
            return
        self._keys[slot], self._values[slot] = key, value
        self._num += 1
        if self._num * 3 > 2 * len(self._keys):
            keys, values = self._keys, self._values
            self._resize(2 * len(keys))
            for old, number in zip(keys, values, strict=True):
                if old:
                    self.add(old, number)
