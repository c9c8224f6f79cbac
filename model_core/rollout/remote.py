"""Samples completions on an engine over HTTP: SGLang's native endpoints, which our built-in engine has too.

`RemoteEngine` is `Sampler.generate` for weights that the engine was given (see `remote_weights`), with tokens and
log-probabilities. What an engine cannot finish is an aborted completion, never a short one.
Source: https://docs.sglang.ai/basic_usage/native_api.html.
"""

from __future__ import annotations

import asyncio
import math
import uuid
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import httpx

from model_core.errors import ConfigError, EngineError
from model_core.rollout.batch import Completion

ENGINES = "R1_ROLLOUT_ENGINES"
"""Environment of the trainer: `URL=KEY` of each engine that runs of this machine may update, with blanks between."""
FIELD = "phase_config.rollout_url"
MAX_TRIES = 6
"""Of a request that never began: nobody listened, or the engine was full. With the pauses between them half a minute."""
FIRST_PAUSE_SECONDS, MAX_PAUSE_SECONDS = 0.5, 15.0
ASK_SECONDS = 20.0
"""For requests that need no work of the engine."""
LOOK_SECONDS = 0.2
"""Between looks at whether the run is to end."""
_FULL = {429, 503}


def key_of(url: str, environment: Mapping[str, str]) -> str:
    """The key of an engine. Raises ConfigError for one that whoever runs this machine has not named."""
    named = dict(entry.partition("=")[::2] for entry in environment.get(ENGINES, "").split())
    if url not in named:
        raise ConfigError(
            f"{url or 'No engine'} is not among the engines that a run of this machine may update. Whoever runs the machine names "
            f"them in the trainer's environment: {ENGINES}=URL=KEY.", field=FIELD,
        )  # fmt: skip
    return named[url]


class RemoteEngine:
    """One engine that this run samples on and gives its weights to."""

    def __init__(
        self, url: str, key: str, *, num_requests: int = 16, seconds: float = 600.0, stop_reason: Callable[[], str] = str
    ) -> None:
        """`stop_reason` is asked while completions are waited for; any text but none ends the waiting."""
        self.url, self.num_requests, self.seconds, self._stop_reason = url, num_requests, seconds, stop_reason
        self._headers = {"Authorization": f"Bearer {key}"}
        self.version = ""
        """Of the weights that completions must come from."""

    def check(self) -> None:
        """Raises ConfigError when nobody answers there, or somebody who takes no weights."""
        try:
            answer = self._call("GET", "/model_info", seconds=ASK_SECONDS)
            answer.json()["weight_version"]
        except (EngineError, ValueError, KeyError, TypeError) as error:
            told = error.message if isinstance(error, EngineError) else "its /model_info is not that of SGLang"
            raise ConfigError(f"No rollouts from {self.url}: {told}.", field=FIELD) from error

    def update(self, directory: Path, version: str) -> str | None:
        """Has the engine serve the weights of `directory`. Returns the version that it found itself, where it tells one."""
        answer = self._call("POST", "/update_weights_from_disk", {"model_path": str(directory), "weight_version": version})
        told: dict[str, Any] = answer.json()
        if not told.get("success"):
            raise EngineError(f"the engine did not take the weights: {str(told.get('message'))[:300]}")
        self.version = version
        return told.get("weight_version")

    def checksum(self) -> str | None:
        """SGLang's own checksum of what it has in memory; None from an engine that has none."""
        try:
            return str(self._call("POST", "/weights_checker", {"action": "checksum"}).json()["per_engine_checksum"])
        except (EngineError, ValueError, KeyError, TypeError):
            return None

    def generate(
        self, prompts: Sequence[Sequence[int]], *, num_samples: int = 1, max_new_tokens: int, temperature: float = 1.0,
        top_p: float = 1.0, seed: int = 0,
    ) -> list[list[Completion]]:  # fmt: skip
        """`num_samples` completions for each prompt; those that the engine did not finish have `finish_reason` "abort".

        Each has a seed of its own, which the built-in engine heeds and SGLang does with deterministic inference only. Raises
        EngineError when none was finished, one is of other weights, the engine refuses, or the run is to end.
        """
        if not prompts:
            return []
        first = seed * 1_000_003
        bodies = [
            {
                "input_ids": [list(prompt)] * num_samples, "rid": [uuid.uuid4().hex for _ in range(num_samples)],
                "sampling_params": [
                    {"max_new_tokens": max_new_tokens, "temperature": temperature, "top_p": top_p,
                     "sampling_seed": (first + place * num_samples + sample) % 2**31}
                    for sample in range(num_samples)
                ],
                "return_logprob": True,
            }
            for place, prompt in enumerate(prompts)
        ]  # fmt: skip
        return asyncio.run(_Asking(self, bodies).all())

    def stop_reason(self) -> str:
        """Why the run is to end; empty while it is not."""
        return self._stop_reason()

    def client(self) -> httpx.AsyncClient:
        """For the requests of one `generate`."""
        limits = httpx.Limits(max_connections=self.num_requests + 8)
        return httpx.AsyncClient(
            base_url=self.url, headers=self._headers, timeout=httpx.Timeout(self.seconds, connect=ASK_SECONDS), limits=limits,
            trust_env=False,
        )  # fmt: skip

    def _call(self, method: str, path: str, body: Any = None, *, seconds: float | None = None) -> httpx.Response:
        """One request outside of sampling. Raises EngineError, whose words begin small and have no stop."""
        try:
            answer = httpx.request(method, f"{self.url}{path}", json=body, headers=self._headers, timeout=seconds or self.seconds,
                                   trust_env=False)
        except (httpx.HTTPError, httpx.InvalidURL) as error:
            raise EngineError(f"{path} does not answer ({type(error).__name__} {error})".replace(" )", ")")) from error
        if not answer.is_success:
            raise EngineError(f"{path} answers {answer.status_code}: {_told(answer)}")
        return answer


