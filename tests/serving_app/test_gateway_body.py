"""What the gateway takes beside what an engine of ours takes: nothing that one passes on and the other does not know."""

from __future__ import annotations

import json
from typing import Any

import pytest

from model_core.serving import bodies
from serving_app.gateway import body as gateway
from serving_app.gateway.errors import GatewayError

CHAT: dict[str, Any] = {"model": "sums", "messages": [{"role": "user", "content": "1"}]}
TEXT: dict[str, Any] = {"model": "sums", "prompt": "1"}
KINDS = [(gateway.ChatBody, bodies.ChatBody, CHAT), (gateway.CompletionBody, bodies.TextBody, TEXT)]
DROPPED = sorted(name for name, field in gateway.Body.model_fields.items() if field.exclude)


def chat(**values: Any) -> gateway.ChatBody:
    return gateway.parse(gateway.ChatBody, json.dumps({**CHAT, **values}).encode())


@pytest.mark.parametrize(("kind", "engine", "said"), KINDS)
def test_the_engine_knows_every_setting_that_is_passed_on(kind: Any, engine: Any, said: dict[str, Any]) -> None:
    """By its field, or as one that it refuses by name."""
    passed_on = {name for name, field in kind.model_fields.items() if not field.exclude}
    assert passed_on <= {*engine.model_fields, *bodies.CANNOT}
    asked = gateway.parse(kind, json.dumps({**said, "stream": True}).encode()).upstream()
    assert bodies.parse(engine, json.dumps(asked).encode(), served_name="sums").stream


@pytest.mark.parametrize("name", DROPPED)
def test_what_is_dropped_is_harmless_to_the_engine_too(name: str) -> None:
    assert name in bodies.HARMLESS and name not in chat(**{name: "x"}).upstream()


@pytest.mark.parametrize("name", ["name", "reasoning_content", "reasoning"])
def test_what_a_model_does_not_see_of_a_message_is_dropped(name: str) -> None:
    assert name in bodies.HARMLESS_OF_A_MESSAGE
    message = {"role": "assistant", "content": "2", name: "x"}
    assert chat(messages=[message]).upstream()["messages"] == [{"role": "assistant", "content": "2"}]


def test_a_refusal_is_a_text_that_the_model_would_not_see() -> None:
    assert chat(messages=[{"role": "assistant", "content": "2", "refusal": None}]).upstream()["messages"][0]["content"] == "2"
    with pytest.raises(GatewayError) as caught:
        chat(messages=[{"role": "assistant", "content": None, "refusal": "No."}])
    assert (caught.value.status, caught.value.param) == (400, "messages.0.refusal")
