"""A signed-in client of the REST API: session cookie, CSRF, errors as sentences."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from typing import Any
from urllib.parse import urlsplit

import httpx


class DemoError(Exception):
    """Something the platform refused or did not do in time; the message is the sentence it said."""


class Api:
    """Talks to `/api/v1/` as the user of a one-time sign-in link."""

    def __init__(self, base_url: str, sign_in_path: str) -> None:
        self.base_url = base_url.rstrip("/")
        self._http = httpx.Client(base_url=self.base_url, timeout=60, follow_redirects=True)
        self._sign_in(sign_in_path)

    def get(self, path: str, **params: Any) -> Any:
        """JSON of `/api/v1/<path>`."""
        return self._call("GET", path, params=params)

    def post(self, path: str, **body: Any) -> Any:
        """Posts JSON to `/api/v1/<path>` and returns the JSON of the answer."""
        return self._call("POST", path, json=body)

    def pages(self, path: str, **params: Any) -> Iterator[Any]:
        """Every item of a paged list."""
        answer = self.get(path, **params)
        while True:
            yield from answer["results"]
            if not answer["next"]:
                return
            answer = self._call("GET", answer["next"])

    def wait(self, path: str, done: Callable[[Any], bool], *, seconds: float, what: str) -> Any:
        """Asks for `path` until `done` accepts it. Raises DemoError when `seconds` have passed."""
        deadline = time.monotonic() + seconds
        while True:
            answer = self.get(path)
            if done(answer):
                return answer
            if time.monotonic() > deadline:
                raise DemoError(f"{what} took more than {seconds:.0f} s; the last state was {answer.get('state')!r}.")
            time.sleep(0.25)

    @property
    def socket_headers(self) -> dict[str, str]:
        """What a browser sends when it opens a socket."""
        cookies = "; ".join(f"{name}={value}" for name, value in self._http.cookies.items())
        return {"Cookie": cookies, "Origin": self.base_url}

    @property
    def socket_url(self) -> str:
        return "ws" + self.base_url.removeprefix("http")

    def close(self) -> None:
        self._http.close()

    def _sign_in(self, path: str) -> None:
        page = self._http.get(path)
        if page.status_code == 200 and urlsplit(str(page.url)).path == urlsplit(path).path:
            page = self._http.post(path, headers=self._csrf())
        if "sessionid" not in self._http.cookies:
            raise DemoError(f"Signing in failed: the platform answered {page.status_code} at {page.url}.")

    def _csrf(self) -> dict[str, str]:
        return {"X-CSRFToken": self._http.cookies.get("csrftoken") or "", "Referer": self.base_url + "/"}

    def _call(self, method: str, path: str, **options: Any) -> Any:
        url = path if path.startswith("http") else f"/api/v1/{path}"
        headers = self._csrf() if method != "GET" else {}
        try:
            answer = self._http.request(method, url, headers=headers, **options)
        except httpx.TransportError as error:
            raise DemoError(f"The platform at {self.base_url} does not answer: {error or type(error).__name__}") from None
        if answer.is_success:
            return answer.json() if answer.content else None
        raise DemoError(f"{method} {url} was answered {answer.status_code}: {_sentence(answer)}")


def _sentence(answer: httpx.Response) -> str:
    try:
        body = answer.json()
    except ValueError:
        return answer.text[:300]
    detail = body.get("detail") or body.get("title") or body
    return f"{detail} {body['errors']}" if body.get("errors") else str(detail)
