"""`Idempotency-Key`: a POST that is sent twice is carried out once, and both are given the same answer.

The key is claimed in the transaction that does the work, so that both become true together: a second request waits for
the first, then reads its answer, and a crash or a refusal leaves the key free. Views of every resource come here
through `r1platform.api_requests`.
"""

from __future__ import annotations

import hashlib
import json
import re
from datetime import timedelta

from django.contrib.auth.models import User
from django.core.files.uploadedfile import UploadedFile
from django.db.models.functions import Now
from rest_framework import exceptions, status
from rest_framework.request import Request

from r1platform.models import ApiKey, RequestKey

HEADER = "Idempotency-Key"
KEPT = timedelta(hours=24)
_FORM = re.compile(r"[\x21-\x7e]{1,200}")


class KeyOfAnotherRequest(exceptions.APIException):
    """The key stands for other words; the caller takes a new one for a new request."""

    status_code = status.HTTP_422_UNPROCESSABLE_ENTITY
    default_detail = "This Idempotency-Key was used for another request; take a new one for each thing that you make."


class AnswerNotKept(exceptions.APIException):
    """The request was carried out, and its answer held a secret that is kept as a hash only."""

    status_code = status.HTTP_409_CONFLICT
    default_detail = (
        "This request was carried out before, and its answer held a secret that is shown once. "
        "Look the thing up, end it, and make another."
    )


def request_key_claim(request: Request, *, text: str) -> tuple[RequestKey, bool]:
    """The row of the key and whether this request is its first; inside the transaction that does the work.

    Raises ValidationError for a key that is none, KeyOfAnotherRequest when it stands for other words.
    """
    assert isinstance(request.user, User), "the permission class lets nobody else through"
    if _FORM.fullmatch(text) is None:
        raise exceptions.ValidationError({HEADER: "A key has 1 to 200 visible ASCII characters, such as a UUID."})
    caller = f"key:{request.auth.pk}" if isinstance(request.auth, ApiKey) else "session"
    fingerprint = _fingerprint(request)
    row, fresh = RequestKey.objects.get_or_create(
        user=request.user, caller=caller, key=text, defaults={"fingerprint": fingerprint}
    )
    if row.fingerprint != fingerprint:
        raise KeyOfAnotherRequest
    return row, fresh


def request_key_keep(row: RequestKey, *, status: int, body: str) -> None:
    """Writes down the answer of the request that claimed the key."""
    RequestKey.objects.filter(pk=row.pk).update(status=status, body=body)


def request_keys_forget() -> int:
    """Frees the keys that are older than KEPT; returns how many."""
    return RequestKey.objects.filter(created_at__lt=Now() - KEPT).delete()[0]


def _fingerprint(request: Request) -> str:
    digest = hashlib.sha256(f"{request.method} {request.get_full_path()}\n".encode())
    files = {name: _sha256(file) for name, file in request.FILES.items()}
    data = {name: value for name, value in request.data.items() if name not in files} if files else request.data
    digest.update(json.dumps([data, files], sort_keys=True, default=str).encode(errors="surrogatepass"))
    return digest.hexdigest()


def _sha256(file: UploadedFile) -> str:
    digest = hashlib.sha256()
    for chunk in file.chunks():
        digest.update(chunk)
    file.seek(0)
    return digest.hexdigest()
