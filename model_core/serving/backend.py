"""What stands behind the server: takes prompts, gives pieces of text. The real one runs our model, the fake one echoes.

Loading happens in a thread, so that the server answers from its first moment and says what it is doing.
"""

from __future__ import annotations

import asyncio
import logging
import os
import queue
import sys
import threading
import time
from collections import deque
from collections.abc import AsyncIterator, Sequence
from concurrent.futures import Future
from contextlib import aclosing, suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol

from model_core.errors import CheckpointError, ConfigError, EngineError, ModelCoreError
from model_core.serving.protocol import GIVES_UP

if TYPE_CHECKING:
    from model_core.rollout.stream import Request, Sink, StreamingSampler, Token

logger = logging.getLogger(__name__)
LAST_ANSWERS_SECONDS = 1.0
"""Between a failure and the end of the process: time to tell those who wait."""
RECENT = 128
MAX_LINE = 1000
"""Characters of a line of the log."""
RATE_SECONDS = 10.0
FIRST_WEIGHTS = "default"
"""Version of the weights that an engine started with, as SGLang calls it."""


@dataclass(frozen=True)
class Sampling:
    """How one completion is drawn."""

    max_tokens: int | None = None
    temperature: float = 1.0
    top_p: float = 1.0
    seed: int = 0
    top_k: int = 0
    min_p: float = 0.0
    num_top: int | None = None
    """How many of the likeliest tokens are told with each token; None asks for no log-probabilities."""


@dataclass(frozen=True)
class Scored:
    """One token as text with its log-probability, and the likeliest ones at its place."""

    text: str
    logprob: float
    top: tuple[tuple[str, float], ...] = ()


@dataclass(frozen=True)
class Piece:
    """Text that is new after `num_tokens` tokens, which may be none; `finish_reason` comes with the last."""

    text: str
    num_tokens: int
    finish_reason: str | None = None
    scored: tuple[Scored, ...] = ()


class Backend(Protocol):
    """What the server needs."""

    phase: str
    detail: str
    context: int
    broken: threading.Event
    """Set when it has failed and will not answer again."""

    def encode(self, messages: Sequence[dict[str, str]] | str, *, begun: str = "") -> list[int]:
        """A conversation or a bare text as tokens; `begun` is what the conversation's next answer begins with."""

    def generate(self, prompt: list[int], sampling: Sampling) -> AsyncIterator[Piece]:
        """Pieces until the end; closing the iterator cancels. Raises ModelCoreError, mostly before the first piece."""

    def metrics(self) -> dict[str, Any]:
        """The names of `model_core.serving.protocol.METRICS`."""

    def close(self) -> None:
        """Ends its thread."""


@dataclass
class Timings:
    """What was measured lately; written by the decoding thread."""

    ttft: deque[float] = field(default_factory=lambda: deque(maxlen=RECENT))
    gaps: deque[float] = field(default_factory=lambda: deque(maxlen=RECENT))
    times: deque[float] = field(default_factory=lambda: deque(maxlen=100_000))

    def summary(self) -> dict[str, float | None]:
        """Means of what is recent, None where nothing is."""
        now = time.monotonic()
        recent = sum(1 for at in list(self.times) if now - at < RATE_SECONDS)
        return {
            "ttft_seconds": _mean(self.ttft), "inter_token_seconds": _mean(self.gaps),
            "tokens_per_second": recent / RATE_SECONDS,
        }  # fmt: skip


def _mean(values: deque[float]) -> float | None:
    found = list(values)
    return sum(found) / len(found) if found else None


