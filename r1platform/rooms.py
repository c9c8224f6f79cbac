"""What each app adds to the web: pages, REST resources, sockets and the gateway, found by module name."""

from __future__ import annotations

import importlib
from importlib.util import find_spec
from types import ModuleType

APPS = ("r1platform", "training_app", "serving_app")


def modules(name: str, *, having: str = "") -> list[ModuleType]:
    """The module `name` of each app that has one (with the attribute `having`), in the order of APPS.

    A module that is there and cannot be imported is an error: a web without half of its pages does not start.
    """
    found = [importlib.import_module(f"{app}.{name}") for app in APPS if find_spec(f"{app}.{name}") is not None]
    return [module for module in found if not having or hasattr(module, having)]
