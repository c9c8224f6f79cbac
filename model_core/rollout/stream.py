"""Continuous batching for serving: requests join and leave between decoding steps, each with its own way of sampling.

One thread calls `step`; `submit` and `cancel` may come from any other. Greedy tokens equal those of `Sampler`.
"""

from __future__ import annotations

import threading
from collections import deque
from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor

from model_core.errors import ConfigError, EngineError
from model_core.rollout.cache import LatentCache
from model_core.rollout.decoder import Decoder
from model_core.rollout.sampling import GREEDY_BELOW, Cut, draw, most_likely

MAX_QUEUED = 256
"""Requests that may wait for a row; one more is refused, so that nobody waits for minutes without knowing."""


@dataclass(frozen=True, slots=True)
class Token:
    """One token of an answer; `top` holds the likeliest ones at its place with their log-probabilities, when asked for.

    `finish` comes with the last: "stop", "length"; or, where `id` means nothing, "error" when decoding broke down and
    "abort" when the model was replaced meanwhile.
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
    last: int = 0
    generator: torch.Generator = field(init=False)


class StreamingSampler:
    """At most `num_rows` requests decode together, at most `max_queued` others wait in order.

    What is kept of the running rows is behind `_begin_rows`, `_read`, `_next_logits` and `_move`; a model of another
    family has its own.
    """

    def __init__(self, model: Any, *, eos_token_id: int, num_rows: int, max_queued: int = MAX_QUEUED) -> None:
        self.max_queued, self.num_rows = max_queued, num_rows
        self._broken = False
        self.model, self.eos = model.eval(), eos_token_id
        self.context: int = model.config.max_position_embeddings
        self.device = model.lm_head.weight.device
        self._begin_rows()
        self._running: list[Request] = []
        """The request of each row."""
        self._queue: deque[Request] = deque()
        self._wake = threading.Condition()

    @property
    def running(self) -> int:
        """Requests that decode."""
        return len(self._running)

    @property
    def queued(self) -> int:
        """Requests that wait for a row."""
        return len(self._queue)

    @property
    def fill(self) -> float:
        """Share of the cache's tokens in use."""
        used = sum(len(request.prompt) + request.num_tokens for request in list(self._running))
        return used / (self.num_rows * self.context)

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
            left = [*self._running, *self._queue]
            self._running = []
            self._queue.clear()
        _end(left, "error")

    def replace(self, model: Any) -> None:
        """Takes other weights of the same shape, between two steps and on the thread that makes them.

        Who decodes is aborted, for what is cached of them is by the old weights; who waits begins with the new ones.
        """
        left, self._running = self._running, []
        self.model = model.eval()
        self._begin_rows()
        _end(left, "abort")

    def nudge(self) -> None:
        """Ends a `wait`."""
        with self._wake:
            self._wake.notify()

    def wait(self, seconds: float) -> None:
        """Blocks until there may be work."""
        with self._wake:
            if not self._queue and not self._running:
                self._wake.wait(seconds)

    @torch.inference_mode()
    def step(self) -> bool:
        """Admits what fits, decodes one token for every running request; False when there was nothing to do."""
        self._release({request for request in self._running if request.cancelled})
        self._admit()
        if not self._running:
            return False
        tokens_BT = torch.tensor([[request.last] for request in self._running], device=self.device)
        self._take(list(self._running), self._next_logits(tokens_BT))
        return True

    def _admit(self) -> None:
        """Prefills waiting requests one by one, so that a long prompt pads no other."""
        while len(self._running) < self.num_rows and (request := self._next()) is not None:
            self._running.append(request)  # before anything can fail, so that it would hear of it
            self._take([request], self._read(torch.tensor([list(request.prompt)], device=self.device)))

    def _begin_rows(self) -> None:
        """Makes room for `num_rows` rows of the model's context."""
        self.decoder: Any = Decoder(self.model)
        self.cache: Any = LatentCache(self.model, self.num_rows, self.context)

    def _read(self, prompt_1T: Tensor) -> Tensor:
        """Logits 1V after a prompt, which becomes the last of the running rows."""
        length = prompt_1T.shape[1]
        alone = LatentCache(self.model, 1, length)
        hidden_1TD, _place = self.decoder.read(alone, prompt_1T, torch.tensor([length], device=self.device))
        row, first = torch.tensor([[len(self._running) - 1], [0]], device=self.device)
        self.cache.take(row, alone, first)
        logits_1V: Tensor = self.decoder.logits(hidden_1TD[:, -1])
        return logits_1V

    def _next_logits(self, tokens_B1: Tensor) -> Tensor:
        """Logits BV after one more token of each running row."""
        logits_BV: Tensor = self.decoder.step(self.cache, tokens_B1)[:, 0]
        return logits_BV

    def _move(self, rows: list[int]) -> None:
        """Leaves only `rows` of those that run, in this order."""
        moved = [(source, target) for target, source in enumerate(rows) if source != target]
        if moved:
            source_B, target_B = torch.tensor(moved, device=self.device).unbind(dim=1)
            self.cache.take(target_B, self.cache, source_B)
        self.cache.measure(len(rows))

    def _next(self) -> Request | None:
        with self._wake:
            return self._queue.popleft() if self._queue else None

    def _take(self, requests: list[Request], logits_BV: Tensor) -> None:
        """Draws each request's next token in its own way and hands it over."""
        tokens_B, logprobs_B = _chosen(requests, logits_BV)
        told = []
        for place, (request, token, logprob) in enumerate(zip(requests, tokens_B, logprobs_B, strict=True)):
            request.num_tokens += 1
            request.last = token
            finish = "stop" if token == self.eos else "length" if request.num_tokens >= request.max_new_tokens else None
            told.append((request, Token(token, logprob, finish, _top(logits_BV[place], request))))
        self._release({request for request, given in told if given.finish})
        for request, given in told:
            if not request.cancelled:
                request.sink(given)

    def _release(self, ended: set[Request]) -> None:
        """Takes out what has ended; the last rows move into the gaps."""
        rows = [row for row, request in enumerate(self._running) if request not in ended]
        if len(rows) == len(self._running):
            return
        self._move(rows)
        self._running = [self._running[row] for row in rows]


