"""Who completes a benchmark's prompts: texts that are given, an OpenAI-compatible endpoint, a checkpoint."""

from __future__ import annotations

import email.utils
import threading
import time
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor, as_completed
from itertools import groupby
from pathlib import Path
from typing import Any

import httpx

from model_core.errors import ConfigError
from model_core.evaluation.benchmarks._types import Benchmark, Problem
from model_core.evaluation.problems import digest, read_completions
from model_core.evaluation.results import Answered
from model_core.evaluation.running import Add

REQUEST_SECONDS = 600.0
MAX_ANSWER_BYTES = 64 << 20
"""An endpoint that sends more has no completion: the longest one is far below."""
MAX_TRIES = 5
MAX_WAIT_SECONDS = 30.0
FAILURES_BEFORE_ANY_ANSWER = 8
"""So many requests in vain before one was answered end the evaluation: it is the endpoint, not the problem."""
CHUNK_ROWS = 32
"""Rows of the data whose problems a checkpoint answers at once; fixed, so that a call that goes on samples alike."""
_AGAIN = {408, 409, 429, 500, 502, 503, 504}
_REFUSED = {401, 403, 404, 405}


class Given:
    """Completions from a JSONL file, one {"row", "completion"} a line."""

    is_kept = False

    def __init__(self, path: str | Path, *, num_rows: int) -> None:
        self._path, self._found = path, read_completions(path, num_rows)

    def settings(self) -> dict[str, Any]:
        return {"completions_sha256": digest(self._path)}

    def answer(self, problems: Sequence[Problem], benchmark: Benchmark, *, seed: int, done: frozenset[int], add: Add) -> None:
        """Problems without a completion are left out."""
        for problem in problems:
            if problem.row not in done and (texts := self._found.get(problem.row)):
                add(problem.row, [Answered(text) for text in texts])


class Endpoint:
    """An OpenAI-compatible endpoint, several requests at a time."""

    is_kept = True

    def __init__(self, url: str, *, model: str = "", api_key: str = "", num_requests: int = 8) -> None:
        """`url` ends in /v1 or is what stands before it. Raises ConfigError when nobody answers there or no model is served."""
        if num_requests < 1:
            raise ConfigError(f"num_requests is {num_requests}; send at least 1 at a time.", field="num_requests")
        base = url.rstrip("/").removesuffix("/chat/completions")
        self._url = base if base.endswith("/v1") else f"{base}/v1"
        self._headers = {"Authorization": f"Bearer {api_key}"} if api_key else {}
        try:
            with self._connected():
                self.model = model or self._first_model()
        except (httpx.HTTPError, httpx.InvalidURL) as error:
            raise ConfigError(f"{self._url} does not answer ({error}). Give the URL of an OpenAI-compatible endpoint.",
                              field="endpoint") from error
        self._num_requests = num_requests
        self._num_answered = self._num_failed = 0
        self._counting = threading.Lock()

    def settings(self) -> dict[str, Any]:
        return {"endpoint": self._url, "model": self.model}

    def answer(self, problems: Sequence[Problem], benchmark: Benchmark, *, seed: int, done: frozenset[int], add: Add) -> None:
        """Raises ConfigError when the endpoint refuses everyone or answers none of the first requests; one that fails
        otherwise after all tries is a failure."""
        with self._connected(), ThreadPoolExecutor(self._num_requests) as threads:
            asked = {
                threads.submit(self._samples, problem, benchmark, seed): problem for problem in problems if problem.row not in done
            }
            try:
                for finished in as_completed(asked):
                    add(asked[finished].row, finished.result())
            finally:
                for waiting in asked:
                    waiting.cancel()

    def _samples(self, problem: Problem, benchmark: Benchmark, seed: int) -> list[Answered]:
        config = benchmark.config
        body = {
            "model": self.model, "messages": [{"role": "user", "content": problem.prompt}], "temperature": config.temperature,
            "top_p": config.top_p, "max_tokens": config.max_new_tokens,
        }  # fmt: skip
        first = (seed * 1_000_003 + problem.row) * config.num_samples
        return [self._asked({**body, "seed": (first + number) % 2**31}) for number in range(config.num_samples)]

    def _asked(self, body: dict[str, Any]) -> Answered:
        """One sample. Raises ConfigError when nothing was answered yet and as much failed as a look at the URL is worth."""
        answered = self._tried(body)
        with self._counting:
            self._num_answered += answered.completion is not None
            self._num_failed += answered.completion is None
            in_vain = not self._num_answered and self._num_failed >= FAILURES_BEFORE_ANY_ANSWER
        if in_vain:
            raise ConfigError(f"{self._url} answered none of {self._num_failed} requests; the last one: {answered.failure}.",
                              field="endpoint")
        return answered

    def _tried(self, body: dict[str, Any]) -> Answered:
        failure = ""
        for attempt in range(MAX_TRIES):
            wait = min(MAX_WAIT_SECONDS, 0.5 * 2**attempt)
            try:
                response = self._sent(body)
            except httpx.HTTPError as error:
                failure = f"no answer: {type(error).__name__} {error}".strip()
            else:
                if response.is_success:
                    return _answered(response)
                failure = f"{response.status_code}: {_told(response)}"
                if response.status_code in _REFUSED:
                    raise ConfigError(f"{self._url} refuses the request with {failure}.", field="endpoint")
                if response.status_code not in _AGAIN:
                    break
                wait = _retry_after(response, wait)
            if attempt + 1 < MAX_TRIES:
                time.sleep(wait)
        return Answered(None, failure=f"the endpoint gave no completion ({failure})"[:400])

    def _sent(self, body: dict[str, Any]) -> httpx.Response:
        """The whole answer, within a size and a time: an endpoint may be anybody's. Raises httpx.HTTPError."""
        deadline, content = time.monotonic() + REQUEST_SECONDS, bytearray()
        with self._client.stream("POST", f"{self._url}/chat/completions", json=body) as response:
            for part in response.iter_bytes():
                content += part
                if len(content) > MAX_ANSWER_BYTES or time.monotonic() > deadline:
                    most = f"{MAX_ANSWER_BYTES >> 20} MiB or took over {REQUEST_SECONDS:.0f} seconds"
                    raise httpx.ReadError(f"the answer has more than {most}")
            kept = {name: value for name, value in response.headers.items() if name == "retry-after"}
            return httpx.Response(response.status_code, headers=kept, content=bytes(content))

    def _connected(self) -> httpx.Client:
        """The client for what is asked while it is entered."""
        self._client = httpx.Client(headers=self._headers, timeout=REQUEST_SECONDS)
        return self._client

    def _first_model(self) -> str:
        response = self._client.get(f"{self._url}/models", timeout=20.0)
        if not response.is_success:
            raise ConfigError(f"{self._url}/models answers {response.status_code}: {_told(response)}. Name the model, or mend the "
                              "URL or the key.", field="endpoint")
        try:
            return str(response.json()["data"][0]["id"])
        except (ValueError, KeyError, IndexError, TypeError) as error:
            raise ConfigError(f"{self._url}/models lists no model. Name the model.", field="model") from error


