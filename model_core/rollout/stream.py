"""Continuous batching for serving: requests join and leave between decoding steps, each with its own way of sampling.

One thread calls `step`; `submit` and `cancel` may come from any other. Greedy tokens equal those of `Sampler`.
"""

from __future__ import annotations

import threading
from collections import deque
from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import dataclass, field

import torch
from torch import Tensor

from model_core.errors import ConfigError, EngineError
from model_core.model import Transformer
from model_core.rollout.cache import LatentCache, decode_step
from model_core.rollout.sampling import GREEDY_BELOW, draw

MAX_QUEUED = 256
"""Requests that may wait for a row; one more is refused, so that nobody waits for minutes without knowing."""


@dataclass(frozen=True, slots=True)
class Token:
    """One token of an answer; `top` holds the likeliest ones at its place with their log-probabilities, when asked for.

    `finish` comes with the last: "stop", "length", or "error" when decoding broke down and `id` means nothing.
    """

    id: int
    logprob: float
    finish: str | None = None
    top: tuple[tuple[int, float], ...] = ()


Sink = Callable[[Token], None]


@dataclass(eq=False)
class Request:
    """One completion in the making. `sink` is called by the decoding thread and must not block."""

    prompt: Sequence[int]
    max_new_tokens: int
    sink: Sink
    temperature: float = 1.0
    top_p: float = 1.0
    seed: int = 0
    top_k: int = 0
    min_p: float = 0.0
    num_top: int = 0
    """How many of the likeliest tokens are told with each token."""
    cancelled: bool = False
    num_tokens: int = 0
    generator: torch.Generator = field(init=False)


