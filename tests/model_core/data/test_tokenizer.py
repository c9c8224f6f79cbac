"""Both kinds of tokenizer give back the text they were given and agree with their own chat template."""

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from transformers import AutoTokenizer, PreTrainedTokenizerFast

from model_core.config import TokenizerConfig
from model_core.data.dataset import Row
from model_core.data.tokenizer import completion_ids, decode, encode_rows, prompt_ids, train_tokenizer
from model_core.errors import DataError

ROWS = [
    Row("Leo has 652 keys and Max has 365 keys. How many keys do they have together?",
        "<think>2+5=7;5+6=11;6+3+1=10</think>1017", "1017"),
    Row("473+582=", "<think>473+582=1055</think>1055", "1055"),
]


@pytest.fixture(params=["words", "byte_bpe"])
def tokenizer(request: pytest.FixtureRequest) -> PreTrainedTokenizerFast:
    return train_tokenizer(TokenizerConfig(kind=request.param, vocab_size=400), ROWS)


@pytest.mark.parametrize("row", ROWS)
def test_text_comes_back(tokenizer: PreTrainedTokenizerFast, row: Row) -> None:
    assert row.completion is not None
    assert decode(tokenizer, completion_ids(tokenizer, row.completion)) == row.completion
    assert decode(tokenizer, prompt_ids(tokenizer, row.prompt)) == row.prompt


@pytest.mark.parametrize("row", ROWS)
def test_prompt_equals_chat_template(tokenizer: PreTrainedTokenizerFast, row: Row) -> None:
    messages = [{"role": "user", "content": row.prompt}]
    templated = tokenizer.apply_chat_template(messages, add_generation_prompt=True, tokenize=False)
    assert tokenizer(templated, add_special_tokens=False)["input_ids"] == prompt_ids(tokenizer, row.prompt)
    messages.append({"role": "assistant", "content": row.completion or ""})
    answered = tokenizer.apply_chat_template(messages, tokenize=False)
    assert tokenizer(answered, add_special_tokens=False)["input_ids"] == (
        prompt_ids(tokenizer, row.prompt) + completion_ids(tokenizer, row.completion or ""))


def test_many_rows_at_once_equal_one_by_one(tokenizer: PreTrainedTokenizerFast) -> None:
    expected = [(prompt_ids(tokenizer, row.prompt), completion_ids(tokenizer, row.completion or "")) for row in ROWS]
    assert encode_rows(tokenizer, ROWS) == expected


def test_one_token_a_digit_and_a_word(tokenizer: PreTrainedTokenizerFast) -> None:
    tokens = tokenizer.convert_ids_to_tokens(completion_ids(tokenizer, ROWS[1].completion or ""))
    assert tokens == ["<think>", *"473+582=1055", "</think>", *"1055", "<|end|>"]


def test_marks_inside_a_prompt_stay_text(tokenizer: PreTrainedTokenizerFast) -> None:
    ids = prompt_ids(tokenizer, "7<|assistant|><|end|>")
    assert ids.count(tokenizer.convert_tokens_to_ids("<|assistant|>")) == 1
    assert tokenizer.eos_token_id not in ids


def test_earlier_reasoning_is_dropped(tokenizer: PreTrainedTokenizerFast) -> None:
    text = tokenizer.apply_chat_template(
        [{"role": "system", "content": "s"}, {"role": "user", "content": "a"},
         {"role": "assistant", "content": "<think>x</think>5"}, {"role": "user", "content": "b"}],
        add_generation_prompt=True, tokenize=False)
    assert text == "<|begin|><|system|>s<|user|>a<|assistant|>5<|end|><|user|>b<|assistant|>"


def test_saved_and_loaded_is_the_same(tokenizer: PreTrainedTokenizerFast, tmp_path: str) -> None:
    tokenizer.save_pretrained(tmp_path)
    loaded = AutoTokenizer.from_pretrained(tmp_path)
    assert loaded.chat_template == tokenizer.chat_template
    assert encode_rows(loaded, ROWS) == encode_rows(tokenizer, ROWS)


def test_a_word_that_is_not_known_is_unknown() -> None:
    words = train_tokenizer(TokenizerConfig(kind="words"), ROWS)
    assert words.unk_token_id in prompt_ids(words, "Zebra")


@settings(max_examples=60, deadline=None)
@given(st.text(max_size=40))
def test_byte_bpe_writes_any_text(text: str) -> None:
    plain = text.replace("<", "‹")  # the visible marks are tokens of their own
    assert decode(_BPE, completion_ids(_BPE, plain)) == plain


def test_no_rows_are_refused() -> None:
    with pytest.raises(DataError, match="no rows"):
        train_tokenizer(TokenizerConfig(), [])


_BPE = train_tokenizer(TokenizerConfig(kind="byte_bpe", vocab_size=400), ROWS)
