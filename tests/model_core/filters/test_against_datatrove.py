"""The rules of C4 and Gopher decide as datatrove's do, document by document, when both are given the same words.

What differs: datatrove cuts words with spaCy, which splits signs off; here both get what stands between white space, and the
sentences of C4 are those of datatrove's own tokenizer for languages that have no other. Beyond that, we take every sign that
is no letter or digit for a symbol where datatrove has a list, and compare word sequences word by word where it joins them.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable
from typing import Any

import pytest

from model_core.filters.c4 import C4, num_sentences
from model_core.filters.gopher_quality import GopherQuality
from model_core.filters.gopher_repetition import GopherRepetition
from tests.model_core.filters.documents import REASON, documents, is_there

Decision = tuple[str | None, str]
pytestmark = pytest.mark.skipif(not is_there(), reason=REASON)
NAMES = {
    "gopher_short_doc": "too few words", "gopher_long_doc": "too many words", "gopher_below_avg_threshold": "words too short",
    "gopher_above_avg_threshold": "words too long", "gopher_too_many_hashes": "too many hashes",
    "gopher_too_many_ellipsis": "too many ellipses", "gopher_too_many_bullets": "too many bullets",
    "gopher_too_many_end_ellipsis": "too many broken lines", "gopher_below_alpha_threshold": "too few letters",
    "gopher_enough_stop_words": "too few function words", "dup_para_frac": "repeated paragraphs",
    "dup_para_char_frac": "repeated paragraphs by characters", "dup_line_frac": "repeated lines",
    "dup_line_char_frac": "repeated lines by characters", "lorem_ipsum": "lorem ipsum", "curly_bracket": "curly bracket",
    "too_few_sentences": "too few sentences", **{f"top_{n}_gram": f"frequent {n} words" for n in (2, 3, 4)},
    **{f"duplicated_{n}_n_grams": f"repeated {n} words" for n in range(5, 11)},
}  # fmt: skip
"""datatrove's reason → ours."""


@pytest.fixture(scope="module")
def texts() -> list[str]:
    found = documents()
    assert len(found) == len(set(found)) == 1000
    return found


@pytest.fixture(scope="module")
def peer() -> Any:
    """datatrove's filters on its tokenizer for white space, whose words need no spaCy here."""
    from datatrove.utils import text, word_tokenizers

    class WhiteSpace(word_tokenizers.WhitespaceTokenizer):
        def word_tokenize(self, text: str) -> list[str]:
            return text.split()

    with pytest.MonkeyPatch.context() as patch:
        tokenizer = WhiteSpace()
        patch.setattr(word_tokenizers, "load_word_tokenizer", lambda _language: tokenizer)
        text.split_into_parts.cache_clear()
        import datatrove.pipeline.filters as filters

        yield filters
    text.split_into_parts.cache_clear()


def theirs(step: Any) -> Callable[[str], Decision]:
    """(reason in our words, text that is left)."""
    from datatrove.data import Document

    def decide(text: str) -> Decision:
        document = Document(text=text, id="")
        answer = step.filter(document)
        return (None, document.text) if answer is True else (NAMES[answer[1]], text)

    return decide


def ours(step: Any) -> Callable[[str], Decision]:
    def decide(text: str) -> Decision:
        row = {"prompt": text, "completion": None, "answer": None, "task": "", "meta": {}}
        drop = step.why_dropped(row)
        return (drop.reason if drop else None), (text if drop else str(row["prompt"]))

    return decide


@pytest.mark.parametrize(("name", "step"), [
    ("C4QualityFilter", C4()), ("GopherQualityFilter", GopherQuality()), ("GopherRepetitionFilter", GopherRepetition()),
])  # fmt: skip
def test_every_decision_and_its_reason_is_the_peers(name: str, step: Any, texts: list[str], peer: Any) -> None:
    expected, found = list(map(theirs(getattr(peer, name)()), texts)), list(map(ours(step), texts))
    assert found == expected
    reasons = Counter(reason for reason, _text in found)
    assert 100 <= reasons[None] <= 900, reasons
    fired = {reason for reason, num in reasons.items() if num >= 3}
    assert len(fired) >= {"C4QualityFilter": 4, "GopherQualityFilter": 8, "GopherRepetitionFilter": 6}[name], reasons


def test_rules_that_are_turned_down_decide_as_the_peers(texts: list[str], peer: Any) -> None:
    """Other bounds and rules that are off, so that those behind them come to decide."""
    pairs = [
        (peer.GopherQualityFilter(min_doc_words=5, min_stop_words=0, max_symbol_word_ratio=0.02, max_bullet_lines_ratio=0.2),
         GopherQuality(GopherQuality.Config(min_words=5, min_stop_words=0, max_symbol_ratio=0.02, max_bullet_fraction=0.2))),
        (peer.GopherRepetitionFilter(dup_line_frac=0, dup_para_frac=0, dup_line_char_frac=0, dup_para_char_frac=0, top_n_grams=()),
         GopherRepetition(GopherRepetition.Config(
             max_line_fraction=0, max_paragraph_fraction=0, max_line_char_fraction=0, max_paragraph_char_fraction=0, check_top=False))),
        (peer.C4QualityFilter(min_num_sentences=2, filter_no_terminal_punct=False, filter_curly_bracket=False, min_words_per_line=-1),
         C4(C4.Config(min_sentences=2, need_end=False, refuse_curly_brackets=False, min_words_per_line=0))),
    ]  # fmt: skip
    for step, mine in pairs:
        assert list(map(ours(mine), texts)) == list(map(theirs(step), texts))


def test_sentences_are_those_of_the_peers_tokenizer(texts: list[str], peer: Any) -> None:
    from datatrove.utils.text import split_into_sentences

    for text in texts:
        for line in text.splitlines():
            assert num_sentences(line, enough=1000) == len(split_into_sentences(line, "english"))
