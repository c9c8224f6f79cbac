"""Filters that compare: planted near-duplicates and leaks are found, distinct rows stay, and answers and rates are judged."""

from __future__ import annotations

import json
import random
from pathlib import Path
from typing import Any

import pytest

from model_core.errors import ConfigError, DataError
from model_core.filters._shingles import words_of
from model_core.filters.answer_verifiable import AnswerVerifiable
from model_core.filters.contamination import Contamination
from model_core.filters.difficulty import Difficulty
from model_core.filters.language import Language
from model_core.filters.near_duplicates import NearDuplicates
from tests.model_core.filters.documents import DATA, REASON, is_there, questions

real = pytest.mark.skipif(not is_there(), reason=REASON)


def row(prompt: str, completion: str | None = None, **values: Any) -> dict[str, Any]:
    return {"prompt": prompt, "completion": completion, "answer": None, "task": "", "meta": {}, **values}


def sequences(text: str, num: int = 5) -> set[tuple[str, ...]]:
    words = words_of(text)
    return {tuple(words[place : place + num]) for place in range(max(1, len(words) - num + 1))}


def similarity(one: str, other: str) -> float:
    """Jaccard, of sets, as it is defined."""
    left, right = sequences(one), sequences(other)
    return len(left & right) / len(left | right)


def nearly(text: str, draw: random.Random) -> str:
    """The text with a word more at one of its ends, in other case and spacing."""
    words = text.split()
    words = ["Indeed", *words] if draw.random() < 0.5 else [*words, "please"]
    return "  ".join(word.upper() if draw.random() < 0.2 else word for word in words)


@real
def test_planted_near_duplicates_are_found_and_distinct_questions_kept() -> None:
    draw = random.Random(5)
    base = [text for text in dict.fromkeys(questions()) if len(words_of(text)) >= 30][:3000]
    planted = [near for text in base[:1000] if similarity(text, near := nearly(text, draw)) >= 0.9]
    assert len(planted) > 900
    near_duplicates = NearDuplicates()
    kept = [near_duplicates.why_dropped(row(text)) is None for text in base]
    assert sum(kept) >= 0.99 * len(base)
    found = [near_duplicates.why_dropped(row(text)) is not None for text in planted]
    assert sum(found) >= 0.95 * len(planted)


def test_the_estimate_is_near_the_similarity_and_what_is_the_same_is_found_for_certain() -> None:
    words = [f"word{number}" for number in range(60)]
    text = " ".join(words)
    near_duplicates = NearDuplicates(NearDuplicates.Config(min_similarity=0.5))
    assert near_duplicates.why_dropped(row(text)) is None
    again = near_duplicates.why_dropped(row(text.upper() + "!"))
    assert again is not None and again.reason == "nearly came before" and "100 %" in again.detail
    assert near_duplicates.why_dropped(row(" ".join(f"other{number}" for number in range(60)))) is None
    assert [near_duplicates.why_dropped(row("")) is None for _ in range(2)] == [True, False]


@real
def test_planted_leaks_of_every_benchmark_are_found_and_other_questions_are_not() -> None:
    files = {"math500": DATA / "math500" / "test.jsonl", "gsm8k": DATA / "gsm8k" / "test.jsonl", "aime24": DATA / "aime24" / "test.jsonl"}
    contamination = Contamination(benchmarks=files)
    leaks = [text for path in files.values() for text in questions(path) if len(words_of(text)) >= 3]
    for number, text in enumerate(leaks):
        hidden = f"Here is one more. {text.upper()} Good luck!" if number % 2 else text
        why = contamination.why_dropped(row("Solve it.", hidden) if number % 3 else row(hidden))
        assert why is not None and why.reason.startswith("in "), text
    free = [f"{first} {second} {first}" for first in ("apple", "pear", "plum") for second in ("red", "green")]
    assert not [text for text in free if contamination.why_dropped(row(text))]


def test_a_part_of_a_leak_is_one_from_ten_words_on(tmp_path: Path) -> None:
    path = tmp_path / "mine.jsonl"
    question = "one two three four five six seven eight nine ten eleven twelve"
    path.write_text(json.dumps({"question": question}) + "\n" + json.dumps({"question": "what is this thing"}) + "\n")
    contamination = Contamination(benchmarks={"mine": path})
    assert contamination.why_dropped(row("x three four five six seven eight nine ten eleven TWELVE y")) is not None
    assert contamination.why_dropped(row("three four five six seven eight nine ten eleven and twelve")) is None
    found = contamination.why_dropped(row("well, what is this: thing?"))
    assert found is not None and "mine, question 2" in found.detail


def test_without_a_benchmark_at_hand_it_says_so(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="are not at hand") as refused:
        Contamination(Contamination.Config(benchmarks=["gsm8k"])).why_dropped(row("x"))
    assert refused.value.field == "filters.contamination.benchmarks"
    path = tmp_path / "none.jsonl"
    path.write_text('{"nothing": 1}\n')
    with pytest.raises(DataError, match="has no question"):
        Contamination(benchmarks={"none": path}).why_dropped(row("x"))


@pytest.mark.parametrize(("answer", "reason"), [
    ("42", None), ("\\frac{1}{2}", None), ("Paris", None), (None, "no answer"), (" ", "no answer"), ("x" * 300, "answer too long"),
])
def test_an_answer_is_verifiable_when_the_grader_takes_it_for_itself(answer: str | None, reason: str | None) -> None:
    why = AnswerVerifiable().why_dropped(row("p", answer=answer))
    assert (why.reason if why else None) == reason
    assert (AnswerVerifiable(AnswerVerifiable.Config(numbers_only=True)).why_dropped(row("p", answer=answer)) is None) == (answer in {"42", "\\frac{1}{2}"})


@pytest.mark.parametrize(("rate", "reason"), [(0.0, "too hard"), (0.1, None), (0.5, None), (0.9, None), (1.0, "too easy"), (None, "unknown pass rate"), ("0.5", "unknown pass rate"), (True, "unknown pass rate")])
def test_difficulty_keeps_what_is_solved_sometimes(rate: Any, reason: str | None) -> None:
    strict = Difficulty(Difficulty.Config(unknown="drop")).why_dropped(row("p", meta={"pass_rate": rate}))
    assert (strict.reason if strict else None) == reason
    kept = Difficulty()
    assert (kept.why_dropped(row("p", meta={"pass_rate": rate})) is None) == (reason in {None, "unknown pass rate"})
    assert kept.noted["unknown pass rate"] == (reason == "unknown pass rate")


def test_languages_are_told_and_formulas_are_unknown() -> None:
    english = "The quick brown fox jumps over the lazy dog while the farmer watches from his house."
    german = "Der schnelle braune Fuchs springt über den faulen Hund, während der Bauer aus seinem Haus zusieht."
    language = Language()
    assert language.why_dropped(row(english)) is None
    why = language.why_dropped(row(german))
    assert why is not None and why.reason == "language de"
    assert language.why_dropped(row("2+3=5")) is None and language.noted["unknown language"] == 1
    assert Language(Language.Config(languages=["de"])).why_dropped(row(german)) is None
    with pytest.raises(ConfigError, match="xx cannot be told"):
        Language(Language.Config(languages=["xx"])).why_dropped(row(english))
