"""The built-in engine over real HTTP in this process, and an engine of a few lines that answers as it is told."""

from __future__ import annotations

import socket
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch
import uvicorn
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import JSONResponse, Response
from starlette.routing import Route

from model_core.serving.backend import ModelBackend
from model_core.serving.server import app

KEY = "engine-key"


@contextmanager
def listening(application: Starlette) -> Iterator[str]:
    """The application at an address of its own."""
    server = uvicorn.Server(uvicorn.Config(application, log_level="critical", lifespan="off"))
    with socket.socket() as at:
        at.bind(("127.0.0.1", 0))
        thread = threading.Thread(target=server.run, kwargs={"sockets": [at]}, daemon=True)
        thread.start()
        deadline = time.monotonic() + 20
        while not server.started:
            assert time.monotonic() < deadline
            time.sleep(0.005)
        try:
            yield f"http://127.0.0.1:{at.getsockname()[1]}"
        finally:
            server.should_exit = True
            thread.join(20)


@contextmanager
def builtin(model_dir: Path, *, num_rows: int = 16, key: str = KEY) -> Iterator[tuple[str, ModelBackend]]:
    """The engine with a model, ready."""
    threads = torch.get_num_threads()
    backend = ModelBackend(model_dir, num_rows=num_rows, num_threads=1, device="cpu")
    try:
        deadline = time.monotonic() + 60
        while backend.phase == "loading":
            assert time.monotonic() < deadline
            time.sleep(0.01)
        assert backend.phase == "ready", backend.detail
        with listening(app(backend, served_name="tiny", api_key=key, watch=lambda _backend: None)) as url:
            yield url, backend
    finally:
        backend.close()
        torch.set_num_threads(threads)


class Told:
    """An engine that takes any weights; `answer` makes its answer to /generate, `aborted` are the ids that it was asked to end."""

    def __init__(self, answer: Callable[[dict[str, Any]], Any]) -> None:
        self.answer, self.aborted, self.num_asked, self.version = answer, list[str](), 0, "default"

    def application(self) -> Starlette:
        async def generate(request: Request) -> Response:
            self.num_asked += 1
            found = self.answer(await request.json())
            found = await found if hasattr(found, "__await__") else found
            return found if isinstance(found, Response) else JSONResponse(found)

        async def update(request: Request) -> Response:
            self.version = (await request.json())["weight_version"]
            return JSONResponse({"success": True, "message": ""})

        async def abort(request: Request) -> Response:
            self.aborted.append((await request.json())["rid"])
            return Response()

        async def info(_request: Request) -> Response:
            return JSONResponse({"weight_version": self.version})

        return Starlette(routes=[
            Route("/generate", generate, methods=["POST"]), Route("/update_weights_from_disk", update, methods=["POST"]),
            Route("/abort_request", abort, methods=["POST"]), Route("/model_info", info),
        ])  # fmt: skip

    def said(self, body: dict[str, Any], *, finish: str = "stop", version: str | None = None) -> list[dict[str, Any]]:
        """One token for each completion that was asked for."""
        return [
            {"meta_info": {"id": rid, "finish_reason": {"type": finish}, "weight_version": version or self.version,
                           "output_token_logprobs": [[-0.5, 3, None]]}}
            for rid in body["rid"]
        ]  # fmt: skip
