"""What a request to our engine may say, and how it is refused: OpenAI's fields, checked.

A setting that would change the answer and that this engine does not have is refused by name, an unknown one too; what
changes no answer is let through.
"""

from __future__ import annotations

import uuid
from typing import Any, Literal, TypeVar

from pydantic import BaseModel, ConfigDict, Field, ValidationError, field_validator
from starlette.responses import JSONResponse

from model_core.serving.backend import Sampling

MAX_BODY_BYTES = 8 << 20
MAX_STOPS = 16
MAX_TOP_LOGPROBS = 20
MAX_SHOWN = 80
"""Characters of a wrong value that are told."""
B = TypeVar("B", bound="Common")
M = TypeVar("M", bound=BaseModel)
HARMLESS = frozenset({
    "user", "metadata", "store", "service_tier", "safety_identifier", "prompt_cache_key", "prompt_cache_options",
    "prompt_cache_retention", "prediction", "parallel_tool_calls",
})  # fmt: skip
"""Accepted in any form: who asks, what is kept and how fast it comes, none of which changes an answer."""
CANNOT: dict[str, tuple[Any, ...]] = {
    "presence_penalty": (0,), "frequency_penalty": (0,), "repetition_penalty": (1,), "logit_bias": ({},), "best_of": (1,),
    "echo": (False,), "suffix": ("",), "min_tokens": (0,), "tools": ([],), "tool_choice": ("none", "auto"),
    "functions": ([],), "function_call": ("none", "auto"), "response_format": ({"type": "text"},), "ignore_eos": (False,),
    "stop_token_ids": ([],), "skip_special_tokens": (True,), "modalities": (["text"],), "reasoning_effort": ("medium",),
    "verbosity": ("medium",), "separate_reasoning": (True,), "stream_reasoning": (True,), "chat_template_kwargs": ({},),
    "add_generation_prompt": (True,),
}  # fmt: skip
"""What this engine cannot do, with the values that ask for nothing."""
OF_A_MESSAGE: dict[str, tuple[Any, ...]] = {"tool_calls": ([],), "annotations": ([],)}
"""The same of a message, as answers of others are sent back."""
HARMLESS_OF_A_MESSAGE = frozenset({"name", "reasoning_content", "reasoning"})
"""A model here sees no names, and not the thinking of earlier answers."""


class Refused(Exception):
    """An error with the sentence for the caller, in OpenAI's form."""

    def __init__(self, status: int, message: str, *, param: str = "", code: str | None = None) -> None:
        super().__init__(message)
        self.status, self.message, self.param, self.code = status, message, param, code

    def body(self) -> dict[str, Any]:
        """The JSON of the answer, and of the last event of a stream that breaks."""
        kind = "authentication_error" if self.status == 401 else "invalid_request_error"
        kind = "server_error" if self.status >= 500 else kind
        return {"error": {"message": self.message, "type": kind, "param": self.param or None, "code": self.code}}

    def response(self) -> JSONResponse:
        headers = {"Retry-After": "2"} if self.status == 503 else {}
        return JSONResponse(self.body(), status_code=self.status, headers=headers)


class Part(BaseModel):
    """A part of a message; these models read only text."""

    type: Literal["text"]
    text: str


class Message(BaseModel):
    model_config = ConfigDict(extra="allow")
    role: str
    content: list[Part] | None = None

    @field_validator("content", mode="before")
    @classmethod
    def _in_parts(cls, content: Any) -> Any:
        return [{"type": "text", "text": content}] if isinstance(content, str) else content

    def text(self) -> str:
        """Its text, parts joined."""
        return "".join(part.text for part in self.content or [])


class StreamOptions(BaseModel):
    model_config = ConfigDict(extra="forbid")
    include_usage: bool = False
    include_obfuscation: bool = False
    """Accepted: what hides the length of an event from who listens on the way is not sent."""
    continuous_usage_stats: bool = False
    """Counts so far in every event, so that who leaves early knows what was used."""


