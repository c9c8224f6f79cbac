"""SGLang's own endpoints, as far as a trainer needs them: /generate, /update_weights_from_disk, /abort_request, /model_info.

Tokens go in and come out, with their log-probabilities under the distribution that they were drawn from, before any cut.
Source: https://docs.sglang.ai/basic_usage/native_api.html. Deviations: a subset, and a field that is not known is refused;
`weight_version` of an update is the digest that the weights must have (`model_core.rollout.digest`), not any name; weights
can be replaced only where the engine has a key.
"""

from __future__ import annotations

import asyncio
import uuid
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from pydantic import BaseModel, ConfigDict, Field
from starlette.requests import Request
from starlette.responses import JSONResponse, Response
from starlette.routing import Route

from model_core.errors import ModelCoreError
from model_core.serving.answering import CLIENT_LEFT, ClientLeft, logged, refusal, unless_gone
from model_core.serving.backend import ModelBackend, Sampling
from model_core.serving.bodies import Refused, parse_bare

if TYPE_CHECKING:
    from model_core.rollout.stream import Token

MAX_COMPLETIONS = 4096
"""Of one request."""
MAX_TOKENS = 1 << 20
"""More than the context of any model; what really fits is known by the model."""
Ids = list[int]


class Strict(BaseModel):
    model_config = ConfigDict(extra="forbid", strict=True, allow_inf_nan=False)


class SamplingParams(Strict):
    """How a completion is drawn, by SGLang's names."""

    max_new_tokens: int = Field(128, ge=1, le=MAX_TOKENS)
    temperature: float = Field(1.0, ge=0)
    top_p: float = Field(1.0, gt=0, le=1)
    top_k: int = Field(-1, ge=-1)
    min_p: float = Field(0.0, ge=0, le=1)
    sampling_seed: int | None = Field(None, ge=0, lt=2**63)

    def sampling(self) -> Sampling:
        """Without a seed every completion is another."""
        seed = uuid.uuid4().int % 2**31 if self.sampling_seed is None else self.sampling_seed
        return Sampling(self.max_new_tokens, self.temperature, self.top_p, seed, max(0, self.top_k), self.min_p)


class GenerateBody(Strict):
    """One completion, or a list of them."""

    input_ids: Ids | list[Ids]
    sampling_params: SamplingParams | list[SamplingParams] = SamplingParams()
    rid: str | list[str] | None = None
    return_logprob: bool = False
    stream: Literal[False] = False


class UpdateBody(Strict):
    """Where the weights lie; they are served from the next step on and those who decode are aborted."""

    model_path: str = Field(min_length=1)
    weight_version: str = ""


class AbortBody(Strict):
    """One request by its id, or all."""

    rid: str = ""
    abort_all: bool = False


