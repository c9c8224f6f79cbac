"""Errors in the shape that OpenAI's clients read: {"error": {"message", "type", "code", "param"}}."""

from __future__ import annotations

from typing import Any

from django.http import JsonResponse

TYPES = {
    400: "invalid_request_error",
    401: "authentication_error",
    403: "permission_error",
    404: "invalid_request_error",
    405: "invalid_request_error",
    413: "invalid_request_error",
    429: "rate_limit_error",
}


class GatewayError(Exception):
    """An answer that is an error; the message is a sentence with the remedy."""

    def __init__(
        self, status: int, message: str, *, code: str | None = None, param: str | None = None, retry_after: int = 0
    ) -> None:
        super().__init__(message)
        self.status = status
        self.message = message
        self.code = code
        self.param = param
        self.retry_after = retry_after
        self.revision_id: int | None = None

    def by(self, revision_id: int) -> GatewayError:
        """The same error, of an engine of this revision."""
        self.revision_id = revision_id
        return self

    def body(self) -> dict[str, Any]:
        """The JSON of the answer, and of the last event of a stream that breaks."""
        kind = TYPES.get(self.status, "server_error")
        return {"error": {"message": self.message, "type": kind, "code": self.code, "param": self.param}}

    def response(self) -> JsonResponse:
        headers = {"Retry-After": str(self.retry_after)} if self.retry_after else {}
        if self.status == 401:
            headers["WWW-Authenticate"] = "Bearer"
        return JsonResponse(self.body(), status=self.status, headers=headers)
