"""A stream of requests that join, leave and wait in any order: each hears what it would have heard alone."""

from __future__ import annotations

import threading
from functools import cache, partial
from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from model_core.errors import ConfigError, EngineError
from model_core.rollout.stream import Request, StreamingSampler, Token
from tests.model_core.reference.plain_decoding import greedy
from tests.model_core.rollout.shapes import EOS, VOCABULARY, named, prompts

WAYS: list[dict[str, Any]] = [
    {"temperature": 0.0}, {"temperature": 1.0}, {"temperature": 0.7, "top_p": 0.8}, {"temperature": 1.5, "top_k": 4},
    {"temperature": 1.0, "min_p": 0.1, "num_top": 3}, {"temperature": 0.0, "num_top": 2},
]
GIVEN = prompts(6)


class Asked:
    """A request and what it heard."""

    def __init__(self, number: int, **more: Any) -> None:
        self.heard: list[Token] = []
        values = {"max_new_tokens": 3 + 2 * number, "seed": number, **WAYS[number % 6], **more}
        self.request = Request(GIVEN[number % 6], sink=self.heard.append, **values)

    @property
    def tokens(self) -> list[int]:
        return [token.id for token in self.heard]

    @property
    def finish(self) -> str | None:
        return self.heard[-1].finish if self.heard else None


def stream(num_rows: int = 2, **more: Any) -> StreamingSampler:
    return StreamingSampler(named("plain"), eos_token_id=EOS, num_rows=num_rows, **more)


def drain(sampler: StreamingSampler) -> None:
    while sampler.step():
        pass


@cache
def alone(number: int) -> tuple[tuple[int, ...], str | None]:
    asked, sampler = Asked(number), stream(1)
    sampler.submit(asked.request)
    drain(sampler)
    return tuple(asked.tokens), asked.finish


ACTIONS = st.lists(st.tuples(st.sampled_from(["join", "step", "step", "cancel"]), st.integers(0, 11)), max_size=40)


@settings(max_examples=40, deadline=None, derandomize=True)
@given(ACTIONS, st.integers(1, 4))
def test_whatever_the_company_each_hears_what_it_hears_alone(actions: list[tuple[str, int]], num_rows: int) -> None:
    sampler, asked = stream(num_rows), dict[int, Asked]()
    silenced: dict[int, int] = {}
    for what, number in actions:
        if what == "step":
            sampler.step()
        elif what == "join" and number not in asked:
            asked[number] = Asked(number)
            sampler.submit(asked[number].request)
        elif what == "cancel" and number in asked:
            sampler.cancel(asked[number].request)
            silenced.setdefault(number, len(asked[number].heard))
        assert sampler.running <= num_rows and 0 <= sampler.fill <= 1
    while sampler.step():
        filled = sampler.cache.filled_B[: sampler.running].tolist()
        assert sampler.cache.longest == max(filled, default=0), "no row is read beyond the longest in use"
    assert sampler.running == sampler.queued == 0 and sampler.fill == 0
    for number, one in asked.items():
        tokens, finish = alone(number)
        if number in silenced:
            assert one.tokens == list(tokens[: silenced[number]]), "nothing after it was cancelled"
        else:
            assert (tuple(one.tokens), one.finish) == (tokens, finish)
        assert all(token.finish is None for token in one.heard[:-1])


def test_requests_that_wait_are_taken_in_their_order_and_no_more_than_may() -> None:
    sampler = stream(1, max_queued=3)
    asked = [Asked(number, max_new_tokens=4, temperature=0.0) for number in range(5)]
    began: list[int] = []

    def told(number: int, _token: Token) -> None:
        began.append(number)

    for number, one in enumerate(asked[:3]):
        one.request.sink = partial(told, number)
        sampler.submit(one.request)
    with pytest.raises(EngineError, match="3 requests wait already"):
        sampler.submit(asked[3].request)
    sampler.step()
    assert (sampler.running, sampler.queued) == (1, 2)
    sampler.submit(asked[4].request)
    drain(sampler)
    assert list(dict.fromkeys(began)) == [0, 1, 2] and began == sorted(began) and asked[4].finish is not None


def test_one_that_waits_and_is_cancelled_makes_room_at_once_and_hears_nothing() -> None:
    sampler, running, waiting, late = stream(1, max_queued=1), Asked(0), Asked(1), Asked(2)
    sampler.submit(running.request)
    sampler.step()
    sampler.submit(waiting.request)
    sampler.cancel(waiting.request)
    assert sampler.queued == 0
    sampler.submit(late.request)
    drain(sampler)
    assert not waiting.heard and tuple(late.tokens) == alone(2)[0] and tuple(running.tokens) == alone(0)[0]
    sampler.cancel(late.request)  # too late, and harmless
    assert not sampler.step()


