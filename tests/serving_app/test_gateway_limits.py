"""Limits of keys hold exactly, whoever asks at the same time; what is reserved is given back; usage adds up to what was served."""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import timedelta
from decimal import Decimal
from typing import Any

import aiohttp
import httpx
import pytest
from channels.db import database_sync_to_async
from django.contrib.auth.models import User
from django.db.models import Count, Sum
from django.utils import timezone
from hypothesis import given
from hypothesis import strategies as st

from r1platform.keys import api_key_create
from serving_app.gateway import limits, spending, views
from serving_app.gateway.errors import GatewayError
from serving_app.gateway.limits import Limits, Terms
from serving_app.gateway.routing import Route
from serving_app.gateway.spending import Used, cost_of, most_of
from serving_app.gateway.usage import USAGE
from serving_app.models import Deployment, Price, UsageRecord
from serving_app.tasks import reap_requests
from tests.serving_app.conftest import Served, key_of, until
from tests.serving_app.test_gateway import ask, chat

SIX_WORDS = "say a b c d e f"
PROMPT, ANSWER = 7, 6
"""Tokens that the engine of the tests counts for it."""


@pytest.fixture
def fresh(monkeypatch: pytest.MonkeyPatch) -> Limits:
    """Limits that nobody has used."""
    made = Limits()
    for module in (limits, spending, views):
        monkeypatch.setattr(module, "LIMITS", made)
    return made


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> Iterator[list[float]]:
    """The monotonic clock of the limits, moved by hand."""
    at = [1000.0]

    @dataclass
    class Clock:
        @staticmethod
        def monotonic() -> float:
            return at[0]

    monkeypatch.setattr(limits, "time", Clock)
    yield at


def refused(limited: Limits, terms: Terms, **could: Any) -> GatewayError:
    with pytest.raises(GatewayError) as caught:
        limited.enter(1, terms, **could)
    return caught.value


def test_a_minute_is_any_sixty_seconds(clock: list[float]) -> None:
    limited, terms = Limits(), Terms(requests_per_minute=2)
    limited.enter(1, terms).leave()
    clock[0] += 40
    limited.enter(1, terms).leave()
    assert refused(limited, terms).retry_after == 20
    clock[0] += 19.9
    assert refused(limited, terms).retry_after == 1
    clock[0] += 0.1
    limited.enter(1, terms).leave()
    assert refused(limited, terms).retry_after == 40


MOMENTS = st.lists(st.tuples(st.integers(0, 40), st.integers(0, 120), st.integers(0, 120)), max_size=40)
"""Seconds that pass, tokens that a request could use, and those that it used when the next one comes."""


@given(MOMENTS)
def test_who_is_let_in_is_who_a_list_of_all_requests_would_let_in(moments: list[tuple[int, int, int]]) -> None:
    window, now, limit = limits._Window(), 0.0, 100
    all_of_them: list[list[float]] = []
    entries: list[Any] = []
    for seconds, could, used in moments:
        now += seconds
        window.forget(now)
        young = sum(amount for at, amount in all_of_them if at > now - 60)
        assert window.total == young
        wait = window.wait(min(could, limit), limit, now)
        assert (wait == 0) == (young + min(could, limit) <= limit)
        later = sum(amount for at, amount in all_of_them if at > now + wait - 60)
        assert later + min(could, limit) <= limit, "after the time that is told there is room"
        if not wait:
            entries.append(window.add(min(could, limit), now))
            all_of_them.append([now, min(could, limit)])
        elif entries:
            window.change(entries[-1], used, now)
            all_of_them[-1][1] = used


def test_tokens_are_reserved_and_what_was_not_used_is_given_back(clock: list[float]) -> None:
    limited, terms = Limits(), Terms(tokens_per_minute=100)
    slot = limited.enter(1, terms, tokens=60)
    assert refused(limited, terms, tokens=41).status == 429
    slot.leave(tokens=10)
    slot.leave(tokens=10)
    clock[0] += 30
    limited.enter(1, terms, tokens=90)
    found = refused(limited, terms, tokens=1)
    assert (found.code, found.retry_after) == ("tokens_limit_exceeded", 30), "the ten of the first leave first"
    found = refused(limited, terms, tokens=101)
    assert (found.status, found.code) == (400, "tokens_above_limit"), "no waiting would help"


