"""Django's handler with the middlewares and the view of a request in one thread.

As it comes it asks each middleware from the event loop, and each is made for threads: two changes of thread apiece, thirteen
times a request. Views of pages and of the API are no coroutines. The gateway has `serving_app.gateway.handler`.
"""

from __future__ import annotations

from asgiref.sync import sync_to_async
from django.core.handlers.asgi import ASGIHandler


class PagesHandler(ASGIHandler):
    """Answers everything that `r1platform.urls` names."""

    def load_middleware(self, is_async: bool = False) -> None:
        super().load_middleware(is_async=False)
        self._middleware_chain = sync_to_async(vars(self)["_middleware_chain"], thread_sensitive=True)
