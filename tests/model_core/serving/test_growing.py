"""A growing answer is the whole answer in pieces: stop texts, thinking, counts and log-probabilities do not depend on how it comes."""

from __future__ import annotations

from hypothesis import given, settings
from hypothesis import strategies as st

from model_core.serving.backend import Piece, Scored
from model_core.serving.growing import Answer, chat_logprobs, text_logprobs
from model_core.serving.reasoning import CLOSE, OPEN, ReasoningSplitter

WORDS = st.lists(st.sampled_from(["a", "b", "ab", "ba", "c", "", " "]), min_size=1, max_size=12)
STOPS = st.lists(st.text("abc", min_size=1, max_size=4), max_size=3)
SCORED = st.builds(
    Scored, st.sampled_from(["a", " b", "ü", "\ufffd", "<|unk|>"]), st.floats(-9, 0),
    st.lists(st.tuples(st.sampled_from(["a", "b", "ü"]), st.floats(-9, 0)), max_size=3).map(tuple),
)  # fmt: skip


def pieces(words: list[str], finish: str = "length") -> list[Piece]:
    last = len(words)
    return [Piece(word, number, finish if number == last else None) for number, word in enumerate(words, start=1)]


def grown(words: list[str], stops: list[str], splitter: ReasoningSplitter | None = None) -> Answer:
    """As the server does it: no piece after the end."""
    answer = Answer(splitter, stops)
    for piece in pieces(words):
        answer.feed(piece)
        if answer.finish_reason:
            return answer
    raise AssertionError("the last piece ends it")


def cut_slowly(words: list[str], stops: list[str]) -> tuple[str, str, int]:
    """Looks for every stop text in all that has come, after each piece: (text, why it ends, tokens that it took)."""
    for number in range(1, len(words) + 1):
        text = "".join(words[:number])
        if found := [text.index(stop) for stop in stops if stop in text]:
            return text[: min(found)], "stop", number
    return "".join(words), "length", len(words)


@given(WORDS, STOPS)
@settings(max_examples=300, deadline=None)
def test_a_stop_text_ends_the_answer_where_it_begins(words: list[str], stops: list[str]) -> None:
    answer = grown(words, stops)
    assert (answer.content, answer.finish_reason, answer.num_tokens) == cut_slowly(words, stops)
    assert answer.reasoning == "" and answer.num_reasoning == 0


@given(WORDS, STOPS)
@settings(max_examples=200, deadline=None)
def test_nothing_that_was_shown_is_taken_back(words: list[str], stops: list[str]) -> None:
    """And nothing is held longer than a stop text may still begin in it."""
    answer, shown, seen = Answer(None, stops), "", ""
    for piece in pieces(words):
        thought, said = answer.feed(piece)
        shown, seen = shown + said, seen + piece.text
        assert thought == "" and shown == answer.content
        if answer.finish_reason:
            break
        held = seen.removeprefix(shown)
        assert shown + held == seen and (not held or any(stop.startswith(held) and stop != held for stop in stops))


@given(st.lists(st.sampled_from([OPEN, CLOSE, "a", "b", " ", "ab"]), min_size=1, max_size=10), STOPS)
@settings(max_examples=300, deadline=None)
def test_a_stop_text_counts_in_the_thinking_as_in_the_answer(words: list[str], stops: list[str]) -> None:
    """The text is cut first; thinking and answer come apart in what is left."""
    answer = grown(words, stops, ReasoningSplitter())
    text, why, num_tokens = cut_slowly(words, stops)
    assert (answer.reasoning, answer.content) == ReasoningSplitter().feed(text, last=True)
    assert (answer.finish_reason, answer.num_tokens) == (why, num_tokens)
    assert 0 <= answer.num_reasoning <= answer.num_tokens and (not answer.reasoning or answer.num_reasoning > 0)


@given(st.integers(0, 5), st.integers(0, 5))
@settings(deadline=None)
def test_thinking_tokens_are_those_up_to_its_end(num_thought: int, num_said: int) -> None:
    """With its opening mark; the closing one is told with the answer."""
    answer = grown([OPEN, *["t"] * num_thought, CLOSE, *["s"] * num_said], [], ReasoningSplitter())
    assert answer.num_reasoning == 1 + num_thought and answer.num_tokens == 2 + num_thought + num_said
    assert (answer.reasoning, answer.content) == ("t" * num_thought, "s" * num_said)


def test_a_held_beginning_is_given_when_the_answer_ends() -> None:
    answer = Answer(None, ["STOP"])
    assert answer.feed(Piece("say ST", 1)) == ("", "say ")
    assert answer.feed(Piece("O", 2, "length")) == ("", "STO") and answer.finish_reason == "length"


@given(st.lists(SCORED, max_size=6))
@settings(deadline=None)
def test_chat_logprobs_tell_each_token_with_its_bytes(scored: list[Scored]) -> None:
    told = chat_logprobs(scored)
    assert told["refusal"] is None and [t["token"] for t in told["content"]] == [one.text for one in scored]
    for one, token in zip(scored, told["content"], strict=True):
        assert token["logprob"] == one.logprob
        assert [(t["token"], t["logprob"]) for t in token["top_logprobs"]] == list(one.top), "likeliest first"
        for each in (token, *token["top_logprobs"]):
            if each["token"] == "\ufffd":
                assert each["bytes"] is None, "what is part of a character cannot be told from its text"
            else:
                assert bytes(each["bytes"]).decode() == each["token"]


@given(st.lists(SCORED, max_size=6), st.integers(0, 6), st.integers(0, 50))
@settings(deadline=None)
def test_text_logprobs_told_in_two_parts_are_those_told_at_once(scored: list[Scored], cut: int, offset: int) -> None:
    first, rest = scored[:cut], scored[cut:]
    whole = text_logprobs(scored, offset=offset)
    parts = [text_logprobs(first, offset=offset), text_logprobs(rest, offset=offset + sum(len(one.text) for one in first))]
    assert whole == {name: parts[0][name] + parts[1][name] for name in whole}
    text = " " * offset + "".join(one.text for one in scored)
    assert all(text.startswith(token, place) for token, place in zip(whole["tokens"], whole["text_offset"], strict=True))


def test_of_two_tokens_with_one_text_the_likelier_is_told() -> None:
    one = Scored("\ufffd", -0.5, (("\ufffd", -0.5), ("a", -1.0), ("\ufffd", -3.0)))
    assert text_logprobs([one])["top_logprobs"] == [{"\ufffd": -0.5, "a": -1.0}]