def test_money_is_reserved_of_what_the_month_has_left(clock: list[float]) -> None:
    limited, terms = Limits(), Terms(dollars_per_month=Decimal(10))
    limited.open(1, spent=Decimal(4))
    slot = limited.enter(1, terms, dollars=Decimal(5))
    assert refused(limited, terms, dollars=Decimal("1.000000001")).code == "dollars_reserved"
    slot.leave(dollars=Decimal("0.5"))
    limited.enter(1, terms, dollars=Decimal("5.5")).leave(dollars=Decimal("5.5"))
    found = refused(limited, terms, dollars=Decimal("0.000000001"))
    assert found.code == "insufficient_quota" and 0 < found.retry_after <= 31 * 86_400
    assert refused(limited, terms, dollars=Decimal(11)).status == 400


def test_a_new_month_begins_with_nothing_spent(monkeypatch: pytest.MonkeyPatch) -> None:
    limited, terms = Limits(), Terms(dollars_per_month=Decimal(1))
    limited.open(1, spent=Decimal(1))
    assert refused(limited, terms).code == "insufficient_quota"
    monkeypatch.setattr(limits, "this_month", lambda: (3000, 1))
    limited.enter(1, terms, dollars=Decimal(1))


def test_a_price_is_by_kind_of_token_or_by_time() -> None:
    used = Used(prompt_tokens=1000, cached_tokens=400, completion_tokens=50, reasoning_tokens=20, device_seconds=36.0)
    by_token = Price(input_dollars=Decimal("0.55"), cached_dollars=Decimal("0.14"), output_dollars=Decimal("2.19"))
    assert cost_of(by_token, used) == (600 * Decimal("0.55") + 400 * Decimal("0.14") + 50 * Decimal("2.19")) / 1_000_000
    assert cost_of(Price(device_hour_dollars=Decimal(3)), used) == Decimal("0.03")
    assert cost_of(None, used) == 0


@pytest.mark.parametrize(
    ("answer", "num_answers", "context", "tokens"),
    [(10, 1, 128, 60), (10, 3, 128, 80), (None, 1, 128, 128), (None, 2, 128, 256), (10, 1, 40, 50), (10, 1, None, 60)],
)
def test_what_a_request_could_use_is_bounded_by_what_it_asks_and_by_the_context(
    answer: int | None, num_answers: int, context: int | None, tokens: int
) -> None:
    route = Route(1, 1, "p", "m", "ready", "", 0, (), context=context)
    given = {"prompt": 50, "answer": answer, "num_answers": num_answers}
    assert most_of(Terms(tokens_per_minute=1), route, **given) == (tokens, 0)
    assert most_of(Terms(), route, **given) == (0, 0), "nothing is reserved where nothing limits it"


@pytest.mark.django_db(transaction=True)
def test_a_limited_key_says_how_long_an_answer_may_be_where_nothing_else_bounds_it(
    web: Served, alice: User, deployment: Deployment, fresh: Limits
) -> None:
    key = key_of(alice, tokens_per_minute=1000)
    answer = ask(web, key, chat(SIX_WORDS))
    assert answer.status_code == 400 and answer.json()["error"]["code"] == "missing_max_tokens"
    run = deployment.revisions.get().checkpoint.run
    run.config = {"model": {"max_position_embeddings": 500}}
    run.save()
    until(lambda: ask(web, key, chat(SIX_WORDS)).status_code == 200, seconds=5)
    answer = ask(web, key, chat(SIX_WORDS, max_tokens=2000))
    assert answer.status_code == 400 and answer.json()["error"]["param"] == "max_tokens" and "1000 a minute" in answer.text


