"""What a request may say: each field within its range, refusals by name in OpenAI's form, and draws that follow the seed."""

from __future__ import annotations

import json
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from model_core.serving.bodies import (
    CANNOT,
    HARMLESS,
    HARMLESS_OF_A_MESSAGE,
    MAX_BODY_BYTES,
    MAX_STOPS,
    OF_A_MESSAGE,
    ChatBody,
    Message,
    Refused,
    TextBody,
    parse,
)

CHAT: dict[str, Any] = {"model": "tiny", "messages": [{"role": "user", "content": "1"}]}
TEXT: dict[str, Any] = {"model": "tiny", "prompt": "1"}
ASKS_FOR_SOMETHING: dict[str, Any] = {
    "presence_penalty": 0.1, "frequency_penalty": -2, "repetition_penalty": 0.9, "logit_bias": {"7": -100}, "best_of": 2,
    "echo": True, "suffix": "end", "min_tokens": 1, "tools": [{"type": "function"}], "tool_choice": "required",
    "functions": [{"name": "f"}], "response_format": {"type": "json_object"}, "function_call": {"name": "f"}, "ignore_eos": True,
    "stop_token_ids": [7], "skip_special_tokens": False, "modalities": ["text", "audio"], "reasoning_effort": "high",
    "verbosity": "low", "separate_reasoning": False, "stream_reasoning": False, "chat_template_kwargs": {"thinking": False},
    "add_generation_prompt": False,
}  # fmt: skip


def chat(**values: Any) -> ChatBody:
    return parse(ChatBody, json.dumps({**CHAT, **values}).encode(), served_name="tiny")


def text(**values: Any) -> TextBody:
    return parse(TextBody, json.dumps({**TEXT, **values}).encode(), served_name="tiny")


def refused(**values: Any) -> Refused:
    with pytest.raises(Refused) as caught:
        chat(**values)
    return caught.value


@pytest.mark.parametrize(("name", "lowest", "highest", "outside"), [
    ("temperature", 0, 2, [-0.1, 2.1]), ("top_p", 1e-9, 1, [0, 1.1]), ("min_p", 0, 1, [-0.1, 1.1]), ("top_k", -1, 10**6, [-2]),
    ("n", 1, 16, [0, 17]), ("max_tokens", 1, 10**6, [0, -1]), ("max_completion_tokens", 1, 10**6, [0]),
    ("top_logprobs", 0, 20, [-1, 21]), ("seed", -(10**12), 10**12, ["x", 0.5]),
])  # fmt: skip
def test_each_number_has_its_range(name: str, lowest: float, highest: float, outside: list[Any]) -> None:
    for value in (lowest, highest):
        assert getattr(chat(**{name: value}), name) == value
    for value in outside:
        caught = refused(**{name: value})
        assert (caught.status, caught.param) == (400, name) and caught.message.startswith(f"{name}: ")


@pytest.mark.parametrize("data", [b"", b"{", b"[]", b"\xff", b'{"model": "tiny", "messages": [{"role": "user", "content": "\\ud800"}]}'])
def test_what_is_no_object_is_refused_with_a_sentence(data: bytes) -> None:
    with pytest.raises(Refused) as caught:
        parse(ChatBody, data, served_name="tiny")
    assert caught.value.status == 400 and caught.value.message.endswith(".")


@pytest.mark.parametrize(("values", "param"), [
    ({"messages": []}, "messages"), ({"messages": "hello"}, "messages"), ({"messages": [{"content": "1"}]}, "messages.0.role"),
    ({"stop": 5}, "stop"), ({"stop": ["a", 5]}, "stop.1"), ({"stream": "perhaps"}, "stream"), ({"stream_options": 3}, "stream_options"),
    ({"n": 2, "stream": True}, "n"), ({"model": None}, "model"),
])  # fmt: skip
def test_a_refusal_names_the_field(values: dict[str, Any], param: str) -> None:
    assert refused(**values).param == param


def test_the_size_is_looked_at_before_the_content() -> None:
    with pytest.raises(Refused) as caught:
        parse(ChatBody, b"[" * (MAX_BODY_BYTES + 1), served_name="tiny")
    assert caught.value.status == 413 and "8 MiB" in caught.value.message


def test_another_model_is_not_found() -> None:
    caught = refused(model="other")
    assert (caught.status, caught.param) == (404, "model") and "“other”" in caught.message and "“tiny”" in caught.message