class _Asking:
    """The requests of one `generate`, one a prompt."""

    def __init__(self, engine: RemoteEngine, bodies: list[dict[str, Any]]) -> None:
        self.engine, self.bodies = engine, bodies
        self.failure = ""
        self.running: set[str] = set()
        """Ids of completions that the engine may be working on."""

    async def all(self) -> list[list[Completion]]:
        """Every group, in order."""
        places = asyncio.Semaphore(self.engine.num_requests)
        async with self.engine.client() as client:
            tasks = [asyncio.ensure_future(self._group(client, body, places)) for body in self.bodies]
            try:
                await self._wait(tasks)
            finally:
                for task in tasks:
                    task.cancel()
                await asyncio.gather(*tasks, return_exceptions=True)
                await self._abort(client, self.running)
        groups = [task.result() for task in tasks]
        if all(one.finish_reason == "abort" for group in groups for one in group):
            num = sum(map(len, groups))
            raise EngineError(f"none of {num} completions was finished; the last one: {self.failure or 'the engine aborted it'}")
        return groups

    async def _wait(self, tasks: Sequence[asyncio.Future[list[Completion]]]) -> None:
        """Raises what one of them raised, at once, and EngineError when the run is to end."""
        pending: set[asyncio.Future[list[Completion]]] = set(tasks)
        while pending:
            done, pending = await asyncio.wait(pending, timeout=LOOK_SECONDS, return_when=asyncio.FIRST_EXCEPTION)
            for task in done:
                task.result()
            if pending and (reason := self.engine.stop_reason()):
                raise EngineError(reason)

    async def _group(self, client: httpx.AsyncClient, body: dict[str, Any], places: asyncio.Semaphore) -> list[Completion]:
        async with places:
            answer = await self._begun(client, body)
        if answer is None:
            return [Completion(finish_reason="abort") for _ in body["rid"]]
        if not answer.is_success:
            raise EngineError(f"/generate answers {answer.status_code}: {_told(answer)}")
        found = _items(answer)
        if len(found) != len(body["rid"]):
            raise EngineError(f"/generate gave {len(found)} completions for {len(body['rid'])}")
        return [_completion(item, self.engine.version) for item in found]

    async def _begun(self, client: httpx.AsyncClient, body: dict[str, Any]) -> httpx.Response | None:
        """The answer; None when a request that may have begun was not finished, or all tries were in vain."""
        pause = FIRST_PAUSE_SECONDS
        for attempt in range(MAX_TRIES):
            if attempt:
                await asyncio.sleep(pause)
                pause = min(2 * pause, MAX_PAUSE_SECONDS)
            self.running.update(body["rid"])
            try:
                answer = await client.post("/generate", json=body)
            except (httpx.ConnectError, httpx.ConnectTimeout) as error:
                self.failure = f"nobody answers ({error or type(error).__name__})"
            except httpx.HTTPError as error:
                self.failure = f"{type(error).__name__} {error}".strip()
                await self._abort(client, body["rid"])
                return None
            else:
                if answer.status_code not in _FULL:
                    self.running.difference_update(body["rid"])
                    if answer.status_code < httpx.codes.INTERNAL_SERVER_ERROR:
                        return answer
                    self.failure = f"{answer.status_code}: {_told(answer)}"
                    return None
                self.failure = f"{answer.status_code}: {_told(answer)}"
            self.running.difference_update(body["rid"])
        return None

    async def _abort(self, client: httpx.AsyncClient, rids: Sequence[str] | set[str]) -> None:
        """Asks the engine to end what nobody waits for; an engine that does not hear it is not waited for."""
        gone = list(rids)
        self.running.difference_update(gone)
        await asyncio.gather(
            *(client.post("/abort_request", json={"rid": rid}, timeout=2.0) for rid in gone), return_exceptions=True
        )


def _items(answer: httpx.Response) -> list[Any]:
    try:
        found = answer.json()
    except ValueError:
        found = None
    return found if isinstance(found, list) else []


def _completion(item: Any, version: str) -> Completion:
    """One completion as the engine tells it. Raises EngineError for what is none, or of other weights."""
    try:
        meta = item["meta_info"]
        pairs = [(float(pair[0]), int(pair[1])) for pair in meta["output_token_logprobs"]]
        reason, of = str(meta["finish_reason"]["type"]), str(meta["weight_version"])
    except (KeyError, IndexError, TypeError, ValueError) as error:
        raise EngineError(f"/generate told no completion with log-probabilities ({type(error).__name__} {error})") from error
    if reason not in {"stop", "length", "abort"} or (reason != "abort" and not pairs):
        raise EngineError(f"/generate told a completion of {len(pairs)} tokens that ended by “{reason}”")
    if not all(math.isfinite(logprob) for logprob, _token in pairs):
        raise EngineError("/generate told a log-probability that is not finite")
    if reason != "abort" and of != version:
        raise EngineError(f"a completion is of the weights “{of[:80]}”, not of those that this run has given it; somebody else "
                          "has updated or restarted the engine")
    return Completion([token for _logprob, token in pairs], [logprob for logprob, _token in pairs], reason)


def _told(answer: httpx.Response) -> str:
    """What an engine says of its refusal, in either of both forms."""
    try:
        told = answer.json()
        error = told.get("error")
        words = error.get("message") if isinstance(error, dict) else error or told.get("message")
        return str(words)[:300].rstrip(".")
    except (ValueError, AttributeError):
        return answer.text[:200].strip() or answer.reason_phrase
