"""What a request to our engine may say, and how it is refused: OpenAI's fields, checked.

A setting that would change the answer and that this engine does not have is refused by name; what changes nothing is let
through.
"""

from __future__ import annotations

import uuid
from typing import Any, TypeVar

from pydantic import BaseModel, ConfigDict, Field, ValidationError
from starlette.responses import JSONResponse

from model_core.serving.backend import Sampling

MAX_BODY_BYTES = 8 << 20
MAX_STOPS = 16
MAX_TOP_LOGPROBS = 20
B = TypeVar("B", bound="Common")
CANNOT: dict[str, tuple[Any, ...]] = {
    "presence_penalty": (0,), "frequency_penalty": (0,), "repetition_penalty": (1,), "logit_bias": ({},), "best_of": (1,),
    "echo": (False,), "suffix": ("",), "min_tokens": (0,), "tools": ([],), "tool_choice": ("none", "auto"),
    "functions": ([],), "response_format": ({"type": "text"},),
}  # fmt: skip
"""What this engine cannot do, with the values that ask for nothing."""


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
    """A part of a message; only text is read."""

    type: str
    text: str = ""


class Message(BaseModel):
    role: str
    content: str | list[Part] | None = ""

    def text(self) -> str:
        """Its text, parts joined."""
        if isinstance(self.content, list):
            return "".join(part.text for part in self.content)
        return self.content or ""


class StreamOptions(BaseModel):
    include_usage: bool = False
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
    stop: str | list[str] | None = None
    stream: bool = False
    stream_options: StreamOptions | None = None

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
        given = [self.stop] if isinstance(self.stop, str) else self.stop or []
        return [text for text in given if text][:MAX_STOPS]

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
    if len(data) > MAX_BODY_BYTES:
        raise Refused(413, f"The request is larger than {MAX_BODY_BYTES >> 20} MiB.")
    try:
        body = kind.model_validate_json(data)
    except ValidationError as error:
        first = error.errors()[0]
        where = ".".join(map(str, first["loc"]))
        raise Refused(400, f"{where}: {first['msg']}." if where else f"{first['msg']}.", param=where) from None
    if body.model != served_name:
        raise Refused(404, f"There is no model “{body.model}” here; this serves “{served_name}”.", param="model")
    for name, value in (body.model_extra or {}).items():
        if value is not None and value not in CANNOT.get(name, (value,)):
            raise Refused(400, f"The built-in engine has no “{name}”. Leave it out, or deploy on SGLang.", param=name)
    if body.stream and body.n > 1:
        raise Refused(400, "A stream has one completion; ask for n=1 or without stream.", param="n")
    return body
