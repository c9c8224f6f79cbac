"""Conversations as token ids against the chat template, and vocabularies against the text that they are made of."""

from __future__ import annotations

from collections import Counter

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from jinja2 import TemplateError
from transformers import PreTrainedTokenizerFast

from model_core.config import TokenizerConfig
from model_core.data.dataset import Row
from model_core.data.tokenizer import (
    ASSISTANT,
    BOS,
    EOS,
    PAD,
    SPECIAL,
    SYSTEM,
    THINK,
    UNK,
    USER,
    VISIBLE,
    completion_ids,
    conversation_ids,
    decode,
    encode_rows,
    prompt_ids,
    train_tokenizer,
)
from model_core.errors import DataError

ROWS = [Row("Leo has 652 keys. How many?", "<think>6+1=7</think>7", "7"), Row("47+58=", None, "105"), Row("Say: ß–“x”, 3.5 %!", "", None)]
KINDS = {kind: train_tokenizer(TokenizerConfig(kind=kind, vocab_size=300), ROWS) for kind in ("words", "byte_bpe")}  # type: ignore[arg-type]
PIECES = st.lists(st.sampled_from(["Leo", " has", "6", "7", " keys", ".", "+", "="]), max_size=6).map("".join)
TURNS = st.lists(st.tuples(PIECES, PIECES, PIECES), max_size=3)


@pytest.fixture(params=sorted(KINDS))
def tokenizer(request: pytest.FixtureRequest) -> PreTrainedTokenizerFast:
    return KINDS[request.param]


@settings(max_examples=40, deadline=None)
@given(
    kind=st.sampled_from(sorted(KINDS)), system=st.none() | PIECES, role=st.sampled_from(["system", "developer"]), turns=TURNS,
    last=PIECES, is_answered=st.booleans(),
)  # fmt: skip
def test_a_conversation_is_what_the_chat_template_writes(
    kind: str, system: str | None, role: str, turns: list[tuple[str, str, str]], last: str, is_answered: bool
) -> None:
    """Also one that ends with an answer: its thinking is that of no earlier one."""
    tokenizer = KINDS[kind]
    messages = [] if system is None else [{"role": role, "content": system}]
    for asked, reasoning, answer in turns:
        messages += [{"role": "user", "content": asked}, {"role": "assistant", "content": f"<think>{reasoning}</think>{answer}"}]
    messages.append({"role": "user", "content": last})
    messages += [{"role": "assistant", "content": f"<think>{last}</think>7"}] if is_answered else []
    templated = tokenizer.apply_chat_template(messages, add_generation_prompt=True, tokenize=False)
    assert conversation_ids(tokenizer, messages) == tokenizer(templated, add_special_tokens=False)["input_ids"]


def test_one_question_is_a_prompt_with_or_without_a_system_text(tokenizer: PreTrainedTokenizerFast) -> None:
    question = {"role": "user", "content": ROWS[0].prompt}
    assert conversation_ids(tokenizer, [question]) == prompt_ids(tokenizer, ROWS[0].prompt)
    told = [{"role": "system", "content": "Say 7."}, question]
    assert conversation_ids(tokenizer, told) == prompt_ids(tokenizer, ROWS[0].prompt, system="Say 7.")


def test_marks_in_what_people_write_are_text(tokenizer: PreTrainedTokenizerFast) -> None:
    marked = f"6{EOS}{ASSISTANT}{USER}{SYSTEM}{BOS}"
    ids = conversation_ids(tokenizer, [{"role": "user", "content": marked}, {"role": "assistant", "content": marked}, {"role": "user", "content": marked}])
    marks = Counter(token for token in tokenizer.convert_ids_to_tokens(ids) if token in SPECIAL and token != UNK)
    assert marks == {BOS: 1, USER: 2, ASSISTANT: 2, EOS: 1}


@pytest.mark.parametrize("role", ["tool", "", "User"])
def test_an_unknown_role_is_refused_with_its_number(role: str) -> None:
    with pytest.raises(DataError, match=r"Message 1 has the role .*there are system, developer, user, assistant") as refused:
        conversation_ids(KINDS["words"], [{"role": "user", "content": "x"}, {"role": role, "content": "x"}])
    assert refused.value.field == "messages"
    with pytest.raises(TemplateError, match=f"no role “{role}”; there are system, developer, user, assistant"):
        KINDS["words"].apply_chat_template([{"role": role, "content": "x"}], tokenize=False)


def test_a_conversation_of_no_message_is_refused() -> None:
    with pytest.raises(DataError, match="There are no messages; send at least one") as refused:
        conversation_ids(KINDS["words"], [])
    assert refused.value.field == "messages"


def test_every_special_token_is_one_and_the_visible_ones_stay_in_the_text(tokenizer: PreTrainedTokenizerFast) -> None:
    vocabulary = tokenizer.get_vocab()
    ids = [vocabulary[token] for token in (*SPECIAL, *VISIBLE)]
    assert len(set(ids)) == len(ids) and max(ids) < len(tokenizer)
    assert (tokenizer.pad_token, tokenizer.bos_token, tokenizer.eos_token, tokenizer.unk_token) == (PAD, BOS, EOS, UNK)
    assert decode(tokenizer, ids) == "".join(VISIBLE) and decode(tokenizer, []) == ""
    assert completion_ids(tokenizer, "") == [tokenizer.eos_token_id]


def test_rows_without_a_completion_have_an_empty_one_and_an_empty_one_ends(tokenizer: PreTrainedTokenizerFast) -> None:
    encoded = encode_rows(tokenizer, ROWS)
    assert [prompt for prompt, _ in encoded] == [prompt_ids(tokenizer, row.prompt) for row in ROWS]
    assert [completion for _, completion in encoded] == [completion_ids(tokenizer, ROWS[0].completion or ""), [], [tokenizer.eos_token_id]]
    assert encode_rows(tokenizer, []) == []


def test_words_do_not_hang_on_the_order_of_the_rows_and_know_every_digit() -> None:
    vocabulary = KINDS["words"].get_vocab()
    assert train_tokenizer(TokenizerConfig(kind="words"), ROWS[::-1]).get_vocab() == vocabulary
    assert set("0123456789") <= set(vocabulary) and f"{THINK}6" not in vocabulary
    assert UNK not in KINDS["words"].convert_ids_to_tokens([token for row in ROWS for token in prompt_ids(KINDS["words"], row.prompt)])
    assert sorted(vocabulary.values()) == list(range(len(vocabulary)))


def test_a_trained_vocabulary_is_the_same_again_and_as_large_as_said() -> None:
    rows = [Row(f"{word} and {word}s of the {word}ing", None, None) for word in ("key", "coin", "shell", "marble", "stone", "stamp")]
    first, second = (train_tokenizer(TokenizerConfig(kind="byte_bpe", vocab_size=310), rows) for _ in range(2))
    assert first.get_vocab() == second.get_vocab() and len(first) == 310
    assert len(prompt_ids(first, "key and keys")) < len(prompt_ids(KINDS["byte_bpe"], "key and keys"))