class Sampled:
    """A model in this process, by its sampler; `context` is the longest sequence it reads, in tokens."""

    def __init__(self, sampler: Any, tokenizer: Any, context: int) -> None:
        self._sampler, self._tokenizer, self._context = sampler, tokenizer, context

    def answer(self, problems: Sequence[Problem], benchmark: Benchmark, *, seed: int, done: frozenset[int], add: Add) -> None:
        """Chunk by chunk; a prompt that leaves no room for an answer is a failure.

        A chunk of which a row is missing is sampled as a whole, because what is drawn hangs on a prompt's place in it.
        """
        for chunk, group in groupby(problems, lambda problem: problem.row // CHUNK_ROWS):
            together = list(group)
            if all(problem.row in done for problem in together):
                continue
            for problem, answers in self._chunk(together, benchmark, seed * 1_000_003 + chunk):
                if problem.row not in done:
                    add(problem.row, answers)

    def _chunk(self, problems: list[Problem], benchmark: Benchmark, seed: int) -> list[tuple[Problem, list[Answered]]]:
        from model_core.data.tokenizer import decode, prompt_ids

        config = benchmark.config
        prompts = [prompt_ids(self._tokenizer, problem.prompt) for problem in problems]
        fits = [len(prompt) < self._context for prompt in prompts]
        short = [prompt for prompt, is_fitting in zip(prompts, fits, strict=True) if is_fitting]
        room = self._context - max(map(len, short), default=0)
        drawn = iter(self._sampler.generate(
            short, num_samples=config.num_samples, max_new_tokens=min(config.max_new_tokens, room),
            temperature=config.temperature, top_p=config.top_p, seed=seed,
        ) if short else [])
        found = []
        for problem, prompt, is_fitting in zip(problems, prompts, fits, strict=True):
            long = f"the prompt has {len(prompt)} tokens and the model's context {self._context}"
            answers = [Answered(decode(self._tokenizer, one.tokens), one.finish_reason) for one in next(drawn)] if is_fitting \
                else [Answered(None, failure=long)] * config.num_samples
            found.append((problem, answers))
        return found


class Checkpoint(Sampled):
    """A checkpoint of ours in this process, of a mixture of experts or of a distilled student."""

    is_kept = True

    def __init__(self, directory: str | Path) -> None:
        """Raises CheckpointError when it is incomplete or damaged."""
        import torch

        from model_core.training.families import family_of
        from model_core.training.students import load_answering

        device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
        start, self._directory = load_answering(directory), Path(directory)
        sampler = family_of(start.model_config).sampler(start.model.to(device), start.tokenizer)
        super().__init__(sampler, start.tokenizer, start.model_config.max_position_embeddings)

    def settings(self) -> dict[str, Any]:
        return {"checkpoint": digest(self._directory / "metadata.json")}


def _answered(response: httpx.Response) -> Answered:
    """The completion with its thinking, which some endpoints give apart; one without a text is a failure."""
    try:
        choice = response.json()["choices"][0]
        said, thought = choice["message"].get("content") or "", choice["message"].get("reasoning_content") or ""
        text = f"<think>{thought}</think>{said}" if thought else str(said)
        return Answered(text.encode("utf-8", "replace").decode(), str(choice.get("finish_reason") or ""))
    except (ValueError, KeyError, IndexError, TypeError, AttributeError) as error:
        return Answered(None, failure=f"the endpoint's answer is no chat completion ({type(error).__name__}: {error})"[:400])


def _told(response: httpx.Response) -> str:
    try:
        error = response.json()["error"]
        return str(error.get("message") if isinstance(error, dict) else error)[:200]
    except (ValueError, KeyError, TypeError):
        return response.text[:200].strip() or response.reason_phrase


def _retry_after(response: httpx.Response, otherwise: float) -> float:
    """Seconds that `Retry-After` asks for, as a number or as a date, within bounds."""
    value = response.headers.get("retry-after", "").strip()
    if value.replace(".", "", 1).isdecimal():
        return min(MAX_WAIT_SECONDS, float(value))
    date = email.utils.parsedate_tz(value)
    return min(MAX_WAIT_SECONDS, max(0.0, email.utils.mktime_tz(date) - time.time())) if date else otherwise
