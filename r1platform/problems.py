"""Errors as answers: problem details (RFC 9457) for programs, a worded page for people.

`exception_handler` serves the REST framework, the `bad_request` … functions serve Django, `problem` serves any view.
"""

from __future__ import annotations

import logging
from http import HTTPStatus
from typing import Any

from django.core.exceptions import PermissionDenied, ValidationError
from django.http import Http404, HttpRequest, HttpResponse, JsonResponse
from django.shortcuts import render
from django.views.csrf import csrf_failure as django_csrf_failure
from rest_framework import exceptions
from rest_framework.response import Response

from model_core.errors import ModelCoreError
from r1platform.keys import KeyRefused
from r1platform.lib.leases import NoDevice
from r1platform.lib.transitions import IllegalTransition, StaleFence

logger = logging.getLogger(__name__)
PROGRAM_PATHS = ("/api/", "/v1/", "/livez", "/readyz", "/metrics")
CONTENT_TYPE = "application/problem+json"


def body(status: int, detail: str, errors: dict[str, list[str]] | None = None) -> dict[str, Any]:
    """Problem details; `errors` maps a field's dotted name to its sentences."""
    answer: dict[str, Any] = {"type": "about:blank", "title": HTTPStatus(status).phrase, "status": status, "detail": detail}
    if errors:
        answer["errors"] = errors
    return answer


def problem(status: int, detail: str, errors: dict[str, list[str]] | None = None) -> JsonResponse:
    return JsonResponse(body(status, detail, errors), status=status, content_type=CONTENT_TYPE)


def exception_handler(error: Exception, context: dict[str, Any]) -> Response | None:
    """Turns whatever a REST view raises into problem details; None lets an unforeseen error become a logged 500."""
    found = translate(error)
    if found is None:
        return None
    status, detail, errors = found
    headers = {}
    if isinstance(error, exceptions.APIException):
        if (wait := getattr(error, "wait", None)) is not None:
            headers["Retry-After"] = str(int(wait) + 1)
        if (scheme := getattr(error, "auth_header", None)) is not None:
            headers["WWW-Authenticate"] = scheme
    return Response(body(status, detail, errors), status=status, headers=headers, content_type=CONTENT_TYPE)


def translate(error: Exception) -> tuple[int, str, dict[str, list[str]] | None] | None:
    """Status, sentence and field errors of an error that a user can cause; None for any other."""
    match error:
        case exceptions.ValidationError():
            errors = flatten(error.detail)
            return 400, _first(errors, "The request is not valid."), errors
        case exceptions.APIException():
            return error.status_code, str(error.detail), None
        case ModelCoreError():
            return 400, error.message, _by_field(error) or None
        case KeyRefused():
            return 400, str(error), {error.field: [str(error)]}
        case ValidationError():
            errors = error.message_dict if hasattr(error, "error_dict") else {"": list(error.messages)}
            return 400, _first(errors, "The request is not valid."), {k: v for k, v in errors.items() if k} or None
        case IllegalTransition() | NoDevice() | StaleFence():
            return 409, str(error), None
        case PermissionDenied():
            return 403, str(error) or "You may not do this.", None
        case Http404():
            return 404, "There is no such thing here, or it is not yours.", None
    return None


def _by_field(error: ModelCoreError) -> dict[str, list[str]]:
    """The sentences of each field that the error names."""
    parts = getattr(error, "parts", ()) or ((error.field, error.message),)
    found: dict[str, list[str]] = {}
    for field, sentence in parts:
        if field:
            found.setdefault(field, []).append(sentence)
    return found


def flatten(detail: Any, prefix: str = "") -> dict[str, list[str]]:
    """The REST framework's nested errors as `{"a.b": [sentence, …]}`."""
    if isinstance(detail, dict):
        parts = [flatten(value, f"{prefix}.{key}" if prefix else str(key)) for key, value in detail.items()]
    elif isinstance(detail, list) and any(isinstance(item, (dict, list)) for item in detail):
        parts = [flatten(value, f"{prefix}.{index}" if prefix else str(index)) for index, value in enumerate(detail)]
    else:
        return {prefix or "request": [str(item) for item in (detail if isinstance(detail, list) else [detail])]}
    return {key: value for part in parts for key, value in part.items()}


def answer(request: HttpRequest, status: int, detail: str) -> HttpResponse:
    """The sentence in the caller's language: problem details under PROGRAM_PATHS, else the page of this status."""
    if for_program(request):
        return problem(status, detail)
    return render(request, f"{status}.html", {"detail": detail, "status": status}, status=status)


def for_program(request: HttpRequest) -> bool:
    return request.path.startswith(PROGRAM_PATHS)


def bad_request(request: HttpRequest, exception: Exception) -> HttpResponse:
    return answer(request, 400, "It is malformed or larger than is allowed.")


def forbidden(request: HttpRequest, exception: Exception) -> HttpResponse:
    return answer(request, 403, str(exception) or "You may not do this.")


def not_found(request: HttpRequest, exception: Exception) -> HttpResponse:
    return answer(request, 404, "There is no such page here, or it is not yours.")


def server_error(request: HttpRequest) -> HttpResponse:
    return answer(request, 500, "Something failed on our side; it is in the log of the web process.")


def csrf_failure(request: HttpRequest, reason: str = "") -> HttpResponse:
    """The form was not ours, or the page is older than the sign-in."""
    if for_program(request):
        return problem(403, f"The request was refused: {reason}")
    return django_csrf_failure(request, reason=reason)


def _first(errors: dict[str, list[str]], otherwise: str) -> str:
    for field, sentences in errors.items():
        if sentences:
            return f"{field}: {sentences[0]}" if field and field != "request" else sentences[0]
    return otherwise