class ModelBackend:
    """A model, ours or a student, behind the continuous batch, in one decoding thread."""

    def __init__(self, model_dir: Path, *, num_rows: int, num_threads: int, device: str = "auto") -> None:
        self.phase, self.detail = "loading", "The model is loaded."
        self.model_dir, self.num_rows, self.num_threads, self.device = model_dir, num_rows, num_threads, device
        self.timings = Timings()
        self.context = 0
        self.weight_version = FIRST_WEIGHTS
        """Digest of the weights that were taken last, see `model_core.rollout.digest`."""
        self.broken = threading.Event()
        self._closing = False
        self._replacements: queue.SimpleQueue[tuple[Any, str, Future[None]]] = queue.SimpleQueue()
        self._thread = threading.Thread(target=self._run, name="decoding", daemon=True)
        self._thread.start()

    def encode(self, messages: Sequence[dict[str, str]] | str, *, begun: str = "") -> list[int]:
        """A conversation by the chat template; a bare text after `<|begin|>`."""
        from model_core.data.tokenizer import completion_ids, conversation_ids
        from model_core.published.marks import BOS

        if not isinstance(messages, str):
            more = completion_ids(self.tokenizer, begun)[:-1] if begun else []
            return [*conversation_ids(self.tokenizer, messages), *more]
        plain: list[int] = self.tokenizer(messages, add_special_tokens=False)["input_ids"]
        return [int(self.tokenizer.convert_tokens_to_ids(BOS)), *plain]

    async def generate(self, prompt: list[int], sampling: Sampling) -> AsyncIterator[Piece]:
        """See `Backend`. An answer without a limit may fill the context."""
        from model_core.serving.detokenizing import Detokenizer

        text, num_tokens = Detokenizer(self.tokenizer), 0
        async with aclosing(self.tokens(prompt, sampling)) as tokens:  # type: ignore[type-var]
            async for token in tokens:
                if token.finish == "abort":
                    raise EngineError("The engine has taken other weights meanwhile. Ask again.")
                num_tokens += 1
                ended = token.id == self.sampler.eos
                new = "" if ended else text.feed(token.id)
                scored = () if sampling.num_top is None or ended else (self._scored(token),)
                new += text.finish() if token.finish is not None else ""
                yield Piece(new, num_tokens, token.finish, scored)

    async def tokens(self, prompt: list[int], sampling: Sampling) -> AsyncIterator[Token]:
        """The tokens of one completion; the last one has a `finish`. Raises as `Backend.generate` does."""
        loop = asyncio.get_running_loop()
        arrived: asyncio.Queue[Token] = asyncio.Queue()

        def sink(token: Token) -> None:
            loop.call_soon_threadsafe(arrived.put_nowait, token)

        request = self._submit(prompt, sampling, sink)
        try:
            while True:
                token = await arrived.get()
                if token.finish == "error":
                    raise EngineError(self.detail)
                yield token
                if token.finish is not None:
                    return
        finally:
            self.sampler.cancel(request)

    async def complete(self, prompt: list[int], sampling: Sampling, made: list[Token]) -> None:
        """Appends the tokens of one completion to `made`: `tokens` for who waits for the last one only, at less cost a token."""
        loop = asyncio.get_running_loop()
        ended: asyncio.Future[str] = loop.create_future()

        def end(finish: str) -> None:
            if not ended.done():  # nobody waits any more
                ended.set_result(finish)

        def sink(token: Token) -> None:
            made.append(token)
            if token.finish is not None:
                loop.call_soon_threadsafe(end, token.finish)

        request = self._submit(prompt, sampling, sink)
        try:
            if await ended == "error":
                raise EngineError(self.detail)
        finally:
            self.sampler.cancel(request)

    def _submit(self, prompt: list[int], sampling: Sampling, sink: Sink) -> Request:
        """Asks for a completion whose tokens are timed and handed to `sink`."""
        from model_core.rollout.stream import Request

        began = last = time.monotonic()

        def timed(token: Token) -> None:
            nonlocal last
            now = time.monotonic()
            (self.timings.ttft if last == began else self.timings.gaps).append(now - last)
            self.timings.times.append(now)
            last = now
            sink(token)

        limit = max(1, self.context - len(prompt)) if sampling.max_tokens is None else sampling.max_tokens
        request = Request(
            prompt, limit, timed, sampling.temperature, sampling.top_p, sampling.seed, sampling.top_k, sampling.min_p,
            sampling.num_top or 0,
        )  # fmt: skip
        self.sampler.submit(request)
        return request

    async def update(self, directory: Path, *, version: str = "") -> None:
        """Serves the weights of `directory` from the next step on; `version` is the digest that they must have.

        Who decodes is aborted, who waits is answered by the new weights. Raises CheckpointError, and serves what it
        served, when they cannot be read, are of another shape or have another digest.
        """
        model, found = await asyncio.to_thread(self._read_other, directory)
        if version and version != found:
            raise CheckpointError(f"The weights of {directory} have the digest {found}, not {version}; write them again.")
        taken: Future[None] = Future()
        self._replacements.put((model, found, taken))
        self.sampler.nudge()
        if self.broken.is_set():
            raise EngineError(self.detail)
        await asyncio.shield(asyncio.wrap_future(taken))  # the decoding thread sets it, whoever still waits

    def _read_other(self, directory: Path) -> tuple[Any, str]:
        from model_core.rollout.digest import weights_digest
        from model_core.serving.loading import load_model

        model = load_model(directory)
        if model.config != self.sampler.model.config:
            raise CheckpointError(f"{directory} holds a model of another shape than the one that is served.")
        return model.to(self.sampler.device), weights_digest(model.state_dict())

    def _replace(self) -> None:
        """Takes weights that were asked for; on the decoding thread."""
        with suppress(queue.Empty):
            model, version, taken = self._replacements.get_nowait()
            self.sampler.replace(model)
            self.weight_version = version
            taken.set_result(None)
            say(f"New weights are served: {version}.")

    def _scored(self, token: Token) -> Scored:
        top = tuple((self._text(other), logprob) for other, logprob in token.top)
        return Scored(self._text(token.id), token.logprob, top)

    def _text(self, token: int) -> str:
        """A token as text; a special one, which is never shown in an answer, by its name."""
        from model_core.data.tokenizer import decode

        return decode(self.tokenizer, [token]) or str(self.tokenizer.convert_ids_to_tokens(token))

    def metrics(self) -> dict[str, Any]:
        """Counts of this moment, times of late."""
        sampler = getattr(self, "sampler", None)
        if sampler is None:
            return {}
        counts = {"running": sampler.running, "queued": sampler.queued, "kv_use": sampler.fill, "cache_hit_rate": None}
        return {**counts, **self.timings.summary()}

    def close(self) -> None:
        """Ends the decoding thread after its step."""
        self._closing = True
        self._thread.join(5)

    def _run(self) -> None:
        try:
            self._load()
            while not self._closing:
                self._replace()
                if not self.sampler.step():
                    self.sampler.wait(0.2)
        except Exception as error:  # noqa: BLE001 - whatever ends this thread ends the engine; those who wait must hear it.
            self._fail(error)

    def _fail(self, error: Exception) -> None:
        """Says why, in the log and to everybody who waits. A damaged checkpoint is not mended by another start."""
        known = isinstance(error, ModelCoreError)
        logger.error("The engine has failed.", exc_info=None if known else error)
        if known:
            logger.error("%s%s", GIVES_UP, " ".join(str(error).split()))
        self.detail = str(error) if known else f"The engine has failed: {type(error).__name__}: {error}"
        self.phase = "failed"
        if (sampler := getattr(self, "sampler", None)) is not None:
            sampler.fail()
        self.broken.set()
        with suppress(queue.Empty):
            while True:
                self._replacements.get_nowait()[2].set_exception(EngineError(self.detail))

    def _load(self) -> None:
        import torch
        from transformers import AutoTokenizer

        from model_core.serving.loading import load_model, stream_of

        torch.set_num_threads(self.num_threads)
        device = self.device if self.device != "auto" else ("cuda" if torch.cuda.is_available() else "cpu")
        where = f"on {device} with {self.num_threads} thread{'' if self.num_threads == 1 else 's'}"
        say(f"The model {self.model_dir} is loaded {where}; up to {self.num_rows} requests decode together.")
        began = time.monotonic()
        model = load_model(self.model_dir).to(device)
        try:
            self.tokenizer: Any = AutoTokenizer.from_pretrained(
                self.model_dir, local_files_only=True, trust_remote_code=False
            )
        except (OSError, ValueError) as error:
            raise CheckpointError(f"The tokenizer of {self.model_dir} cannot be read: {error}") from error
        self.sampler: StreamingSampler = stream_of(
            model, eos_token_id=int(self.tokenizer.eos_token_id), num_rows=self.num_rows
        )
        self.context = self.sampler.context
        self.phase, self.detail = "ready", ""
        size = sum(parameter.numel() for parameter in model.parameters())
        took = time.monotonic() - began
        say(f"Ready after {took:.1f} s: {size:,} parameters, a context of {self.context:,} tokens, {where}.")


