"""`./r1 engine list` and `./r1 engine install sglang`: serving engines that live in environments of their own."""

from __future__ import annotations

import argparse
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

from django.conf import settings
from django.core.management.base import BaseCommand, CommandError

from model_core.serving.engines import ENGINES
from model_core.serving.engines.sglang import CPU_PARTS
from r1platform.lib.hardware import gpus_find

SGLANG = "sglang==0.5.23"
FREE_BYTES = {True: 20 << 30, False: 4 << 30}
"""Disk that the installation needs, with a GPU and without."""


class Command(BaseCommand):
    help = "Lists serving engines, or installs one that has an environment of its own."
    requires_system_checks: list[str] = []

    def add_arguments(self, parser: argparse.ArgumentParser) -> None:
        words = parser.add_subparsers(dest="word", required=True)
        words.add_parser("list", help="every engine, and why one cannot be used here")
        install = words.add_parser("install", help="makes the environment of an engine")
        install.add_argument("name", choices=["sglang"])

    def handle(self, *args: Any, **options: Any) -> None:
        if options["word"] == "list":
            for name, engine in ENGINES.items():
                self.stdout.write(f"{name:<10} {engine().installed() or 'ready'}")
        else:
            self._install_sglang(Path(settings.R1_HOME) / "sglang")

    def _install_sglang(self, place: Path) -> None:
        """Makes the environment; a broken one is made again, a whole one is left as it is."""
        mark = place / "installed"
        wanted = " ".join(self._lists())
        if mark.exists() and mark.read_text() == wanted:
            self.stdout.write(f"SGLang is installed in {place}.")
            return
        has_gpu = bool(gpus_find())
        place.parent.mkdir(parents=True, exist_ok=True)
        free = shutil.disk_usage(place.parent).free
        if free < FREE_BYTES[has_gpu]:
            raise CommandError(
                f"{place.parent} has {free >> 30} GiB left and {FREE_BYTES[has_gpu] >> 30} are needed; free some, or set R1_HOME."
            )
        self.stdout.write(f"Installing {SGLANG} into {place}; this takes some minutes …")
        self._call(sys.executable, "-m", "venv", "--clear", str(place))
        pip = [str(place / "bin" / "python"), "-m", "pip", "install", "--disable-pip-version-check", "--progress-bar", "off"]
        if has_gpu:
            self._call(*pip, SGLANG)
        else:
            self._call(*pip, "-r", str(CPU_PARTS / "requirements.txt"))
            self._call(*pip, "--no-deps", "-r", str(CPU_PARTS / "requirements-no-deps.txt"))
        mark.write_text(wanted)
        self.stdout.write("Done. Deployments can use it now.")

    def _lists(self) -> list[str]:
        return [SGLANG, *((CPU_PARTS / name).read_text() for name in ("requirements.txt", "requirements-no-deps.txt"))]

    def _call(self, *argv: str) -> None:
        done = subprocess.run(argv, capture_output=True, text=True, check=False)
        if done.returncode != 0:
            last = "\n".join((done.stdout + done.stderr).strip().splitlines()[-8:])
            raise CommandError(f"This did not end well: {' '.join(argv)}\n{last}")
