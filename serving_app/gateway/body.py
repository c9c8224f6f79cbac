"""What a request may say. Known fields are checked and passed on, a few are accepted and dropped, others are refused.

Refusing what is not known keeps an engine's own switches (custom logit processors, adapters, session ids) out of reach.
"""

from __future__ import annotations

from typing import Annotated, Any, Literal, TypeVar

from pydantic import AfterValidator, BaseModel, ConfigDict, Field, ValidationError

from model_core.errors import ConfigError
from serving_app.gateway.errors import GatewayError
from serving_app.texts import storable

MAX_BYTES = 4 << 20
"""Longest body; far above any context of a model."""
STREAM_OPTIONS = {"include_usage": True, "continuous_usage_stats": True}
"""What engines are asked for in every stream, so that an answer that is left early is booked as it was."""
TEMPLATE_TOKENS = 32
"""What a chat template adds to a turn, and to the whole, at most."""
B = TypeVar("B", bound="Body")
Text = Annotated[str, AfterValidator(storable)]
Dropped = Annotated[Any, Field(exclude=True)]
"""Accepted because clients send it, without a meaning here; never passed on."""


class _Strict(BaseModel):
    model_config = ConfigDict(strict=True, extra="forbid", use_attribute_docstrings=True, allow_inf_nan=False)


class Sampling(_Strict):
    """How to draw tokens."""

    temperature: float | None = Field(None, ge=0, le=2)
    top_p: float | None = Field(None, gt=0, le=1)
    top_k: int | None = Field(None, ge=-1, le=1 << 20)
    min_p: float | None = Field(None, ge=0, le=1)
    max_tokens: int | None = Field(None, ge=1, le=1 << 20)
    seed: int | None = Field(None, ge=-(1 << 63), lt=1 << 63)
    stop: Text | Annotated[list[Text], Field(max_length=16)] | None = None
    presence_penalty: float | None = Field(None, ge=-2, le=2)
    frequency_penalty: float | None = Field(None, ge=-2, le=2)
    repetition_penalty: float | None = Field(None, gt=0, le=2)


class ChatParameters(Sampling):
    """The parameters of a conversation: how to draw tokens, and what the playground itself makes of an answer."""

    thinking_budget: int | None = Field(None, ge=1, le=1 << 20)
    """Tokens after which thinking is ended and the answer begins; any engine that goes on with an answer can do it."""
    token_logprobs: bool | None = None
    """Keeps each token with its probability and the likeliest others."""

    def sampling(self) -> dict[str, Any]:
        """What an engine is sent of them."""
        return self.model_dump(exclude_none=True, include=set(Sampling.model_fields))


class StreamOptions(_Strict):
    """What a stream carries besides the answer."""

    include_usage: bool = False
    continuous_usage_stats: bool = False
    """Counts so far in every event."""


class Body(Sampling):
    """What both endpoints take."""

    model: str = Field(min_length=1, max_length=200)
    n: int | None = Field(None, ge=1, le=16)
    stream: bool = False
    stream_options: StreamOptions | None = None
    user: Dropped = None
    metadata: Dropped = None
    store: Dropped = None
    service_tier: Dropped = None
    safety_identifier: Dropped = None
    prompt_cache_key: Dropped = None

    def upstream(self) -> dict[str, Any]:
        """The body for the engine: what was said, and usage counts in every event of a stream."""
        said = self.model_dump(exclude_none=True, exclude_unset=True)
        if self.stream:
            said["stream_options"] = dict(STREAM_OPTIONS)
        else:
            said.pop("stream_options", None)
        return said

    @property
    def most_prompt_tokens(self) -> int:
        """More than its prompt can have: a token is at least one byte."""
        raise NotImplementedError

    @property
    def most_answer_tokens(self) -> int | None:
        """Of one answer, where it was said."""
        return self.max_tokens

    @property
    def wants_usage(self) -> bool:
        """Whether the caller asked for the usage event of a stream."""
        return self.stream_options is not None and self.stream_options.include_usage

    @property
    def wants_counts(self) -> bool:
        """Whether the caller asked for the counts so far in every event."""
        return self.stream_options is not None and self.stream_options.continuous_usage_stats


class TextPart(_Strict):
    """A piece of text; other kinds of content are not understood by these models."""

    type: Literal["text"]
    text: str