@pytest.mark.parametrize("name", CANNOT)
def test_what_cannot_be_done_is_refused_unless_it_asks_for_nothing(name: str) -> None:
    for neutral in (*CANNOT[name], None):
        chat(**{name: neutral}), text(**{name: neutral})
    caught = refused(**{name: ASKS_FOR_SOMETHING[name]})
    assert (caught.status, caught.param) == (400, name) and f"no “{name}”" in caught.message and "SGLang" in caught.message
    with pytest.raises(Refused, match=f"no “{name}”"):
        text(**{name: ASKS_FOR_SOMETHING[name]})


@pytest.mark.parametrize("name", ["ignore_eoss", "regex", "lora_path", "audio", "web_search_options", "temprature"])
@pytest.mark.parametrize("value", [True, 0, "x", {}])
def test_a_setting_that_is_not_known_is_refused_and_null_asks_for_nothing(name: str, value: Any) -> None:
    caught = refused(**{name: value})
    assert (caught.status, caught.param) == (400, name) and caught.message == f"The built-in engine does not know “{name}”. Leave it out."
    chat(**{name: None}), text(**{name: None})
    with pytest.raises(Refused, match="does not know"):
        text(**{name: value})


@pytest.mark.parametrize("name", sorted(HARMLESS))
@pytest.mark.parametrize("value", ["x", True, {"a": 1}, None])
def test_what_changes_no_answer_is_let_through(name: str, value: Any) -> None:
    assert name not in CANNOT
    assert chat(seed=1, **{name: value}).sampling(0) == chat(seed=1).sampling(0)
    assert text(seed=1, **{name: value}).sampling(0) == text(seed=1).sampling(0)


def test_more_stop_texts_than_are_taken_are_refused() -> None:
    stops = [f"z{number}" for number in range(MAX_STOPS + 1)]
    caught = refused(stop=stops)
    assert (caught.status, caught.param) == (400, "stop") and f"at most {MAX_STOPS}" in caught.message and len(caught.message) < 250
    assert chat(stop=stops[:-1]).stops() == stops[:-1]


@pytest.mark.parametrize(("part", "param"), [
    ({"type": "image_url", "image_url": {"url": "data:"}}, "type"), ({"type": "input_audio"}, "type"), ({"type": "refusal", "refusal": "No."}, "type"),
    ({"type": "text"}, "text"), ({"type": "text", "text": None}, "text"), ({"text": "1"}, "type"),
])  # fmt: skip
def test_a_part_that_is_no_text_is_refused_at_its_place(part: dict[str, Any], param: str) -> None:
    parts = [{"type": "text", "text": "What is it?"}, part]
    caught = refused(messages=[{"role": "system", "content": "Be brief."}, {"role": "user", "content": parts}])
    assert (caught.status, caught.param) == (400, f"messages.1.content.1.{param}") and caught.message.startswith(f"{caught.param}: ")


@pytest.mark.parametrize(("more", "param"), [
    ({"tool_calls": [{"id": "1"}]}, "tool_calls"), ({"refusal": "No."}, "refusal"), ({"tool_call_id": "1"}, "tool_call_id"),
    ({"prefix": True}, "prefix"), ({"audio": {"id": "1"}}, "audio"), ({"content": 5}, "content"),
])  # fmt: skip
def test_what_a_message_says_besides_its_text_is_refused_at_its_place(more: dict[str, Any], param: str) -> None:
    caught = refused(messages=[{"role": "user", "content": "1"}, {"role": "assistant", "content": "2", **more}])
    assert (caught.status, caught.param) == (400, f"messages.1.{param}") and caught.message.endswith(".")


def test_an_answer_can_be_sent_back_as_clients_do() -> None:
    """With what APIs put beside the text of an answer, empty."""
    empty = {**dict.fromkeys([*HARMLESS_OF_A_MESSAGE, *OF_A_MESSAGE, "refusal", "audio", "function_call"]), **{n: v[0] for n, v in OF_A_MESSAGE.items()}}
    thought = {"role": "assistant", "content": "2", "name": "r1", "reasoning_content": "1+1=2", "reasoning": "1+1=2"}
    for message in ({"role": "assistant", "content": "2", **empty}, thought):
        assert chat(messages=[*CHAT["messages"], message, *CHAT["messages"]]).messages[1].text() == "2"


@pytest.mark.parametrize(("options", "param"), [({"include_usage": "perhaps"}, "include_usage"), ({"chunk_size": 5}, "chunk_size")])
def test_options_of_a_stream_are_known_ones(options: dict[str, Any], param: str) -> None:
    assert refused(stream=True, stream_options=options).param == f"stream_options.{param}"
    assert chat(stream=True, stream_options={"include_usage": True, "include_obfuscation": False}).stream_options is not None


