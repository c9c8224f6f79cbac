"""What stands behind the server: takes prompts, gives pieces of text. The real one runs our model, the fake one echoes.

Loading happens in a thread, so that the server answers from its first moment and says what it is doing.
"""

from __future__ import annotations

import asyncio
import threading
import time
from collections import deque
from collections.abc import AsyncIterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol

from model_core.errors import ModelCoreError

if TYPE_CHECKING:
    from model_core.rollout.stream import StreamingSampler

RECENT = 128
RATE_SECONDS = 10.0


@dataclass(frozen=True)
class Sampling:
    """How one completion is drawn."""

    max_tokens: int | None = None
    temperature: float = 1.0
    top_p: float = 1.0
    seed: int = 0


@dataclass(frozen=True)
class Piece:
    """Text that is new after `num_tokens` tokens; `finish_reason` comes with the last."""

    text: str
    num_tokens: int
    finish_reason: str | None = None


class Backend(Protocol):
    """What the server needs."""

    phase: str
    detail: str

    def encode(self, messages: Sequence[dict[str, str]] | str) -> list[int]:
        """A conversation or a bare text as tokens."""

    def generate(self, prompt: list[int], sampling: Sampling) -> AsyncIterator[Piece]:
        """Pieces until the end; closing the iterator cancels. Raises ModelCoreError before the first piece."""

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
    """Our model behind the continuous batch, in one decoding thread."""

    def __init__(self, model_dir: Path, *, num_rows: int, num_threads: int, device: str = "auto") -> None:
        self.phase, self.detail = "loading", "The model is loaded."
        self.model_dir, self.num_rows, self.num_threads, self.device = model_dir, num_rows, num_threads, device
        self.timings = Timings()
        self.error: BaseException | None = None
        self._closing = False
        self._thread = threading.Thread(target=self._run, name="decoding", daemon=True)
        self._thread.start()

    def encode(self, messages: Sequence[dict[str, str]] | str) -> list[int]:
        """A conversation by the chat template; a bare text after `<|begin|>`."""
        from model_core.data.tokenizer import BOS, conversation_ids

        if not isinstance(messages, str):
            return conversation_ids(self.tokenizer, messages)
        plain: list[int] = self.tokenizer(messages, add_special_tokens=False)["input_ids"]
        return [int(self.tokenizer.convert_tokens_to_ids(BOS)), *plain]

    async def generate(self, prompt: list[int], sampling: Sampling) -> AsyncIterator[Piece]:
        """See `Backend`. An answer without a limit may fill the context."""
        from model_core.rollout.stream import Request
        from model_core.serving.detokenizing import Detokenizer

        loop, arrived = asyncio.get_running_loop(), asyncio.Queue[tuple[int, str | None]]()
        room = self.sampler.context - len(prompt)
        began = last = time.monotonic()

        def sink(token: int, _logprob: float, finish: str | None) -> None:
            nonlocal last
            now = time.monotonic()
            (self.timings.ttft if last == began else self.timings.gaps).append(now - last)
            self.timings.times.append(now)
            last = now
            loop.call_soon_threadsafe(arrived.put_nowait, (token, finish))

        limit = max(1, room) if sampling.max_tokens is None else sampling.max_tokens
        request = Request(prompt, limit, sink, sampling.temperature, sampling.top_p, sampling.seed)
        self.sampler.submit(request)
        text, num_tokens = Detokenizer(self.tokenizer), 0
        try:
            while True:
                token, finish = await arrived.get()
                num_tokens += 1
                new = text.feed(token) if token != self.sampler.eos else ""
                if finish is not None:
                    yield Piece(new + text.finish(), num_tokens, finish)
                    return
                if new:
                    yield Piece(new, num_tokens)
        finally:
            self.sampler.cancel(request)

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
        except (ModelCoreError, OSError, RuntimeError, ValueError) as error:
            self.phase, self.detail, self.error = "failed", str(error), error
            return
        while not self._closing:
            if not self.sampler.step():
                self.sampler.wait(0.2)

    def _load(self) -> None:
        import torch
        from transformers import AutoTokenizer

        from model_core.model import load_pretrained
        from model_core.rollout.stream import StreamingSampler

        torch.set_num_threads(self.num_threads)
        device = self.device if self.device != "auto" else ("cuda" if torch.cuda.is_available() else "cpu")
        self.tokenizer: Any = AutoTokenizer.from_pretrained(self.model_dir, local_files_only=True, trust_remote_code=False)
        model = load_pretrained(self.model_dir).to(device)
        self.sampler: StreamingSampler = StreamingSampler(
            model, eos_token_id=int(self.tokenizer.eos_token_id), num_rows=self.num_rows
        )
        self.phase, self.detail = "ready", ""


class FakeBackend:
    """Says that it thought, then says the last words of the prompt again: for tests of what stands before an engine."""

    def __init__(self, *, pause: float = 0.0, context: int = 4096) -> None:
        self.phase, self.detail, self.error = "ready", "", None
        self.pause, self.context = pause, context
        self.running = 0

    def encode(self, messages: Sequence[dict[str, str]] | str) -> list[int]:
        """One token a character of what was said last."""
        text = messages if isinstance(messages, str) else messages[-1]["content"]
        return [ord(letter) for letter in text]

    async def generate(self, prompt: list[int], sampling: Sampling) -> AsyncIterator[Piece]:
        """One word a token."""
        if len(prompt) + (sampling.max_tokens or 1) > self.context:
            from model_core.errors import ConfigError

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


def _words(text: str) -> list[str]:
    parts = text.split(" ")
    return [part if number == 0 else f" {part}" for number, part in enumerate(parts)] or [""]
