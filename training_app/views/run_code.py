"""A run's configuration in the forms in which it is taken elsewhere: a command, Python, a call of the API."""

from __future__ import annotations

import json
import pprint
import shlex
from typing import Any

from django.conf import settings

from model_core.config import RunConfig
from model_core.errors import ModelCoreError
from training_app.models import PhaseRun


def short_config(config: dict[str, Any]) -> dict[str, Any]:
    """What of a resolved configuration is not as it is by itself; the whole of it where that would not say the same."""
    try:
        plain = RunConfig.parse({"phase": config["phase"]}).resolved()
        short = {"phase": config["phase"], **_other(config, plain)}
        return short if RunConfig.parse(short).resolved() == config else config
    except (ModelCoreError, KeyError):  # written under settings that there are no more
        return config


def as_command(run: PhaseRun) -> str:
    """The run by hand: write the configuration into a directory and train there."""
    body = json.dumps({"run": run.config, "paths": _paths(run)}, ensure_ascii=False)
    return f"mkdir -p run && echo {shlex.quote(body)} > run/config.json\npython -m model_core train run"


def as_python(run: PhaseRun) -> str:
    """The same from a program."""
    config = pprint.pformat(short_config(run.config), sort_dicts=False, width=100)
    paths = ", ".join(f"{name}={value!r}" for name, value in _paths(run).items())
    return (
        "import subprocess\n\nfrom model_core.config import RunConfig, RunPaths\nfrom model_core.launch import command\n"
        f"from model_core.rundir import RunDir\n\nconfig = RunConfig.parse({config})\n"
        f'RunDir.create("run", run=config, paths=RunPaths({paths}))\n'
        'subprocess.run(command("run", num_processes=config.parallel.num_processes), check=True)'
    )


def as_request(run: PhaseRun) -> str:
    """A run like it, asked of the API."""
    body: dict[str, Any] = {"project": run.project.slug, "name": run.name, "phase": run.phase}
    inputs = {"dataset_version": run.dataset_version_id, "starts_from": run.starts_from_id, "rollouts_from": run.rollouts_from_id}
    body |= {name: value for name, value in inputs.items() if value is not None}
    body["config"] = {name: value for name, value in short_config(run.config).items() if name != "phase"}
    return (
        f'curl -X POST {settings.R1_URL}/api/v1/runs/ -H "Authorization: Bearer $R1_KEY" \\\n'
        f'  -H "Content-Type: application/json" -d {shlex.quote(json.dumps(body, ensure_ascii=False, indent=1))}'
    )


def _paths(run: PhaseRun) -> dict[str, str]:
    named = {"dataset": run.dataset_version_id, "start_from": run.starts_from_id, "rollouts_from": run.rollouts_from_id}
    words = {"dataset": "DATASET_DIRECTORY", "start_from": "CHECKPOINT_DIRECTORY", "rollouts_from": "CHECKPOINT_DIRECTORY"}
    return {name: words[name] for name, row in named.items() if row is not None}


def _other(config: dict[str, Any], plain: dict[str, Any]) -> dict[str, Any]:
    """What differs, block by block; a block of free names is told whole."""
    found: dict[str, Any] = {}
    for key, value in config.items():
        before = plain.get(key)
        if value == before and key in plain:
            continue
        same_names = isinstance(value, dict) and isinstance(before, dict) and value.keys() == before.keys()
        found[key] = _other(value, before) if same_names and isinstance(before, dict) else value
    return found
