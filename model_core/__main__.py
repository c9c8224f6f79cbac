"""`python -m model_core WORD …`: the library by hand, without a platform.

Each word is one file in `model_core/commands` with `add_arguments(parser)` and `run(args) -> int`; the first line of
its docstring is its help. Only the chosen word's file is run, so that a light word stays light.
"""

from __future__ import annotations

import argparse
import gc
import importlib
import pkgutil
import sys

from model_core import commands
from model_core.errors import ModelCoreError


def words() -> list[str]:
    """Every word there is, found by listing the folder."""
    return sorted(m.name for m in pkgutil.iter_modules(commands.__path__) if not m.name.startswith("_"))


def main(argv: list[str] | None = None) -> int:
    """Runs one word and returns its exit status; 2 is an error that the message explains."""
    gc.set_threshold(100_000, 50, 50)  # collecting while modules are loaded is a tenth of the start of a trainer
    parser = argparse.ArgumentParser(prog="python -m model_core", description=__doc__.splitlines()[0])
    subparsers = parser.add_subparsers(dest="word", required=True, metavar="|".join(words()))
    for word in words():
        module = importlib.import_module(f"model_core.commands.{word}")
        help_line = (module.__doc__ or "").splitlines()[0]
        subparser = subparsers.add_parser(word, help=help_line, description=help_line)
        module.add_arguments(subparser)
        subparser.set_defaults(run=module.run)
    args = parser.parse_args(argv)
    try:
        return int(args.run(args))
    except ModelCoreError as error:
        where = f" ({error.field})" if error.field else ""
        print(f"{type(error).__name__}{where}: {error.message}", file=sys.stderr)
        return 2


if __name__ == "__main__":
    sys.exit(main())
