"""The web process: pages, REST, gateway and sockets. It never loads torch (`tests/contracts/test_web_is_light.py`)."""

from __future__ import annotations

import gc
import os

os.environ.setdefault("DJANGO_SETTINGS_MODULE", "r1platform.settings")

from django.core.asgi import get_asgi_application

pages = get_asgi_application()

import r1platform.urls  # noqa: E402, F401
from r1platform.web import web  # noqa: E402
from serving_app.gateway.handler import GatewayHandler  # noqa: E402

application = web(pages, GatewayHandler())
gc.collect()
gc.freeze()  # what was loaded stays: looking through it again held a request up for 0.15 to 0.4 s, one in twenty
