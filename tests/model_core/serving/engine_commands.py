"""How the engines of the folder are started: their commands, and an option of one."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from model_core.serving import engines
from model_core.serving.engines import ENGINES
from model_core.serving.protocol import LOOPBACK, Command

NAMES = sorted(path.stem for path in Path(engines.__path__[0]).glob("[!_]*.py"))
"""A new engine is tested with the others."""
KEY = "s3cret-key"


def command_of(name: str, *, served_name: str = "tiny", key: str = KEY, host: str = LOOPBACK, **config: Any) -> Command:
    engine = ENGINES.get(name)()
    command: Command = engine.command(
        model_dir=Path("/models/one"), port=8123, served_name=served_name, api_key=key, config=engine.Config.parse(config), host=host
    )
    return command


def served_name_of(command: Command) -> str:
    """The name, which stands in the same argument as its option, so that it is never taken for another one."""
    (word,) = [word for word in command.argv if word.startswith(("--served-name=", "--served-model-name="))]
    return word.partition("=")[2]


def option(command: Command, name: str) -> str:
    """The value of an option that is there once."""
    (place,) = [place for place, word in enumerate(command.argv) if word == name]
    return command.argv[place + 1]
