"""What each app adds to the web: pages, REST resources, sockets and the gateway, found by module name."""

from __future__ import annotations

import importlib
import logging
from importlib.util import find_spec
from types import ModuleType

logger = logging.getLogger(__name__)
APPS = ("r1platform", "training_app", "serving_app")


def modules(name: str, *, having: str = "") -> list[ModuleType]:
    """The module `name` of each app that has one (with the attribute `having`), in the order of APPS."""
    found = []
    for app in APPS:
        if find_spec(f"{app}.{name}") is None:
            continue
        try:
            found.append(importlib.import_module(f"{app}.{name}"))
        except ImportError as error:
            logger.error("%s.%s cannot be imported and is left out: %s", app, name, error)
    return [module for module in found if not having or hasattr(module, having)]
