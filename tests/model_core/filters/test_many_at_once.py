"""Filters that are asked for many rows at once decide each as they do alone, and their parts are the obvious ones'."""

from __future__ import annotations

import copy
import json
import random
from collections import Counter
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from model_core.filters._sequences import suspects
from model_core.filters._words import ID_BITS, Words
from model_core.filters.exact_duplicates import _plain, _plain_ascii
from model_core.filters.gopher_quality import STOP_WORDS, GopherQuality, counts_of_words
from model_core.filters.gopher_repetition import DUPLICATED, TOP, GopherRepetition
from model_core.filters.language import Language
from model_core.preparation.line import line_of
from tests.model_core.filters.documents import MUTATIONS, documents, is_there

TEXTS = st.text(st.sampled_from("aAbß .…-#\n\t\x1c\u2003é漢1'\"\\{}"), max_size=60)
GERMAN = "Ein Bauer hat drei Kühe und verkauft zwei davon an seinen Nachbarn, der sie auf die Weide bringt. Wie viele bleiben ihm?"
SHORT = ("to be", "Le chat dort sur la table.", "12 + 3 = 15", "", "  ", "\n", "THE AND OF WITH THAT", "漢字 と かな", "½ ٣ ²")


def row(prompt: str, completion: str | None = None) -> dict[str, Any]:
    return {"prompt": prompt, "completion": completion, "answer": None, "task": "", "meta": {}}


@pytest.fixture(scope="module")
def rows() -> list[dict[str, Any]]:
    """The documents of the comparison with datatrove where they are there, and made ones with everything that is unusual."""
    draw = random.Random(3)
    words = [*STOP_WORDS, *(f"word{number}" for number in range(300)), "naïve", "été", "漢字", "--", "5", "x" * 40, "…", "don’t"]
    texts = [*SHORT, *(documents(400, seed=1) if is_there() else ())]
    for _ in range(250):
        lines = [" ".join(draw.choices(words, k=draw.randint(3, 40))) + "." for _ in range(draw.randint(1, 8))]
        for mutate in draw.sample(MUTATIONS, draw.choice((0, 1, 2))):
            lines = mutate(lines, draw)
        texts.append(draw.choice(("\n", "\n\n", "\u2003", "\r\n")).join(lines))
    texts += [*(f"{GERMAN} {number} Kühe." for number in range(20)), f"{GERMAN} And this is the rest of it in English, as long as the other part was.", GERMAN.upper()]
    return [row(text, draw.choice((None, "", "It is that one. " * draw.randint(1, 9)))) for text in texts]


@pytest.mark.parametrize("step", [
    GopherQuality(), GopherQuality(GopherQuality.Config(text="prompt", min_words=3, min_stop_words=0, max_bullet_fraction=0.3)),
    GopherQuality(GopherQuality.Config(text="completion", min_words=0, min_mean_word_chars=0, min_stop_words=1, min_alpha_fraction=0.3)),
    GopherQuality(GopherQuality.Config(min_words=0, min_mean_word_chars=0, min_stop_words=8, max_ellipsis_fraction=0.1, max_symbol_ratio=0)),
    GopherRepetition(), GopherRepetition(GopherRepetition.Config(text="prompt", check_top=False)),
    GopherRepetition(GopherRepetition.Config(text="completion", check_duplicated=False, max_line_fraction=0, max_line_char_fraction=0)),
    Language(), Language(Language.Config(text="prompt", languages=["de", "fr"], min_letters=5, unknown="drop", min_confidence=0.9)),
    Language(Language.Config(languages=["en", "zh"], min_letters=0, min_confidence=0.1, max_chars=50)),
])  # fmt: skip
def test_rows_asked_together_are_decided_as_alone(step: Any, rows: list[dict[str, Any]]) -> None:
    alone, together = copy.deepcopy(rows), copy.deepcopy(rows)
    expected = list(map(step.why_dropped, alone))
    noted = copy.copy(getattr(step, "noted", None))
    if noted:
        step.noted.clear()
    found = [drop for start in range(0, len(rows), 97) for drop in step.why_dropped_each(together[start : start + 97])]
    assert found == expected and together == alone and getattr(step, "noted", None) == noted
    reasons = Counter(drop.reason if drop else None for drop in found)
    assert reasons[None] >= 20 and len(reasons) > 1, reasons


@settings(deadline=None)
@given(st.lists(TEXTS, max_size=8))
def test_words_are_cut_and_counted_as_one_by_one(texts: list[str]) -> None:
    words = Words(texts)
    cut = [word for text in texts for word in text.split()]
    assert words.num_T.tolist() == [len(text.split()) for text in texts] and words.chars_N.tolist() == list(map(len, cut))
    assert words.text_N.tolist() == [number for number, text in enumerate(texts) for _word in text.split()]
    assert words.counts() == [counts_of_words(text.split()) for text in texts]
    ids = dict[str, int]()
    assert all(ids.setdefault(word, number) == number < 1 << ID_BITS for word, number in zip(cut, words.ids().tolist(), strict=True))
    assert len(set(ids.values())) == len(ids)


@settings(deadline=None)
@given(st.lists(st.lists(st.sampled_from(("a", "bb", "ccc")), max_size=30), max_size=5))
def test_a_text_that_a_rule_on_sequences_drops_is_suspect(texts: list[list[str]]) -> None:
    """The bound itself: whatever word by word is over a share, with few different words so that most are."""
    step = GopherRepetition()
    joined = [" ".join(words) for words in texts]
    flags = suspects(Words(joined), np.array(list(map(len, joined)), np.int64), TOP, DUPLICATED)
    for text, flag in zip(joined, flags.tolist(), strict=True):
        assert flag or not text or step._sequences(text) is None


def test_most_texts_that_no_rule_drops_are_no_suspects() -> None:
    draw = random.Random(0)
    texts = [" ".join(f"word{int(draw.paretovariate(0.5)) % 3000}" for _ in range(300)) for _ in range(200)]
    flags = suspects(Words(texts), np.array(list(map(len, texts)), np.int64), TOP, DUPLICATED)
    dropped = [GopherRepetition()._sequences(text) is not None for text in texts]
    assert sum(flags.tolist()) <= sum(dropped) + 20


@settings(deadline=None)
@given(st.text(st.characters(max_codepoint=127), max_size=50))
def test_text_without_case_and_space_is_the_same_the_quick_way(text: str) -> None:
    assert _plain_ascii(text) == _plain(text)


@settings(deadline=None)
@given(st.dictionaries(st.text(max_size=3), st.none() | st.text() | st.integers() | st.just({}) | st.dictionaries(st.text(), st.floats())))
def test_a_line_is_what_json_writes(values: dict[str, Any]) -> None:
    try:
        expected = f"{json.dumps(values, ensure_ascii=False, sort_keys=True)}\n".encode()
    except UnicodeEncodeError:
        with pytest.raises(UnicodeEncodeError):
            line_of(values)
        return
    assert line_of(values) == expected
