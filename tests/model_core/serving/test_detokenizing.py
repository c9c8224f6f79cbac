"""Text that comes token by token is the text of all tokens, whatever the tokens are."""

from __future__ import annotations

from functools import cache
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from tokenizers import Tokenizer, decoders, models
from transformers import PreTrainedTokenizerFast

from model_core.config import TokenizerConfig
from model_core.data.dataset import Row
from model_core.data.tokenizer import EOS, PAD, decode, train_tokenizer
from model_core.serving.detokenizing import Detokenizer

TEXT = "What is 17 + 25? Über 😀 日本 <think>7+5=12 carry 1</think>42"


@cache
def tokenizer(kind: str) -> Any:
    rows = [Row(prompt=TEXT, completion=TEXT, answer="42")]
    return train_tokenizer(TokenizerConfig.parse({"kind": kind, "vocab_size": 300}), rows)


def fed(kind: str, tokens: list[int]) -> list[str]:
    text = Detokenizer(tokenizer(kind))
    return [*(text.feed(token) for token in tokens), text.finish()]


@pytest.mark.parametrize("kind", ["byte_bpe", "words"])
@given(data=st.data())
@settings(max_examples=150, deadline=None)
def test_any_tokens_read_as_they_read_together(kind: str, data: st.DataObject) -> None:
    """Bytes that are no character, special tokens and marks among them."""
    tokens = data.draw(st.lists(st.integers(0, len(tokenizer(kind)) - 1), max_size=12))
    assert "".join(fed(kind, tokens)) == decode(tokenizer(kind), tokens)


@given(st.text(st.sampled_from("aé日😀 \u0301"), max_size=10))
@settings(max_examples=150, deadline=None)
def test_no_character_is_shown_before_it_is_whole(text: str) -> None:
    tokens = tokenizer("byte_bpe")(text, add_special_tokens=False)["input_ids"]
    pieces = fed("byte_bpe", tokens)
    assert "".join(pieces) == text and not any("\ufffd" in piece for piece in pieces)
    assert pieces[-1] == "", "whole characters leave nothing for the end"


def test_a_character_of_four_tokens_comes_with_its_last() -> None:
    tokens = tokenizer("byte_bpe")("a\U0001f4a1b", add_special_tokens=False)["input_ids"]
    assert fed("byte_bpe", tokens) == ["a", *[""] * (len(tokens) - 3), "\U0001f4a1", "b", ""] and len(tokens) > 4


def test_what_stays_unfinished_is_told_at_the_end() -> None:
    tokens = tokenizer("byte_bpe")("a\U0001f4a1", add_special_tokens=False)["input_ids"][:-1]
    assert fed("byte_bpe", tokens) == ["a", *[""] * (len(tokens) - 1), "\ufffd"]


def test_special_tokens_say_nothing_and_lose_nothing() -> None:
    words = tokenizer("byte_bpe")
    a, b, end, pad = words.convert_tokens_to_ids(["a", "b", EOS, PAD])
    assert fed("byte_bpe", [pad, a, end, end, b]) == ["", "a", "", "", "b", ""]
    assert fed("byte_bpe", []) == [""]


@given(st.lists(st.integers(0, 3), max_size=8))
@settings(deadline=None)
def test_a_token_may_read_otherwise_at_the_beginning(tokens: list[int]) -> None:
    """As with SentencePiece, whose first word loses its space."""
    raw = Tokenizer(models.WordLevel({"▁a": 0, "▁b": 1, "c": 2, "▁": 3}, unk_token="c"))
    raw.decoder = decoders.Metaspace()
    words: Any = PreTrainedTokenizerFast(tokenizer_object=raw)  # type: ignore[no-untyped-call]
    text = Detokenizer(words)
    assert "".join([*(text.feed(token) for token in tokens), text.finish()]) == decode(words, tokens)
