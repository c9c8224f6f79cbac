"""What filters remember of a row, and what they rewrite."""

from __future__ import annotations

import random
from typing import Any

from model_core.filters.c4 import C4
from model_core.filters.exact_duplicates import ExactDuplicates
from model_core.filters.near_duplicates import NearDuplicates, _Places


def row(prompt: str, completion: str | None = None) -> dict[str, Any]:
    return {"prompt": prompt, "completion": completion, "answer": None, "task": "", "meta": {}}


def test_a_copy_with_other_signs_is_a_duplicate_and_a_short_text_only_its_own() -> None:
    step = NearDuplicates()
    assert step.why_dropped(row("What is 12 + 34?")) is None
    assert step.why_dropped(row("What is 12 + 35?")) is None
    dropped = step.why_dropped(row("what is  12+34"))
    assert dropped is not None and dropped.reason == "nearly came before" and "100 %" in dropped.detail
    assert step.why_dropped(row("?!")) is None and step.why_dropped(row("?!")) is not None


def test_a_sketch_is_the_same_in_every_filter_and_has_the_size_that_was_asked_for() -> None:
    """Of a text that is hashed in several parts, too."""
    text = row(" ".join(f"word{number}" for number in range(9000)))
    assert NearDuplicates().sketch(text) == NearDuplicates().sketch(text)
    assert len(NearDuplicates(NearDuplicates.Config(num_bands=4, rows_per_band=3)).sketch(text)) == 4 * 8 + 12


def test_the_table_of_places_is_a_dictionary_that_keeps_what_it_has() -> None:
    draw, table, slow = random.Random(1), _Places(), dict[int, int]()
    for number in range(20_000):
        key = draw.randrange(1, 1 << 14) | 1
        table.add(key, number)
        slow.setdefault(key, number)
    assert all(table.get(key) == slow.get(key) for key in range(1, 1 << 14))


def test_rows_are_equal_by_the_text_that_is_compared() -> None:
    by_prompt, by_all = ExactDuplicates(), ExactDuplicates(ExactDuplicates.Config(text="all"))
    first, second = row("Q", "one"), row(" q ", "two")
    assert by_prompt.why_dropped(first) is None and by_prompt.why_dropped(second) is not None
    assert by_all.why_dropped(first) is None and by_all.why_dropped(second) is None and by_all.why_dropped(first) is not None


def test_c4_leaves_lines_out_or_only_judges() -> None:
    sentences = [f"This is the sentence number {number}." for number in range(5)]
    text = "\n".join(["Home | About", *sentences[:2], "We use cookies on this page.", *sentences[2:], "It has no end"])
    changed, same = row(text), row(text)
    assert C4().why_dropped(changed) is None and C4(C4.Config(rewrite=False)).why_dropped(same) is None
    assert changed["prompt"] == "\n".join(sentences) and same["prompt"] == text