@pytest.mark.django_db(transaction=True)
def test_what_was_spent_before_this_process_counts(web: Served, alice: User, deployment: Deployment, fresh: Limits) -> None:
    key, text = api_key_create(user=alice, name="k", scopes=("inference",), dollars_per_month=Decimal(5))
    row = UsageRecord(project=deployment.project, api_key=key, model_name="sums", cost_dollars=Decimal("4.999999999"))
    row.save()
    body = chat(SIX_WORDS, max_tokens=10)
    assert ask(web, text, body).status_code == 200, "a deployment without a price costs nothing"
    Price.objects.create(deployment=deployment, output_dollars=Decimal(1))
    answer = until(lambda: (got := ask(web, text, body)).status_code != 200 and got, seconds=5)
    assert answer.status_code == 429 and answer.json()["error"]["code"] == "insufficient_quota"
    assert "$4.99" in answer.json()["error"]["message"] and int(answer.headers["Retry-After"]) > 0


NUM_KEYS, PER_KEY = 10, 100
LEFT_EARLY = "count 100000 0.5"


@dataclass
class Asked:
    """A key of the crowd: how many of its requests are served, and what they say."""

    text: str
    key_id: int
    served: int
    says: str

    @property
    def streams(self) -> bool:
        """Half of the keys do, and those whose clients leave."""
        return self.says == LEFT_EARLY or self.key_id % 2 == 0

    @property
    def is_settled(self) -> bool:
        """Whether what its requests have used, less than was reserved for them, makes room for later ones."""
        return self.says == SIX_WORDS and self.served not in {37, 99, PER_KEY}


def crowd(user: User, deployment: Deployment) -> list[Asked]:
    """Ten keys with limits of every kind; where clients leave in mid-stream, they do it when all of their key have an answer."""
    price = Decimal(200) / 1_000_000
    Price.objects.create(deployment=deployment, input_dollars=200, output_dollars=200)
    used = PROMPT + ANSWER
    could, left = (views.ChatBody.model_validate(chat(says)).most_prompt_tokens + ANSWER for says in (SIX_WORDS, LEFT_EARLY))
    assert 31 * used * price + could * price <= Decimal("0.1") < 32 * used * price + could * price
    kinds: list[tuple[dict[str, Any], int, str]] = [
        ({"requests_per_minute": 37}, 37, SIX_WORDS),
        ({"requests_per_minute": 99}, 99, SIX_WORDS),
        ({"requests_per_minute": 100, "tokens_per_minute": 10**6}, 100, SIX_WORDS),
        ({}, 100, SIX_WORDS),
        ({"tokens_per_minute": 40 * used + could}, 41, SIX_WORDS),
        ({"tokens_per_minute": 41 * used + could - 1}, 41, SIX_WORDS),
        ({"concurrent_requests": 8}, 8, LEFT_EARLY),
        ({"concurrent_requests": 1}, 1, LEFT_EARLY),
        ({"dollars_per_month": Decimal("0.1")}, 32, SIX_WORDS),
        ({"tokens_per_minute": 6 * left - 1}, 5, LEFT_EARLY),
    ]
    made = []
    for number, (terms, served, says) in enumerate(kinds):
        key, text = api_key_create(user=user, name=f"k{number}", scopes=("inference",), **terms)
        made.append(Asked(text, key.pk, served, says))
    return made


