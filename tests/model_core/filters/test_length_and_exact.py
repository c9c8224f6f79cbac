"""Filters of the funnel against the obvious ones."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from model_core.filters.exact_duplicates import ExactDuplicates
from model_core.filters.length import Length

PROMPTS = st.lists(st.text("aAbß \n", min_size=1, max_size=5), max_size=30)


def row(prompt: str, completion: str | None = None) -> dict[str, Any]:
    return {"prompt": prompt, "completion": completion, "answer": None}


@settings(deadline=None)
@given(PROMPTS)
def test_the_first_of_equal_prompts_is_kept(prompts: list[str]) -> None:
    """Equal up to case and space, as the obvious list of all that were seen says."""
    duplicates, seen = ExactDuplicates(), list[list[str]]()
    for prompt in prompts:
        words = prompt.casefold().split()
        why = duplicates.why_dropped(row(prompt, completion=f"another {len(seen)}"))
        assert why == (("came before", "the same prompt came before") if words in seen else None)
        seen.append(words)
    again = ExactDuplicates()
    assert all(again.why_dropped(row(prompt)) is None for prompt in {" ".join(words): words for words in seen})


@settings(deadline=None)
@given(st.integers(0, 9), st.integers(1, 9), st.integers(1, 9), st.integers(0, 12), st.none() | st.integers(0, 12))
def test_length_keeps_what_is_within_its_bounds(low: int, high: int, most: int, prompt: int, completion: int | None) -> None:
    config = Length.Config(min_prompt_chars=low, max_prompt_chars=high, max_completion_chars=most)
    why = Length(config).why_dropped(row("ß" * prompt, None if completion is None else "x" * completion))
    assert (why is None) == (low <= prompt <= high and (completion or 0) <= most)


@pytest.mark.parametrize(("prompt", "completion", "why"), [
    ("", None, "the prompt has 0 characters, fewer than 1"),
    ("x" * 20_001, None, "the prompt has 20001 characters, more than 20000"),
    ("x", "y" * 100_001, "the completion has 100001 characters, more than 100000"),
])
def test_length_says_what_was_too_long_or_too_short(prompt: str, completion: str | None, why: str) -> None:
    dropped = Length().why_dropped(row(prompt, completion))
    assert dropped is not None and dropped.detail == why