def _end(requests: list[Request], finish: str) -> None:
    """Tells those who still listen that no more comes."""
    for request in requests:
        if not request.cancelled:
            request.sink(Token(-1, 0.0, finish))


def _chosen(requests: list[Request], logits_BV: Tensor) -> tuple[list[int], list[float]]:
    """The next token of each request and its log-probability."""
    tokens_B, logprobs_B = most_likely(logits_BV)
    drawing = [place for place, request in enumerate(requests) if request.temperature >= GREEDY_BELOW]
    if drawing:
        tokens_B[drawing], logprobs_B[drawing] = _drawn([requests[place] for place in drawing], logits_BV[drawing])
    return tokens_B.tolist(), logprobs_B.tolist()


def _drawn(requests: list[Request], logits_BV: Tensor) -> tuple[Tensor, Tensor]:
    """Each with its own generator, so that its tokens do not depend on its company."""
    device = logits_BV.device

    def column(values: list[float]) -> Tensor:
        return torch.tensor(values, device=device)[:, None]

    uniform_B = torch.cat([torch.rand(1, dtype=torch.float64, device=device, generator=r.generator) for r in requests])
    cut = None
    if any(r.top_p < 1 or r.top_k > 0 or r.min_p > 0 for r in requests):
        top_p = column([r.top_p if r.top_p < 1 else float("inf") for r in requests])
        cut = Cut(top_p, column([r.top_k for r in requests]), column([r.min_p for r in requests]))
    return draw(logits_BV, uniform_B, temperature=column([r.temperature for r in requests]), cut=cut)


def _top(logits_V: Tensor, request: Request) -> tuple[tuple[int, float], ...]:
    """The likeliest tokens under the distribution that the request draws from, before any cut."""
    if not request.num_top:
        return ()
    scale = request.temperature if request.temperature >= GREEDY_BELOW else 1.0
    logprobs, ids = (logits_V.float() / scale).log_softmax(dim=-1).topk(min(request.num_top, len(logits_V)))
    return tuple(zip(ids.tolist(), logprobs.tolist(), strict=True))
