"""A client of the REST API for programs and notebooks: typed rows, pages, waiting, safe repetition. Needs httpx only.

    from r1platform.client import Client
    client = Client("http://127.0.0.1:8000", key="r1_…")   # or R1_URL and R1_API_KEY in the environment
    for run in client.runs.list(state="running"): ...

Rows are what the API tells, as dictionaries whose types are in `r1platform.client_rows`. Whatever has no method of its
own is a path: `client.get("launches/3/graph/")`.
"""

from __future__ import annotations

import os
import time
import uuid
from collections.abc import Callable, Iterator, Mapping
from typing import Any, Generic, Self, TypeVar, cast
from urllib.parse import urlsplit

import httpx

from r1platform.client_rows import (
    Checkpoint,
    Dataset,
    DatasetVersion,
    Deployment,
    Launch,
    Metrics,
    Pipeline,
    Project,
    Run,
)

DEFAULT_URL = "http://127.0.0.1:8000"
TRIES = 4
RETRIED = {429, 502, 503, 504}
MAX_WAIT_SECONDS = 30.0
KEYLESS = " No key was sent: make one under Settings, API keys, and put it into R1_API_KEY."
Row = TypeVar("Row")


class PlatformError(Exception):
    """Something the platform refused or did not do in time; the message is the sentence it said."""


class Refused(PlatformError):
    """The platform answered with an error: `status`, its sentence `detail`, and `errors` by field."""

    def __init__(self, message: str, *, status: int, detail: str, errors: Mapping[str, list[str]]) -> None:
        super().__init__(message)
        self.status, self.detail, self.errors = status, detail, dict(errors)


class Client:
    """Talks to `/api/v1/` of one platform with an API key; use it in a `with`, or close it."""

    def __init__(self, base_url: str = "", *, key: str = "", timeout_seconds: float = 60) -> None:
        self.base_url = (base_url or os.environ.get("R1_URL", "") or DEFAULT_URL).rstrip("/")
        key = key or os.environ.get("R1_API_KEY", "")
        headers = {"Authorization": f"Bearer {key}"} if key else {}
        self.http = httpx.Client(base_url=self.base_url, timeout=timeout_seconds, follow_redirects=True, headers=headers)
        self.projects = Resource[Project](self, "projects")
        self.datasets = Resource[Dataset](self, "datasets")
        self.dataset_versions = Resource[DatasetVersion](self, "dataset-versions")
        self.pipelines = Resource[Pipeline](self, "pipelines")
        self.launches = Resource[Launch](self, "launches")
        self.runs = Runs(self, "runs")
        self.checkpoints = Resource[Checkpoint](self, "checkpoints")
        self.deployments = Resource[Deployment](self, "deployments")

    @classmethod
    def by_link(cls, base_url: str, sign_in_path: str) -> Self:
        """Signed in as a browser is, by a one-time link; for whoever holds the machine. Raises PlatformError."""
        made = cls(base_url)
        made.http.headers.pop("Authorization", None)
        page = made.http.get(sign_in_path)
        if page.status_code == 200 and urlsplit(str(page.url)).path == urlsplit(sign_in_path).path:
            page = made.http.post(sign_in_path, headers=made._csrf())
        if "sessionid" not in made.http.cookies:
            raise PlatformError(f"Signing in failed: the platform answered {page.status_code} at {page.url}.")
        return made

    def get(self, path: str, **params: Any) -> Any:
        """JSON of `/api/v1/<path>`; what is None is left out of the query."""
        return self.call("GET", path, params={name: value for name, value in params.items() if value is not None})

    def post(self, path: str, **body: Any) -> Any:
        """Posts JSON; sent again under one Idempotency-Key when the way there breaks, so that it is done once."""
        return self.call("POST", path, json=body)

    def patch(self, path: str, *, if_match: str = "", **body: Any) -> Any:
        """Changes a thing; with `if_match` only while its ETag is this one."""
        return self.call("PATCH", path, json=body, headers={"If-Match": if_match} if if_match else {})

    def delete(self, path: str) -> None:
        """Deletes a thing."""
        self.call("DELETE", path)

    def upload(self, project: int | str, file_name: str, content: bytes) -> Any:
        """Sends a file of rows; the answer's `id` goes into a dataset version."""
        return self.call("POST", "uploads/", data={"project": str(project)}, files={"file": (file_name, content)})

    def pages(self, path: str, **params: Any) -> Iterator[Any]:
        """Every row of a paged list."""
        answer = self.get(path, **params)
        while True:
            yield from answer["results"]
            if not answer["next"]:
                return
            following = urlsplit(answer["next"])
            answer = self.call("GET", f"{following.path}?{following.query}")

    def wait(self, path: str, done: Callable[[Any], bool], *, seconds: float, what: str) -> Any:
        """Asks for `path` until `done` accepts it. Raises PlatformError when `seconds` have passed."""
        deadline = time.monotonic() + seconds
        while True:
            answer = self.get(path)
            if done(answer):
                return answer
            if time.monotonic() > deadline:
                last = answer.get("state") if isinstance(answer, dict) else None
                raise PlatformError(f"{what} took more than {seconds:.0f} s; the last state was {last!r}.")
            time.sleep(0.25)

    def call(self, method: str, path: str, *, headers: Mapping[str, str] | None = None, **options: Any) -> Any:
        """One request, repeated when that is safe: JSON of the answer, None of an empty one. Raises PlatformError."""
        url = f"/api/v1/{path.removeprefix('/api/v1').lstrip('/')}"
        sent = {**({} if method == "GET" else self._csrf()), **(headers or {})}
        if method == "POST":
            sent.setdefault("Idempotency-Key", str(uuid.uuid4()))
        answer = self._send(method, url, sent, options)
        if answer.is_success:
            return answer.json() if answer.content else None
        keyless = "Authorization" not in self.http.headers and "sessionid" not in self.http.cookies
        raise _refused(method, url, answer, hint=KEYLESS if answer.status_code == 401 and keyless else "")

    def _send(self, method: str, url: str, headers: Mapping[str, str], options: Mapping[str, Any]) -> httpx.Response:
        """Whether something was carried out is unknown when the way breaks; the key of a POST makes asking again safe."""
        safe = method in {"GET", "POST"}
        for number in range(1, TRIES + 1):
            last = number == TRIES or not safe
            wait = 0.25 * 2**number
            try:
                answer = self.http.request(method, url, headers=dict(headers), **options)
            except httpx.TransportError as error:
                if last or isinstance(error, httpx.ConnectError):
                    why = f"The platform at {self.base_url} does not answer: {error or type(error).__name__}."
                    raise PlatformError(f"{why} R1_URL names another.") from None
            else:
                if last or answer.status_code not in RETRIED:
                    return answer
                asked = answer.headers.get("Retry-After", "")
                wait = min(float(asked), MAX_WAIT_SECONDS) if asked.isdigit() else wait
            time.sleep(wait)
        raise AssertionError("the last try returns or raises")

    @property
    def socket_headers(self) -> dict[str, str]:
        """What a browser sends when it opens a socket; of a client that signed in by a link."""
        cookies = "; ".join(f"{name}={value}" for name, value in self.http.cookies.items())
        return {"Cookie": cookies, "Origin": self.base_url}

    @property
    def socket_url(self) -> str:
        """Where the sockets are."""
        return "ws" + self.base_url.removeprefix("http")

    def close(self) -> None:
        """Closes the connections."""
        self.http.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def _csrf(self) -> dict[str, str]:
        token = self.http.cookies.get("csrftoken")
        return {"X-CSRFToken": token, "Referer": self.base_url + "/"} if token else {}


