"""What is in a version, in bounded memory however many rows it has: lengths and answers."""

from __future__ import annotations

import hashlib
import heapq
from collections import Counter
from typing import Any

NUM_BINS = 20
NUM_COMMON = 10
_EXACT = 4096
"""Lengths below are counted one by one, longer ones by their ten highest bits: at most 0.2 % too short."""
_MAX_COUNTED = 50_000
_NUM_LEAST = 1024


class Lengths:
    """Mean and greatest are exact; median, 95 % and histogram are of lengths that are exact below 4,096."""

    def __init__(self) -> None:
        self._counts: Counter[int] = Counter()
        self._sum = self._num = self._max = 0

    def add(self, length: int) -> None:
        """Counts one."""
        self._counts[length if length < _EXACT else _rounded(length)] += 1
        self._sum += length
        self._num += 1
        self._max = max(self._max, length)

    @property
    def num(self) -> int:
        """How many were counted."""
        return self._num

    def told(self) -> dict[str, Any] | None:
        """For the manifest; None when there was none."""
        if not self._num:
            return None
        low, high = min(self._counts), self._max
        width = max(1, -(-(high - low + 1) // NUM_BINS))
        bins: Counter[int] = Counter()
        for length, num in self._counts.items():
            bins[(length - low) // width] += num
        return {
            "mean": self._sum / self._num, "p50": self._at(self._num // 2), "p95": self._at(int(self._num * 0.95)), "max": high,
            "histogram": [[low + place * width, bins[place]] for place in range(max(bins) + 1)],
        }  # fmt: skip

    def _at(self, rank: int) -> int:
        """The length at a place of the sorted lengths, from 0."""
        passed = 0
        for length in sorted(self._counts):
            passed += self._counts[length]
            if passed > rank:
                return length
        return self._max


def _rounded(length: int) -> int:
    shift = length.bit_length() - 10
    return length >> shift << shift


class Answers:
    """The most frequent answers and how many there are. Exact up to 50,000 different ones.

    Source: beyond that, Misra and Gries, “Finding repeated elements” (1982), for the counts, which are then too low by at most
    `max_error`, and Bar-Yossef et al., “Counting distinct elements” (2002), for their number, ± 3 %.
    """

    def __init__(self) -> None:
        self._counts: Counter[str] = Counter()
        self._max_error = 0
        self._least: list[int] = []
        self._members: set[int] = set()

    def add(self, answer: str) -> None:
        """Counts one."""
        self._counts[answer] += 1
        if len(self._counts) > _MAX_COUNTED:
            if not self._max_error:
                for known in self._counts:
                    self._remember(known)
            self._max_error += 1
            self._counts = Counter({known: num - 1 for known, num in self._counts.items() if num > 1})
        if self._max_error:
            self._remember(answer)

    def _remember(self, answer: str) -> None:
        """Keeps the least hashes of all answers."""
        value = int.from_bytes(hashlib.blake2b(answer.encode("utf-8", "surrogatepass"), digest_size=8).digest(), "big")
        if value in self._members:
            return
        if len(self._least) < _NUM_LEAST:
            heapq.heappush(self._least, -value)
        elif value < -self._least[0]:
            self._members.discard(-heapq.heappushpop(self._least, -value))
        else:
            return
        self._members.add(value)

    def told(self) -> dict[str, Any]:
        """For the manifest."""
        num = len(self._counts)
        if self._max_error:
            num = round((_NUM_LEAST - 1) * 2.0**64 / -self._least[0])
        common = [[answer, count] for answer, count in self._counts.most_common(NUM_COMMON)]
        return {"num_distinct": num, "most_common": common, "max_error": self._max_error}
