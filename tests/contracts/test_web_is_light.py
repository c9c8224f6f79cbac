"""The web process, the worker and the platform's half of the library never load torch."""

from __future__ import annotations

import os
import subprocess
import sys

import pytest
from django.conf import settings

HEAVY = {"torch", "deepspeed", "sglang", "transformers", "tensorflow", "jax"}
LIBRARY_HAS_NOT = {"django", "celery", "channels", "redis", "rest_framework"}


def loaded_after(code: str) -> set[str]:
    """Top-level modules of a fresh interpreter that ran `code`."""
    program = code + "\nimport sys; print(' '.join({name.partition('.')[0] for name in sys.modules}))"
    done = subprocess.run([sys.executable, "-c", program], cwd=settings.BASE_DIR, env=os.environ, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    return set(done.stdout.splitlines()[-1].split())


def test_the_web_process_has_no_torch() -> None:
    code = (
        "import r1platform.asgi; from django.urls import get_resolver; get_resolver().url_patterns\n"
        "from django.db import connection; assert connection.pool is not None, 'each request would make a connection of its own'"
    )
    assert not loaded_after(code) & HEAVY


def test_the_worker_has_no_torch() -> None:
    code = (
        "import os; os.environ.setdefault('DJANGO_SETTINGS_MODULE', 'r1platform.settings')\n"
        "import django; django.setup()\n"
        "from r1platform.celery import app; app.loader.import_default_modules()"
    )
    assert not loaded_after(code) & HEAVY


@pytest.mark.parametrize(
    "registry",
    ["model_core.phases", "model_core.rewards", "model_core.tasks", "model_core.sources", "model_core.filters",
     "model_core.serving.engines", "model_core.evaluation.benchmarks"],
)  # fmt: skip
def test_a_registry_lists_its_things_without_torch(registry: str) -> None:
    """Forms and schemas ask every registered class for its Config."""
    code = f"from model_core.registry import Registry; print(len(list(Registry({registry!r}, kind='thing').items())))"
    assert not loaded_after(code) & (HEAVY | LIBRARY_HAS_NOT)


def test_the_library_has_never_heard_of_the_platform() -> None:
    code = "import model_core, model_core.config, model_core.rundir, model_core.events, model_core.registry, model_core.launch, model_core.planner"
    assert not loaded_after(code) & (LIBRARY_HAS_NOT | HEAVY)
