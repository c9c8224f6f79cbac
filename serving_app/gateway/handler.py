"""Django's handler without what pages need: no session, no cookie, no token of a form, and no thread for any of them.

The middlewares of the pages are made for threads, and each costs a request two changes of thread. What of them concerns
programs is here: requests are counted, the host is checked, nobody guesses the type of an answer.
"""

from __future__ import annotations

from typing import Any

from django.core.handlers.asgi import ASGIHandler
from django.core.handlers.exception import convert_exception_to_response
from django.http import HttpRequest
from django.http.response import HttpResponseBase

from r1platform.counting import CountRequests


class GatewayHandler(ASGIHandler):
    """Answers the paths of `gateway_urls`, whose views are all coroutines."""

    def load_middleware(self, is_async: bool = False) -> None:
        for name in ("_view_middleware", "_template_response_middleware", "_exception_middleware"):
            setattr(self, name, [])
        inner: Any = convert_exception_to_response(self._checked)
        count = CountRequests(inner)

        async def counted(request: HttpRequest) -> HttpResponseBase:
            count.process_request(request)
            response = count.process_response(request, await inner(request))
            response.headers["X-Content-Type-Options"] = "nosniff"
            return response

        self._middleware_chain = counted

    async def _checked(self, request: HttpRequest) -> HttpResponseBase:
        request.get_host()
        response: HttpResponseBase = await self._get_response_async(request)  # type: ignore[attr-defined]
        return response

    async def __call__(self, scope: Any, receive: Any, send: Any) -> None:
        """Without the thread of its own that Django gives each request."""
        await self.handle(scope, receive, send)