@pytest.mark.django_db(transaction=True)
async def test_a_thousand_requests_at_once_are_served_to_the_limit_and_not_one_more(
    alice: User, deployment: Deployment, web: Served, fresh: Limits
) -> None:
    asked = await database_sync_to_async(crowd)(alice, deployment)
    served: dict[int, Counter[int]] = {one.key_id: Counter() for one in asked}
    async with aiohttp.ClientSession(web.url, connector=aiohttp.TCPConnector(limit=0)) as client:

        async def request(one: Asked) -> int:
            headers, counts = {"Authorization": f"Bearer {one.text}"}, served[one.key_id]
            body = chat(one.says, max_tokens=ANSWER, stream=one.streams)
            async with client.post("/v1/chat/completions", json=body, headers=headers) as answer:
                counts[answer.status] += 1
                if answer.status != 200:
                    assert answer.status == 429 and int(answer.headers["Retry-After"]) >= 1, await answer.text()
                elif one.says == LEFT_EARLY:
                    await _until(lambda: counts.total() == PER_KEY)
                    answer.close()
                elif not one.streams:
                    assert (await answer.json())["usage"]["completion_tokens"] == ANSWER
                else:
                    text = await answer.read()
                    assert text.count(b'"content":"') == ANSWER + 1 and text.endswith(b"data: [DONE]\n\n")
                return answer.status

        await asyncio.gather(*(request(one) for one in asked for _ in range(PER_KEY)))
        assert all(counts.total() == PER_KEY for counts in served.values())
        await _until(lambda: not any(fresh.running(one.key_id) for one in asked))
        for one in asked:
            while one.is_settled and await request(one) == 200:
                pass
    await _until(lambda: not any(fresh.running(one.key_id) for one in asked))
    rows = await database_sync_to_async(booked)()
    for one in asked:
        row, account = rows[one.key_id], fresh._accounts[one.key_id]
        assert served[one.key_id][200] == row["num"] == one.served, one
        assert row["statuses"] == {views.CLIENT_LEFT if one.says == LEFT_EARLY else 200}
        if one.says != LEFT_EARLY:
            assert (row["prompt"], row["completion"]) == (one.served * PROMPT, one.served * ANSWER)
        assert row["dollars"] == (row["prompt"] + row["completion"]) * Decimal(200) / 1_000_000
        assert (account.running, account.reserved, account.spent) == (0, 0, row["dollars"])
        assert account.tokens.total == row["prompt"] + row["completion"]


async def _until(condition: Any) -> None:
    async with asyncio.timeout(50):
        while not condition():
            await asyncio.sleep(0.01)


def booked() -> dict[int, dict[str, Any]]:
    """What the table says of each key."""
    while USAGE.flush():
        pass
    rows = UsageRecord.objects.order_by().values("api_key").annotate(
        num=Count("pk"), prompt=Sum("prompt_tokens"), completion=Sum("completion_tokens"), dollars=Sum("cost_dollars")
    )
    statuses: dict[int, set[int]] = {}
    for key, status in UsageRecord.objects.values_list("api_key", "status"):
        statuses.setdefault(key, set()).add(status)
    return {row["api_key"]: {**row, "statuses": statuses[row["api_key"]]} for row in rows}


@pytest.mark.django_db(transaction=True)
def test_a_request_that_runs_is_written_down_and_ended_when_its_process_is_gone(
    web: Served, alice: User, deployment: Deployment, fresh: Limits
) -> None:
    headers = {"Authorization": f"Bearer {key_of(alice)}"}
    with httpx.stream("POST", f"{web.url}/v1/chat/completions", json=chat(LEFT_EARLY, stream=True), headers=headers) as answer:
        lines = answer.iter_lines()
        while '"content":"0 "' not in next(lines):
            pass
        until(lambda: USAGE.flush() == 1)
        record = UsageRecord.objects.get()
        assert record.status == UsageRecord.RUNNING and record.prompt_tokens == PROMPT and record.completion_tokens >= 1
        assert reap_requests() == 0, "it runs"
        UsageRecord.objects.update(heartbeat_at=timezone.now() - timedelta(seconds=30))
        assert reap_requests() == 1
        assert UsageRecord.objects.get().status == UsageRecord.INTERRUPTED
    until(lambda: (USAGE.flush(), UsageRecord.objects.get().status)[1] == views.CLIENT_LEFT)
    ended = UsageRecord.objects.get()
    assert ended.request_id == record.request_id and ended.heartbeat_at is None and ended.device_seconds > 0


def test_the_shares_of_requests_are_the_time_that_the_replica_worked(monkeypatch: pytest.MonkeyPatch) -> None:
    from serving_app.gateway import routing

    at = [0.0]
    monkeypatch.setattr(routing.time, "monotonic", lambda: at[0])
    busy = routing.Busy()
    first = busy.enter(1)
    at[0] = 4.0
    second = busy.enter(1)
    at[0] = 10.0
    shares = [busy.leave(1) - first]
    at[0] = 11.0
    shares.append(busy.leave(1) - second)
    at[0] = 50.0
    third = busy.enter(1)
    at[0] = 52.0
    shares.append(busy.leave(1) - third)
    assert shares == [4 + 3, 3 + 1, 2] and sum(shares) == 11 + 2
    assert busy.running == {1: 0}