class Resource(Generic[Row]):
    """One kind of row: list, get, create and the actions of the API by name."""

    def __init__(self, client: Client, path: str) -> None:
        self.client, self.path = client, path

    def list(self, **filters: Any) -> Iterator[Row]:
        """Every row that the filters let through, newest first, page by page as they are taken."""
        yield from cast(Iterator[Row], self.client.pages(f"{self.path}/", **filters))

    def get(self, number: int) -> Row:
        """One row."""
        return cast(Row, self.client.get(f"{self.path}/{number}/"))

    def create(self, **values: Any) -> Row:
        """A new row."""
        return cast(Row, self.client.post(f"{self.path}/", **values))

    def act(self, number: int, action: str, **values: Any) -> Any:
        """An action of the API on a row: `act(3, "stop")`."""
        return self.client.post(f"{self.path}/{number}/{action}/", **values)


class Runs(Resource[Run]):
    """Runs, with what their pages show."""

    def metrics(self, number: int, *names: str, start: int | None = None, end: int | None = None, buckets: int = 1000) -> Metrics:
        """Scalars by step, at most about `buckets` points a series, with the extremes of what was folded together."""
        params = {"names": ",".join(names) or None, "from": start, "to": end, "buckets": buckets}
        return cast(Metrics, self.client.get(f"{self.path}/{number}/metrics/", **params))

    def wait(self, number: int, *, seconds: float) -> Run:
        """The run when it has ended, however. Raises PlatformError when `seconds` have passed."""
        path = f"{self.path}/{number}/"
        return cast(Run, self.client.wait(path, lambda run: run["finished_at"] is not None, seconds=seconds, what="The run"))


def _refused(method: str, url: str, answer: httpx.Response, *, hint: str = "") -> Refused:
    try:
        body = answer.json()
    except ValueError:
        body = None
    body = body if isinstance(body, dict) else {"detail": answer.text[:300]}
    errors = body.get("errors") or {}
    detail = str(body.get("detail") or body.get("title") or body)
    sentence = f"{detail} {errors}" if errors else detail
    message = f"{method} {url} was answered {answer.status_code}: {sentence}{hint}"
    return Refused(message, status=answer.status_code, detail=detail, errors=errors)
