"""Serves a checkpoint's model directory with the OpenAI protocol on the loopback address.

The key is read from R1_ENGINE_KEY; without it nobody is asked for one.
"""

from __future__ import annotations

import argparse
import os
from pathlib import Path

from model_core.errors import ConfigError

KEY = "R1_ENGINE_KEY"
MAX_PORT = 65535


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """What to serve, where, and how much at once."""
    parser.add_argument("model_dir", help="directory with config.json, safetensors and tokenizer; “fake” for the echo")
    parser.add_argument("--port", type=int, default=8100)
    parser.add_argument("--host", default="127.0.0.1")
    parser.add_argument("--served-name", default="r1", help="the model's name in requests")
    parser.add_argument("--max-running-requests", type=int, default=16, help="requests that decode together")
    parser.add_argument("--num-threads", type=int, default=1, help="threads of each operator on a CPU")
    parser.add_argument("--pause", type=float, default=0.0, help="seconds a token of the echo")


def run(args: argparse.Namespace) -> int:
    """Serves until SIGTERM; requests that run get five seconds. Raises ConfigError naming the option that cannot be."""
    _check_numbers(args)
    import uvicorn

    from model_core.serving.backend import FakeBackend, ModelBackend
    from model_core.serving.server import app

    backend: ModelBackend | FakeBackend
    if args.model_dir == "fake":
        backend = FakeBackend(pause=args.pause)
    else:
        backend = ModelBackend(
            Path(args.model_dir), num_rows=args.max_running_requests, num_threads=args.num_threads
        )
    application = app(backend, served_name=args.served_name, api_key=os.environ.get(KEY, ""))
    uvicorn.run(
        application, host=args.host, port=args.port, log_level="warning", lifespan="off", timeout_graceful_shutdown=5
    )
    backend.close()
    return 0


def _check_numbers(args: argparse.Namespace) -> None:
    """By the same rules as the settings of the engine that this is."""
    from model_core.serving.engines import ENGINES

    if not 1 <= args.port <= MAX_PORT:
        raise ConfigError(f"port is {args.port}; give 1 to {MAX_PORT}.", field="port")
    settings = ENGINES.get("fake" if args.model_dir == "fake" else "builtin").Config
    settings.parse({name: getattr(args, name) for name in settings.model_fields})