class Native:
    """The handlers over one backend; `check_key` raises Refused."""

    def __init__(self, backend: ModelBackend, check_key: Callable[[Request], None], *, has_key: bool) -> None:
        self.backend, self.check_key, self.has_key = backend, check_key, has_key
        self._updating = asyncio.Lock()
        self._running: dict[str, asyncio.Future[None]] = {}
        self._places = asyncio.Semaphore(backend.num_rows)
        """So many completions of trainers decode at a time, that those of others need not wait behind all of them."""

    def routes(self) -> list[Route]:
        """All of them ask for the key."""
        return [
            Route("/generate", self.generate, methods=["POST"]),
            Route("/update_weights_from_disk", self.update, methods=["POST"]),
            Route("/abort_request", self.abort, methods=["POST"]),
            Route("/model_info", self.model_info),
        ]

    async def generate(self, request: Request) -> Response:
        """Completions with their tokens; one that was aborted says so."""
        return await self._answer(request, self._generate)

    async def update(self, request: Request) -> Response:
        """Replaces the weights by those of a directory, or says why not and serves on what it served."""
        return await self._answer(request, self._update)

    async def abort(self, request: Request) -> Response:
        """Ends completions; who waits for them gets what there is."""
        return await self._answer(request, self._abort)

    async def model_info(self, request: Request) -> Response:
        """Which weights are served."""
        return await self._answer(request, self._model_info)

    async def _answer(self, request: Request, handler: Callable[[Request], Awaitable[Any]]) -> Response:
        try:
            self.check_key(request)
            if self.backend.phase != "ready":
                raise Refused(503, f"The model is not ready: {self.backend.detail}")
            return JSONResponse(await handler(request))
        except ClientLeft:
            return Response(status_code=CLIENT_LEFT)
        except Refused as refused:
            return logged(refused).response()
        except ModelCoreError as error:
            return logged(refusal(error)).response()

    async def _generate(self, request: Request) -> Any:
        body = parse_bare(GenerateBody, await request.body())
        is_one = not body.input_ids or isinstance(body.input_ids[0], int)
        prompts: Any = [body.input_ids] if is_one else body.input_ids
        params = _each(body.sampling_params, len(prompts), "sampling_params")
        rids = [uuid.uuid4().hex for _ in prompts] if body.rid is None else _each(body.rid, len(prompts), "rid")
        if len(set(rids)) < len(rids) or self._running.keys() & set(rids):
            raise Refused(400, "rid: each completion that is asked for needs an id of its own.", param="rid")
        for prompt, one in zip(prompts, params, strict=True):
            self._check(prompt, one)
        all_made = [Made(rid, prompt, one) for rid, prompt, one in zip(rids, prompts, params, strict=True)]
        await unless_gone(self._make(all_made), request)
        told = [made.told(self.backend.weight_version, with_logprobs=body.return_logprob) for made in all_made]
        return told[0] if is_one else told

    def _check(self, prompt: Ids, params: SamplingParams) -> None:
        num, context = self.backend.sampler.model.config.vocab_size, self.backend.context
        wrong = next((token for token in prompt if not 0 <= token < num), None)
        if wrong is not None:
            raise Refused(400, f"input_ids: the model has tokens from 0 to {num - 1}, and {wrong} is none.", param="input_ids")
        if not prompt or len(prompt) + params.max_new_tokens > context:
            raise Refused(400, f"input_ids: a prompt has {len(prompt)} tokens and max_new_tokens is {params.max_new_tokens}; "
                               f"together 2 to {context} are possible.", param="input_ids")

    async def _make(self, all_made: list[Made]) -> None:
        """Makes all completions. Raises what one of them raised, when all have ended; an aborted one raises nothing."""
        tasks = {made.rid: asyncio.ensure_future(self._make_one(made)) for made in all_made}
        self._running |= tasks
        try:
            ends = await asyncio.gather(*tasks.values(), return_exceptions=True)
        finally:
            for rid, task in tasks.items():
                task.cancel()
                del self._running[rid]
        for end in ends:
            if isinstance(end, Exception):
                raise end

    async def _make_one(self, made: Made) -> None:
        async with self._places:
            await self.backend.complete(made.prompt, made.params.sampling(), made.tokens)

    async def _update(self, request: Request) -> Any:
        body = parse_bare(UpdateBody, await request.body())
        if not self.has_key:
            raise Refused(403, "This engine was started without a key, so that its weights cannot be replaced.")
        async with self._updating:
            await self.backend.update(Path(body.model_path), version=body.weight_version)
        return {"success": True, "message": "The weights are served.", "weight_version": self.backend.weight_version}

    async def _abort(self, request: Request) -> Any:
        body = parse_bare(AbortBody, await request.body())
        for rid in list(self._running) if body.abort_all else [body.rid]:
            if (task := self._running.get(rid)) is not None:
                task.cancel()
        return {}

    async def _model_info(self, _request: Request) -> Any:
        model = self.backend.sampler.model.config
        return {
            "model_path": str(self.backend.model_dir), "is_generation": True, "weight_version": self.backend.weight_version,
            "model_type": model.model_type, "vocab_size": model.vocab_size,
        }  # fmt: skip


@dataclass
class Made:
    """One completion in the making."""

    rid: str
    prompt: Ids
    params: SamplingParams
    tokens: list[Token] = field(default_factory=list)

    def told(self, weight_version: str, *, with_logprobs: bool) -> dict[str, Any]:
        """As SGLang tells it. No completion is of two versions: those that run while weights are replaced are aborted."""
        finish = (self.tokens[-1].finish if self.tokens else None) or "abort"
        tokens = [token for token in self.tokens if token.finish != "abort"]
        reason: dict[str, Any] = {"type": finish}
        if finish == "stop":
            reason["matched"] = tokens[-1].id
        if finish == "length":
            reason["length"] = len(tokens)
        meta = {
            "id": self.rid, "finish_reason": reason, "prompt_tokens": len(self.prompt), "completion_tokens": len(tokens),
            "weight_version": weight_version,
        }  # fmt: skip
        if with_logprobs:
            meta["output_token_logprobs"] = [[token.logprob, token.id, None] for token in tokens]
        return {"output_ids": [token.id for token in tokens], "meta_info": meta}


def _each(given: Any, num: int, name: str) -> list[Any]:
    """One value for each of `num` completions, where one or a list was given."""
    values = given if isinstance(given, list) else [given] * num
    if len(values) != num or num > MAX_COMPLETIONS:
        raise Refused(400, f"{name}: there are {len(values)} for {num} completions, of which there may be {MAX_COMPLETIONS}.",
                      param=name)
    return values