class ChatMessage(_Strict):
    """One turn. The thinking of earlier turns is not sent back to the model."""

    role: Literal["system", "developer", "user", "assistant"]
    content: str | list[TextPart] | None = None
    name: Dropped = None
    reasoning_content: Dropped = None
    reasoning: Dropped = None
    refusal: Annotated[None, Field(exclude=True)] = None

    def upstream(self) -> dict[str, str]:
        content = self.content or ""
        text = content if isinstance(content, str) else "".join(part.text for part in content)
        return {"role": "system" if self.role == "developer" else self.role, "content": text}


class ChatBody(Body):
    """POST /v1/chat/completions."""

    messages: list[ChatMessage] = Field(min_length=1, max_length=4000)
    max_completion_tokens: int | None = Field(None, ge=1, le=1 << 20)
    logprobs: bool | None = None
    top_logprobs: int | None = Field(None, ge=0, le=20)

    def upstream(self) -> dict[str, Any]:
        said = super().upstream()
        if (limit := said.pop("max_completion_tokens", None)) is not None:
            said["max_tokens"] = limit
        said["messages"] = [message.upstream() for message in self.messages]
        return said

    @property
    def most_prompt_tokens(self) -> int:
        return most_prompt_tokens([message.upstream() for message in self.messages])

    @property
    def most_answer_tokens(self) -> int | None:
        return self.max_completion_tokens or self.max_tokens


class CompletionBody(Body):
    """POST /v1/completions."""

    prompt: str = Field(min_length=1)
    logprobs: int | None = Field(None, ge=0, le=20)
    echo: bool | None = None

    @property
    def most_prompt_tokens(self) -> int:
        return len(self.prompt.encode(errors="replace")) + TEMPLATE_TOKENS


def most_prompt_tokens(messages: list[dict[str, str]]) -> int:
    """More tokens than these turns can have once a chat template has put them together."""
    texts = sum(len(message["content"].encode(errors="replace")) for message in messages)
    return texts + TEMPLATE_TOKENS * (len(messages) + 1)


def parse(kind: type[B], data: bytes) -> B:
    """The checked body. Raises GatewayError 400 that names the parameter, 413 when it is too long."""
    if len(data) > MAX_BYTES:
        raise GatewayError(413, f"The body has {len(data)} bytes; at most {MAX_BYTES} are taken. Send less.")
    try:
        return kind.model_validate_json(data)
    except ValidationError as error:
        message, param = _sentence(error)
        unknown = error.errors()[0]["type"] == "extra_forbidden"
        code = "unknown_parameter" if unknown else "invalid_value"
        raise GatewayError(400, message, code=code, param=param or None) from None


def check_parameters(values: dict[str, Any]) -> dict[str, Any]:
    """Parameters of a conversation, checked. Raises ConfigError at the parameter."""
    try:
        return ChatParameters.model_validate(values).model_dump(exclude_none=True)
    except ValidationError as error:
        message, param = _sentence(error)
        raise ConfigError(message, field=param) from None


def _sentence(error: ValidationError) -> tuple[str, str]:
    """What is wrong with the first wrong field, and its name; our own sentences before those of pydantic."""
    found = error.errors(include_url=False)
    first = next((one for one in found if one["type"] == "value_error"), found[0])
    param = ".".join(str(part) for part in first["loc"] if not _is_branch(str(part))).encode(errors="replace").decode()
    if first["type"] == "json_invalid":
        return f"The body is not valid JSON: {first['msg'].removeprefix('Invalid JSON: ')}.", ""
    if first["type"] == "extra_forbidden":
        return f"The parameter “{param}” is not known here. Leave it out.", param
    if first["type"] == "missing":
        return f"The parameter “{param}” is missing.", param
    value = repr(first["input"])
    shown = value if len(value) < 80 else value[:77] + "…"
    said = first["msg"].removeprefix("Value error, ")
    return f"“{param}”: {said[:1].lower()}{said[1:]}; it is {shown}.", param


def _is_branch(part: str) -> bool:
    """Whether a part of a place in the body is only which of several allowed types was tried."""
    return part in {"str", "list[constrained-str]"} or part.startswith(("function-after[", "list[function-after"))