class FakeBackend:
    """Says that it thought, then says the last words of the prompt again: for tests of what stands before an engine."""

    def __init__(self, *, pause: float = 0.0, context: int = 4096) -> None:
        self.phase, self.detail = "ready", ""
        self.pause, self.context = pause, context
        self.broken = threading.Event()
        self.running = 0

    def encode(self, messages: Sequence[dict[str, str]] | str, *, begun: str = "") -> list[int]:
        """One token a character of what was said last; an echo begins anew."""
        text = messages if isinstance(messages, str) else messages[-1]["content"]
        return [ord(letter) for letter in text]

    async def generate(self, prompt: list[int], sampling: Sampling) -> AsyncIterator[Piece]:
        """One word a token."""
        if len(prompt) + (sampling.max_tokens or 1) > self.context:
            raise ConfigError(f"The prompt has {len(prompt)} tokens, more than the context of {self.context}.", field="prompt")
        words = ["<think>", "I", " repeat.", "</think>", *_words("".join(map(chr, prompt)))]
        limit = len(words) if sampling.max_tokens is None else sampling.max_tokens
        self.running += 1
        try:
            for number, word in enumerate(words[:limit], start=1):
                await asyncio.sleep(self.pause)
                last = number == min(limit, len(words))
                reason = ("stop" if limit >= len(words) else "length") if last else None
                yield Piece(word, number, reason)
        finally:
            self.running -= 1

    def metrics(self) -> dict[str, Any]:
        """Only how many are running."""
        return {"running": self.running, "queued": 0}

    def close(self) -> None:
        """Nothing runs."""


def say(sentence: str) -> None:
    """One line of the engine's log, with its time; nothing in it can look like another line."""
    sys.stderr.write(f"{time.strftime('%Y-%m-%d %H:%M:%S', time.gmtime())} UTC  {' '.join(sentence.split())[:MAX_LINE]}\n")
    sys.stderr.flush()


def end_process_when_broken(backend: Backend) -> None:
    """Ends this process with code 1 a moment after the backend has failed, so that whoever started it starts another."""

    def watch() -> None:
        backend.broken.wait()
        time.sleep(LAST_ANSWERS_SECONDS)
        logging.shutdown()
        os._exit(1)

    threading.Thread(target=watch, name="end-when-broken", daemon=True).start()


def _words(text: str) -> list[str]:
    parts = text.split(" ")
    return [part if number == 0 else f" {part}" for number, part in enumerate(parts)] or [""]