class Common(BaseModel):
    """What both kinds of completion understand."""

    model_config = ConfigDict(extra="allow")
    model: str
    max_tokens: int | None = Field(None, ge=1)
    max_completion_tokens: int | None = Field(None, ge=1)
    temperature: float = Field(1.0, ge=0, le=2)
    top_p: float = Field(1.0, gt=0, le=1)
    top_k: int | None = Field(None, ge=-1)
    min_p: float | None = Field(None, ge=0, le=1)
    seed: int | None = None
    n: int = Field(1, ge=1, le=16)
    stop: list[str] | None = Field(None, max_length=MAX_STOPS)
    stream: bool = False
    stream_options: StreamOptions | None = None

    @field_validator("stop", mode="before")
    @classmethod
    def _listed(cls, stop: Any) -> Any:
        return [stop] if isinstance(stop, str) else stop

    @property
    def limit(self) -> int | None:
        """Longest answer in tokens."""
        return self.max_completion_tokens or self.max_tokens

    @property
    def num_top(self) -> int | None:
        """How many of the likeliest tokens are told with each token; None when log-probabilities are not asked for."""
        return None

    def stops(self) -> list[str]:
        """Texts at which the answer ends."""
        return [text for text in self.stop or [] if text]

    def sampling(self, number: int) -> Sampling:
        """How completion `number` is drawn; without a seed every request is another."""
        seed = uuid.uuid4().int % 2**31 if self.seed is None else self.seed % 2**31
        return Sampling(
            self.limit, self.temperature, self.top_p, seed + number, max(0, self.top_k or 0), self.min_p or 0.0, self.num_top
        )


class ChatBody(Common):
    messages: list[Message] = Field(min_length=1)
    logprobs: bool | None = None
    top_logprobs: int | None = Field(None, ge=0, le=MAX_TOP_LOGPROBS)
    continue_final_message: bool | None = None
    """The last message is an answer that has begun, its thinking with its marks; only what follows is told, as in SGLang. What
    follows is cut into thinking and answer as a text of its own."""

    @property
    def begun(self) -> str:
        """What the answer begins with."""
        return self.messages[-1].text() if self.continue_final_message else ""

    def turns(self) -> list[dict[str, str]]:
        """The messages before the answer."""
        said = self.messages[:-1] if self.continue_final_message else self.messages
        return [{"role": message.role, "content": message.text()} for message in said]

    @property
    def num_top(self) -> int | None:
        return self.top_logprobs or 0 if self.logprobs else None


class TextBody(Common):
    prompt: str
    logprobs: int | None = Field(None, ge=0, le=MAX_TOP_LOGPROBS)

    @property
    def num_top(self) -> int | None:
        return self.logprobs


def parse(kind: type[B], data: bytes, *, served_name: str) -> B:
    """The checked body. Raises Refused, naming the parameter."""
    body = parse_bare(kind, data)
    if body.model != served_name:
        raise Refused(404, f"There is no model “{body.model}” here; this serves “{served_name}”.", param="model")
    _refuse_more(body, HARMLESS, CANNOT)
    for number, message in enumerate(body.messages if isinstance(body, ChatBody) else []):
        _refuse_more(message, HARMLESS_OF_A_MESSAGE, OF_A_MESSAGE, place=f"messages.{number}.")
    if isinstance(body, ChatBody) and body.continue_final_message and (body.messages[-1].role != "assistant" or not body.begun):
        sentence = "The last message is no answer that has begun; send one of the role “assistant” with its text."
        raise Refused(400, sentence, param="continue_final_message")
    if body.stream and body.n > 1:
        raise Refused(400, "A stream has one completion; ask for n=1 or without stream.", param="n")
    return body


def parse_bare(kind: type[M], data: bytes) -> M:
    """The body, checked by its own rules alone. Raises Refused, naming the parameter."""
    if len(data) > MAX_BODY_BYTES:
        raise Refused(413, f"The request is larger than {MAX_BODY_BYTES >> 20} MiB.")
    try:
        return kind.model_validate_json(data)
    except ValidationError as error:
        raise _refused(error) from None


def _refused(error: ValidationError) -> Refused:
    """The first field that is wrong, with what it is."""
    first = error.errors(include_url=False)[0]
    where = ".".join(map(str, first["loc"]))
    if not where:
        return Refused(400, f"{first['msg']}.")
    if first["type"] == "extra_forbidden":
        return _unknown(where)
    value = repr(first["input"])
    given = "" if first["type"] == "missing" else f"; it is {value if len(value) < MAX_SHOWN else value[:MAX_SHOWN] + '…'}"
    return Refused(400, f"{where}: {first['msg']}{given}.", param=where)


def _refuse_more(body: BaseModel, harmless: frozenset[str], cannot: dict[str, tuple[Any, ...]], *, place: str = "") -> None:
    """Raises Refused for a setting beside the known ones, unless it is harmless or asks for nothing."""
    for name, value in (body.model_extra or {}).items():
        if value is None or name in harmless or value in cannot.get(name, ()):
            continue
        if name not in cannot:
            raise _unknown(place + name)
        message = f"The built-in engine has no “{place}{name}”. Leave it out, or deploy on SGLang."
        raise Refused(400, message, param=place + name)


def _unknown(name: str) -> Refused:
    return Refused(400, f"The built-in engine does not know “{name}”. Leave it out.", param=name)
