"""The web process: pages, REST, gateway and sockets. It never loads torch (`tests/contracts/test_web_is_light.py`)."""

from __future__ import annotations

import gc
import os

os.environ.setdefault("DJANGO_SETTINGS_MODULE", "r1platform.settings")

import django
from django.conf import settings

if not settings.configured:  # the server's own process, not one that borrows the application
    settings.DATABASES["default"].setdefault("OPTIONS", {})["pool"] = {"min_size": 4, "max_size": 40, "timeout": 4}

django.setup(set_prefix=False)

import r1platform.urls  # noqa: E402, F401
from r1platform.pages_handler import PagesHandler  # noqa: E402
from r1platform.web import web  # noqa: E402
from serving_app.gateway.handler import GatewayHandler  # noqa: E402

application = web(PagesHandler(), GatewayHandler())
gc.collect()
gc.freeze()  # what was loaded stays: looking through it again held a request up for 0.15 to 0.4 s, one in twenty