@given(st.integers(-(2**40), 2**40), st.integers(0, 15))
@settings(deadline=None)
def test_completions_of_a_seed_are_drawn_with_the_seeds_after_it(seed: int, number: int) -> None:
    """So each can be asked for alone; and a generator takes every one of them."""
    drawn = chat(seed=seed).sampling(number).seed
    assert 0 <= drawn < 2**31 + 16 and drawn == chat(seed=seed % 2**31).sampling(0).seed + number


def test_without_a_seed_every_request_is_another() -> None:
    assert len({chat().sampling(0).seed for _ in range(20)}) == 20
    body = chat()
    assert body.sampling(0).seed != body.sampling(0).seed, "the body holds none"


def test_settings_reach_the_sampling() -> None:
    drawn = chat(max_tokens=7, temperature=0.5, top_p=0.9, seed=3, top_k=5, min_p=0.1, logprobs=True, top_logprobs=2).sampling(1)
    assert (drawn.max_tokens, drawn.temperature, drawn.top_p, drawn.seed) == (7, 0.5, 0.9, 4)
    assert (drawn.top_k, drawn.min_p, drawn.num_top) == (5, 0.1, 2)
    plain = chat().sampling(0)
    assert (plain.max_tokens, plain.temperature, plain.top_p, plain.top_k, plain.min_p, plain.num_top) == (None, 1, 1, 0, 0, None)
    assert chat(top_k=-1).sampling(0).top_k == 0, "-1 is how others say: no cut"


def test_the_newer_name_of_the_limit_counts_first() -> None:
    assert chat(max_tokens=5, max_completion_tokens=3).limit == 3 and chat(max_tokens=5).limit == 5 and chat().limit is None


@pytest.mark.parametrize(("values", "num_top"), [
    ({}, None), ({"logprobs": False, "top_logprobs": 3}, None), ({"logprobs": True}, 0), ({"logprobs": True, "top_logprobs": 3}, 3),
])  # fmt: skip
def test_logprobs_of_a_chat_are_asked_for_by_a_switch(values: dict[str, Any], num_top: int | None) -> None:
    assert chat(**values).num_top == num_top


def test_logprobs_of_a_text_are_asked_for_by_their_number() -> None:
    assert text().num_top is None and text(logprobs=0).num_top == 0 and text(logprobs=4).num_top == 4
    with pytest.raises(Refused, match="logprobs: "):
        text(logprobs=21)


@given(st.one_of(st.none(), st.text(max_size=3), st.lists(st.text(max_size=3), max_size=5)))
@settings(deadline=None)
def test_stop_texts_are_those_that_say_something(stop: str | list[str] | None) -> None:
    listed = [stop] if isinstance(stop, str) else stop or []
    assert ChatBody(**CHAT, stop=stop).stops() == [one for one in listed if one]


@given(st.lists(st.text(max_size=5), max_size=4))
@settings(deadline=None)
def test_parts_of_a_message_are_its_text(parts: list[str]) -> None:
    in_parts = Message(role="user", content=[{"type": "text", "text": part} for part in parts])
    assert in_parts.text() == Message(role="user", content="".join(parts)).text() == "".join(parts)
    assert Message(role="assistant", content=None).text() == "" == Message(role="assistant").text()


@pytest.mark.parametrize(("status", "kind"), [(400, "invalid_request_error"), (401, "authentication_error"),
                                              (404, "invalid_request_error"), (500, "server_error"), (503, "server_error")])
def test_a_refusal_has_openais_form(status: int, kind: str) -> None:
    answer = Refused(status, "No.", code="some_code").response()
    assert answer.status_code == status and ("retry-after" in answer.headers) == (status == 503)
    assert json.loads(bytes(answer.body)) == {"error": {"message": "No.", "type": kind, "param": None, "code": "some_code"}}


BEGUN = [*CHAT["messages"], {"role": "assistant", "content": "<think>1"}]


def test_an_answer_that_has_begun_goes_on() -> None:
    body = chat(messages=BEGUN, continue_final_message=True)
    assert body.begun == "<think>1" and body.turns() == CHAT["messages"]
    plain = chat(messages=BEGUN, continue_final_message=False)
    assert plain.begun == "" and plain.turns() == BEGUN


@pytest.mark.parametrize("messages", [CHAT["messages"], [*CHAT["messages"], {"role": "assistant", "content": ""}]])
def test_what_has_not_begun_cannot_go_on(messages: list[dict[str, str]]) -> None:
    assert refused(messages=messages, continue_final_message=True).param == "continue_final_message"