def test_a_sink_may_cancel_another_or_itself_in_the_middle_of_a_step() -> None:
    sampler, first, second = stream(2), Asked(5, max_new_tokens=20), Asked(3)

    def stop_both(token: Token) -> None:
        first.heard.append(token)
        if len(first.heard) == 3:
            sampler.cancel(first.request)
            sampler.cancel(second.request)

    first.request.sink = stop_both
    for one in (first, second):
        sampler.submit(one.request)
    drain(sampler)
    assert len(first.heard) == 3 and len(second.heard) <= 3 and sampler.running == 0


@pytest.mark.parametrize("most", [1, 2, 5])
def test_no_more_tokens_than_asked_for_and_the_last_says_why(most: int) -> None:
    asked, sampler = [Asked(number, max_new_tokens=most) for number in range(12)], stream(3)
    for one in asked:
        sampler.submit(one.request)
    drain(sampler)
    for one in asked:
        assert 1 <= len(one.tokens) <= most and EOS not in one.tokens[:-1]
        assert one.finish == ("stop" if one.tokens[-1] == EOS else "length")
        assert one.finish == "stop" or len(one.tokens) == most


def test_an_answer_may_fill_the_context_to_its_end() -> None:
    sampler, heard = StreamingSampler(named("plain"), eos_token_id=-1, num_rows=1), list[Token]()
    context = sampler.context
    sampler.submit(Request(GIVEN[0], context - len(GIVEN[0]), heard.append, temperature=0.0))
    sampler.step()
    assert sampler.fill == pytest.approx((len(GIVEN[0]) + 2) / context)
    drain(sampler)
    assert [token.id for token in heard] == greedy(named("plain"), GIVEN[0], context - len(GIVEN[0]), eos=-1)
    with pytest.raises(ConfigError, match="Shorten the prompt"):
        sampler.submit(Request(GIVEN[0], context - len(GIVEN[0]) + 1, heard.append))


def test_seeds_decide_what_is_drawn_and_nothing_that_is_greedy() -> None:
    def told(**values: Any) -> list[int]:
        asked, sampler = Asked(1, max_new_tokens=16, **values), stream()
        sampler.submit(asked.request)
        drain(sampler)
        return asked.tokens

    assert told(seed=4) == told(seed=4)
    assert len({tuple(told(seed=seed)) for seed in range(6)}) > 3
    assert len({tuple(told(seed=seed, temperature=0.0)) for seed in range(3)}) == 1
    for way in ({"top_k": 1}, {"min_p": 1.0}, {"top_p": 1e-6}):
        assert told(seed=9, **way) == told(temperature=0.0)


def test_the_likeliest_are_told_in_order_under_the_distribution_that_is_drawn_from() -> None:
    sampler, asked, many = stream(), Asked(4, temperature=0.5, num_top=3), Asked(1, num_top=10_000, temperature=0.0, max_new_tokens=2)
    for one in (asked, many):
        sampler.submit(one.request)
    drain(sampler)
    with torch.no_grad():
        logits_V = named("plain")(torch.tensor([GIVEN[4]]))[0, -1]
    values, ids = (logits_V / 0.5).log_softmax(-1).topk(3)
    assert [number for number, _logprob in asked.heard[0].top] == ids.tolist()
    assert [logprob for _number, logprob in asked.heard[0].top] == pytest.approx(values.tolist(), abs=1e-4)
    assert len(many.heard[0].top) == VOCABULARY and many.heard[0].top[0][0] == many.tokens[0]
    assert sum(torch.tensor([logprob for _id, logprob in many.heard[0].top]).exp().tolist()) == pytest.approx(1, abs=1e-5)


def test_one_that_broke_down_takes_nobody_and_tells_those_who_still_listen() -> None:
    sampler, running, left, waiting = stream(2), Asked(5, max_new_tokens=30), Asked(0, max_new_tokens=30), Asked(1)
    for one in (running, left, waiting):
        sampler.submit(one.request)
    sampler.step()
    sampler.cancel(left.request)
    sampler.fail()
    assert running.finish == waiting.finish == "error" and left.finish != "error"
    with pytest.raises(EngineError, match="has failed and is replaced"):
        sampler.submit(Asked(2).request)
    assert (sampler.running, sampler.queued, sampler.step()) == (0, 0, False)


def test_a_request_from_another_thread_wakes_the_one_that_waits() -> None:
    sampler, asked = stream(), Asked(0)
    woken = threading.Event()

    def serve() -> None:
        while asked.finish is None:
            sampler.wait(60)
            sampler.step()
        woken.set()

    server = threading.Thread(target=serve, daemon=True)
    server.start()
    sampler.submit(asked.request)
    assert woken.wait(30) and tuple(asked.tokens) == alone(0)[0]
    server.join(30)
