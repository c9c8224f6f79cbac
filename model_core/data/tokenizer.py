"""The tokenizer of a new model and the token form of prompts and completions.

Two kinds: "words", one token a word and one a digit, for small closed vocabularies (a word that the dataset does not
have becomes `<|unk|>`); "byte_bpe", byte-level BPE trained on the dataset, which can write any text. Both are
Hugging Face fast tokenizers with the same chat template, and both give back exactly the text they were given.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any

from tokenizers import AddedToken, Regex, Tokenizer, decoders, models, pre_tokenizers, trainers
from transformers import PreTrainedTokenizerFast

from model_core.config import TokenizerConfig
from model_core.data.dataset import Row
from model_core.errors import DataError
from model_core.published.marks import (
    ASSISTANT,
    BOS,
    CHAT_TEMPLATE,
    END_THINK,
    EOS,
    PAD,
    SPECIAL,
    SYSTEM,
    THINK,
    UNK,
    USER,
    VISIBLE,
)

_WORD_PATTERN = r" ?\p{L}+|\p{N}|\s| ?[^\s\p{L}\p{N}]"
_DIGIT_PATTERN = r"\p{N}"


def train_tokenizer(config: TokenizerConfig, rows: Sequence[Row]) -> PreTrainedTokenizerFast:
    """Makes the tokenizer of a new model from the text of `rows`; the same rows give the same tokenizer.

    Raises DataError when there is no text.
    """
    if not rows:
        raise DataError("There are no rows to make a tokenizer from; choose a dataset with rows.", field="dataset")
    raw = _words(rows) if config.kind == "words" else _byte_bpe(rows, config.vocab_size)
    raw.add_special_tokens([AddedToken(token, special=True, normalized=False) for token in SPECIAL])
    raw.add_tokens([AddedToken(token, special=False, normalized=False) for token in VISIBLE])
    tokenizer = PreTrainedTokenizerFast(  # type: ignore[no-untyped-call]
        tokenizer_object=raw, pad_token=PAD, bos_token=BOS, eos_token=EOS, unk_token=UNK,
        clean_up_tokenization_spaces=False, padding_side="left",
    )
    tokenizer.chat_template = CHAT_TEMPLATE
    return tokenizer


def prompt_ids(tokenizer: PreTrainedTokenizerFast, prompt: str, *, system: str = "") -> list[int]:
    """`<|begin|>[<|system|>…]<|user|>PROMPT<|assistant|>` as token ids; marks inside the prompt stay plain text."""
    marks = _marks(tokenizer)
    head = [marks[SYSTEM], *_plain(tokenizer, [system])[0]] if system else []
    return [marks[BOS], *head, marks[USER], *_plain(tokenizer, [prompt])[0], marks[ASSISTANT]]


def conversation_ids(tokenizer: PreTrainedTokenizerFast, messages: Sequence[Mapping[str, str]]) -> list[int]:
    """A conversation of {"role", "content"} up to the place where the assistant goes on, as the chat template writes it.

    Earlier answers lose their reasoning; marks inside a text stay plain text. Raises DataError for an unknown role and where
    there is no message.
    """
    if not messages:
        raise DataError("There are no messages; send at least one.", field="messages")
    marks = _marks(tokenizer)
    roles = {"system": SYSTEM, "developer": SYSTEM, "user": USER, "assistant": ASSISTANT}
    ids = [marks[BOS]]
    for number, message in enumerate(messages):
        if message["role"] not in roles:
            raise DataError(f"Message {number} has the role “{message['role']}”; there are {', '.join(roles)}.", field="messages")
        text = message["content"]
        if message["role"] == "assistant" and number < len(messages) - 1:
            text = text.rpartition(END_THINK)[2]
        ids += [marks[roles[message["role"]]], *_plain(tokenizer, [text])[0]]
        ids += [marks[EOS]] if message["role"] == "assistant" else []
    return [*ids, marks[ASSISTANT]]


def completion_ids(tokenizer: PreTrainedTokenizerFast, completion: str) -> list[int]:
    """The completion as token ids, with `<|end|>` at the end."""
    return [*_plain(tokenizer, [completion])[0], _marks(tokenizer)[EOS]]


def encode_rows(tokenizer: PreTrainedTokenizerFast, rows: Sequence[Row]) -> list[tuple[list[int], list[int]]]:
    """`(prompt_ids, completion_ids)` of many rows at once; rows without a completion get an empty one."""
    marks = _marks(tokenizer)
    prompts = _plain(tokenizer, [row.prompt for row in rows])
    completions = _plain(tokenizer, [row.completion or "" for row in rows])
    return [
        ([marks[BOS], marks[USER], *p, marks[ASSISTANT]], [*c, marks[EOS]] if row.completion is not None else [])
        for row, p, c in zip(rows, prompts, completions, strict=True)
    ]


def decode(tokenizer: PreTrainedTokenizerFast, tokens: Sequence[int]) -> str:
    """The text of a completion: special tokens left out, `<think>` and `</think>` kept."""
    return str(tokenizer.decode(list(tokens), skip_special_tokens=True))


def _plain(tokenizer: PreTrainedTokenizerFast, texts: list[str]) -> list[list[int]]:
    encoded: Any = tokenizer(texts, add_special_tokens=False, split_special_tokens=True) if texts else {"input_ids": []}
    return [list(ids) for ids in encoded["input_ids"]]


def _marks(tokenizer: PreTrainedTokenizerFast) -> dict[str, int]:
    marks = [BOS, EOS, SYSTEM, USER, ASSISTANT]
    ids: Any = tokenizer.convert_tokens_to_ids(marks)
    return dict(zip(marks, ids, strict=True))


def _texts(rows: Iterable[Row]) -> Iterator[str]:
    for row in rows:
        yield row.prompt
        if row.completion:
            yield from _without_marks(row.completion)
        elif row.answer:
            yield row.answer
        for text in (row.chosen, row.rejected):
            yield from _without_marks(text or "")


def _without_marks(text: str) -> Iterator[str]:
    for part in text.split(THINK):
        yield from part.split(END_THINK)


def _words(rows: Sequence[Row]) -> Tokenizer:
    split = pre_tokenizers.Split(Regex(_WORD_PATTERN), behavior="isolated")
    counts: Counter[str] = Counter(dict.fromkeys("0123456789", 0))
    for text in _texts(rows):
        counts.update(piece for piece, _span in split.pre_tokenize_str(text))
    pieces = sorted(counts, key=lambda piece: (-counts[piece], piece))
    vocabulary = {token: number for number, token in enumerate([*SPECIAL, *VISIBLE, *pieces])}
    raw = Tokenizer(models.WordLevel(vocabulary, unk_token=UNK))
    raw.pre_tokenizer = split
    raw.decoder = decoders.Fuse()
    return raw


def _byte_bpe(rows: Sequence[Row], vocab_size: int) -> Tokenizer:
    raw = Tokenizer(models.BPE())
    raw.pre_tokenizer = pre_tokenizers.Sequence([
        pre_tokenizers.Split(Regex(_DIGIT_PATTERN), behavior="isolated"),
        pre_tokenizers.ByteLevel(add_prefix_space=False),
    ])
    raw.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=vocab_size, special_tokens=[*SPECIAL, *VISIBLE], show_progress=False,
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
    )
    raw.train_from_iterator(_texts(rows), trainer)
    return raw