class StreamingSampler:
    """At most `num_rows` requests decode together, at most `max_queued` others wait in order."""

    def __init__(
        self, model: Transformer, *, eos_token_id: int, num_rows: int, max_queued: int = MAX_QUEUED
    ) -> None:
        self.max_queued = max_queued
        self._broken = False
        self.model, self.eos = model.eval(), eos_token_id
        self.context = model.config.max_position_embeddings
        self.cache = LatentCache(model, num_rows, self.context)
        self.device = model.lm_head.weight.device
        self._free = list(range(num_rows))[::-1]
        self._rows: dict[int, tuple[Request, int]] = {}
        self._queue: deque[Request] = deque()
        self._wake = threading.Condition()

    @property
    def running(self) -> int:
        """Requests that decode."""
        return len(self._rows)

    @property
    def queued(self) -> int:
        """Requests that wait for a row."""
        return len(self._queue)

    @property
    def fill(self) -> float:
        """Share of the cache's tokens in use."""
        used = sum(len(request.prompt) + request.num_tokens for request, _token in list(self._rows.values()))
        return used / (self.cache.num_rows * self.context)

    def submit(self, request: Request) -> None:
        """Queues a request.

        Raises ConfigError when it is empty or cannot fit the context, EngineError when too many wait or decoding broke down.
        """
        length = len(request.prompt)
        if not length:
            raise ConfigError("The prompt has no token.", field="prompt")
        if length + request.max_new_tokens > self.context:
            raise ConfigError(
                f"The prompt has {length} tokens and max_tokens is {request.max_new_tokens}, together more than the "
                f"model's context of {self.context} tokens. Shorten the prompt or ask for fewer.", field="max_tokens",
            )  # fmt: skip
        request.generator = torch.Generator(device=self.device).manual_seed(request.seed)
        with self._wake:
            if self._broken:
                raise EngineError("The engine has failed and is replaced. Ask again in a few seconds.")
            if len(self._queue) >= self.max_queued:
                raise EngineError(f"{len(self._queue)} requests wait already, as many as may. Ask again in a few seconds.")
            self._queue.append(request)
            self._wake.notify()

    def cancel(self, request: Request) -> None:
        """Ends a request without calling its sink again: at once when it waits, at the next step when it decodes."""
        request.cancelled = True
        with self._wake, suppress(ValueError):
            self._queue.remove(request)

    def fail(self) -> None:
        """Tells every request that decoding broke down, and takes no more; call it when `step` has raised."""
        with self._wake:
            self._broken = True
            left = [request for request, _token in self._rows.values()] + list(self._queue)
            self._rows.clear()
            self._queue.clear()
        for request in left:
            if not request.cancelled:
                request.sink(Token(-1, 0.0, "error"))

    def wait(self, seconds: float) -> None:
        """Blocks until there may be work."""
        with self._wake:
            if not self._queue and not self._rows:
                self._wake.wait(seconds)

    @torch.inference_mode()
    def step(self) -> bool:
        """Admits what fits, decodes one token for every running request; False when there was nothing to do."""
        self._drop_cancelled()
        self._admit()
        if not self._rows:
            return False
        rows = sorted(self._rows)
        rows_B = torch.tensor(rows, device=self.device)
        tokens_B = torch.tensor([self._rows[row][1] for row in rows], device=self.device)
        self._take(rows, decode_step(self.model, self.cache, rows_B, tokens_B))
        return True

    def _drop_cancelled(self) -> None:
        for row in [row for row, (request, _token) in self._rows.items() if request.cancelled]:
            self._release(row)

    def _admit(self) -> None:
        """Prefills waiting requests one by one, so that a long prompt pads no other."""
        while self._free and (request := self._next()) is not None:
            row = self._free.pop()
            self._rows[row] = (request, 0)
            prompt = torch.tensor([list(request.prompt)], device=self.device)
            hidden_BTD, latents = self.model.hidden(prompt)
            rows = torch.tensor([row], device=self.device)
            self.cache.fill(rows, latents, torch.tensor([prompt.shape[1]], device=self.device))
            self._take([row], self.model.lm_head(hidden_BTD[:, -1]))

    def _next(self) -> Request | None:
        with self._wake:
            return self._queue.popleft() if self._queue else None

    def _take(self, rows: list[int], logits_BV: Tensor) -> None:
        """Draws each row's next token in its own way and hands it to its request."""
        greedy_B = logits_BV.argmax(dim=-1).tolist()
        greedy_logprobs_B = logits_BV.float().log_softmax(dim=-1).max(dim=-1).values.tolist()
        for place, row in enumerate(rows):
            request, _last = self._rows[row]
            token, logprob, one_V = greedy_B[place], greedy_logprobs_B[place], logits_BV[place]
            if request.temperature >= GREEDY_BELOW:
                drawn, scored = draw(
                    one_V[None], temperature=request.temperature, top_p=request.top_p, top_k=request.top_k,
                    min_p=request.min_p, generator=request.generator,
                )  # fmt: skip
                token, logprob = int(drawn), float(scored)
            self._hand_over(row, request, token, logprob, _top(one_V, request))

    def _hand_over(
        self, row: int, request: Request, token: int, logprob: float, top: tuple[tuple[int, float], ...]
    ) -> None:
        request.num_tokens += 1
        finish = "stop" if token == self.eos else "length" if request.num_tokens >= request.max_new_tokens else None
        self._rows[row] = (request, token)
        if finish is not None:
            self._release(row)
        if not request.cancelled:
            request.sink(Token(token, logprob, finish, top))

    def _release(self, row: int) -> None:
        del self._rows[row]
        self._free.append(row)


def _top(logits_V: Tensor, request: Request) -> tuple[tuple[int, float], ...]:
    """The likeliest tokens under the distribution that the request draws from, before any cut."""
    if not request.num_top:
        return ()
    scale = request.temperature if request.temperature >= GREEDY_BELOW else 1.0
    logprobs, ids = (logits_V.float() / scale).log_softmax(dim=-1).topk(min(request.num_top, len(logits_V)))
    return tuple(zip(ids.tolist(), logprobs.tolist(), strict=True))
