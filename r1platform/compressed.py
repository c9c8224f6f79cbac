"""Compression of large answers of the API that hold nothing secret: columns of numbers, several hundred kilobytes of them."""

from __future__ import annotations

import gzip
from typing import Any

from django.utils.cache import patch_vary_headers
from rest_framework.request import Request
from rest_framework.response import Response

FEWEST_BYTES = 2048
FASTEST = 1
"""A higher level takes several times as long for a few hundredths less."""


def compressed(request: Request, response: Response) -> Response:
    """The same answer, gzipped once it is rendered where the caller takes that."""

    def squeeze(rendered: Any) -> None:
        patch_vary_headers(rendered, ["Accept-Encoding"])
        if "gzip" in request.headers.get("Accept-Encoding", "") and len(rendered.content) >= FEWEST_BYTES:
            rendered.content = gzip.compress(rendered.content, FASTEST)
            rendered.headers["Content-Encoding"] = "gzip"
            rendered.headers["Content-Length"] = str(len(rendered.content))

    response.add_post_render_callback(squeeze)
    return response
