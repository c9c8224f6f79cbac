"""What every resource of the REST API can do beyond its own words: narrow answers, tell what changed, ask once.

The router puts this before each viewset that is registered, so that no resource can forget it:
`?fields=a,b` leaves the rest out; `ETag` and `If-None-Match` save a body that has not changed; `If-Match` changes a thing
only while it is as the caller saw it; `Idempotency-Key` makes a POST safe to repeat (`r1platform.idempotency`).
"""

from __future__ import annotations

import hashlib
import json
from typing import TYPE_CHECKING, Any

from django.db import transaction
from django.http.response import HttpResponseBase
from django.utils.cache import patch_cache_control
from rest_framework import exceptions, status, viewsets
from rest_framework.permissions import SAFE_METHODS
from rest_framework.renderers import JSONRenderer
from rest_framework.request import Request
from rest_framework.response import Response

from r1platform import idempotency
from r1platform.models import RequestKey

if TYPE_CHECKING:
    _View = viewsets.ViewSet
    _Generic = viewsets.GenericViewSet[Any]
else:
    _View = _Generic = object
REPLAYED = "Idempotency-Replayed"
UNCHANGING = ("list", "retrieve")


class Changed(exceptions.APIException):
    """The thing is not as the caller saw it."""

    status_code = status.HTTP_412_PRECONDITION_FAILED
    default_detail = (
        "This is not as you saw it any more: ask for it again, without `fields`, and send the ETag of that answer as If-Match."
    )


class Answered(Exception):
    """Ends a request whose answer is known already."""

    def __init__(self, response: Response) -> None:
        super().__init__()
        self.response = response


class Careful(_View):
    """Conditional and repeatable requests. The answers of actions that a view names in `shown_once` are not kept."""

    claimed: RequestKey | None = None

    def dispatch(self, request: Any, *args: Any, **kwargs: Any) -> HttpResponseBase:
        """One transaction around a request that must be checked and done together; a refusal takes all of it back."""
        if request.method in SAFE_METHODS or not {idempotency.HEADER, "If-Match"} & set(request.headers):
            return super().dispatch(request, *args, **kwargs)
        with transaction.atomic():
            response = super().dispatch(request, *args, **kwargs)
            if response.status_code >= 400:
                transaction.set_rollback(True)
            elif self.claimed is not None:
                kept = isinstance(response, Response) and response.data is not None and self._may_be_kept()
                body = JSONRenderer().render(response.data).decode() if kept else ""  # type: ignore[attr-defined]
                idempotency.request_key_keep(self.claimed, status=response.status_code, body=body)
        return response

    def initial(self, request: Request, *args: Any, **kwargs: Any) -> None:
        """After the caller is known and may call: is it a repetition, and is the thing as it was seen?"""
        super().initial(request, *args, **kwargs)
        if request.method == "POST" and (text := request.headers.get(idempotency.HEADER)) is not None:
            self._claim(request, text)
        if request.method not in SAFE_METHODS and (wanted := request.headers.get("If-Match")) is not None:
            self._require_unchanged(request, wanted, **kwargs)

    def handle_exception(self, exc: Exception) -> Response:
        return exc.response if isinstance(exc, Answered) else super().handle_exception(exc)

    def finalize_response(self, request: Request, response: Any, *args: Any, **kwargs: Any) -> Any:
        response = super().finalize_response(request, response, *args, **kwargs)
        if request.method in {"GET", "HEAD"} and response.status_code == 200 and isinstance(response, Response):
            response.add_post_render_callback(lambda done: _tag(request, done))
        return response

    def _may_be_kept(self) -> bool:
        """Read by name: this class stands before the view, and an attribute of its own would hide the view's."""
        return self.action not in getattr(self, "shown_once", ())

    def _claim(self, request: Request, text: str) -> None:
        row, fresh = idempotency.request_key_claim(request, text=text)
        if fresh:
            self.claimed = row
            return
        if row.status != status.HTTP_204_NO_CONTENT and not row.body:
            raise idempotency.AnswerNotKept
        raise Answered(Response(json.loads(row.body or "null"), status=row.status, headers={REPLAYED: "true"}))

    def _require_unchanged(self, request: Request, wanted: str, **kwargs: Any) -> None:
        """Locks the thing that the address names and compares it; what names none cannot match. Raises Changed."""
        if "pk" not in kwargs or not hasattr(self, "retrieve") or not hasattr(self, "get_object"):
            raise Changed("Nothing is at this address that could be as you saw it; leave If-Match out.")
        thing = self.get_object()
        type(thing)._default_manager.select_for_update(of=("self",)).get(pk=thing.pk)
        action, self.action = self.action, "retrieve"
        try:
            now = JSONRenderer().render(self.retrieve(request, pk=kwargs["pk"]).data)
        finally:
            self.action = action
        if not _named(wanted, etag_of(now)):
            raise Changed


class Narrowed(_Generic):
    """`?fields=id,state` on lists and things."""

    def get_serializer(self, *args: Any, **kwargs: Any) -> Any:
        serializer = super().get_serializer(*args, **kwargs)
        given = getattr(self.request, "query_params", {}).get("fields", "") if self.action in UNCHANGING else ""
        if given:
            _narrow(serializer, [name.strip() for name in given.split(",")])
        return serializer


def careful(viewset: type[Any]) -> type[Any]:
    """The viewset as it is registered."""
    before = (Careful, Narrowed) if issubclass(viewset, viewsets.GenericViewSet) else (Careful,)
    return type(viewset.__name__, (*before, viewset), {"__doc__": viewset.__doc__, "__module__": viewset.__module__})


def etag_of(body: bytes) -> str:
    """The quoted tag of a body."""
    return f'"{hashlib.sha256(body).hexdigest()[:32]}"'


def _tag(request: Request, response: Response) -> None:
    """Sets the ETag of a rendered answer; the body goes when the caller has it."""
    response["ETag"] = etag_of(response.content)
    patch_cache_control(response, private=True, no_cache=True)
    if _named(request.headers.get("If-None-Match", ""), response["ETag"]):
        response.status_code = status.HTTP_304_NOT_MODIFIED
        response.content = b""


def _named(header: str, tag: str) -> bool:
    """Whether a list of tags holds this one; proxies that compress mark a tag as weak."""
    tags = [part.strip().removeprefix("W/") for part in header.split(",")]
    return "*" in tags or tag in tags


def _narrow(serializer: Any, names: list[str]) -> None:
    fields = getattr(serializer, "child", serializer).fields
    unknown = sorted(set(names) - set(fields))
    if unknown:
        shown = ", ".join(name[:40] or "an empty name" for name in unknown[:5])
        raise exceptions.ValidationError({"fields": f"There is no {shown} here. There are: {', '.join(fields)}."})
    for name in set(fields) - set(names):
        fields.pop(name)
