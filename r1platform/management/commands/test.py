"""`./r1 test`: every test that this machine can run; arguments go to pytest."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

from django.conf import settings
from django.core.management import call_command
from django.core.management.base import BaseCommand, CommandError

BROWSERS = ("chromium", "chromium-browser", "google-chrome")


IN_PARALLEL = ["-n", "2", "--dist", "loadfile", "--no-loadscope-reorder"]
"""Two workers, a file to one of them, in the order of names: whole stories come early, so that none is waited for last."""


class Command(BaseCommand):
    help = "Runs the tests. Arguments go to pytest, for example: ./r1 test tests/serving_app -k stream"
    requires_system_checks: list[str] = []

    def run_from_argv(self, argv: list[str]) -> None:
        """Takes every argument as pytest's; Django's own parsing would refuse them."""
        arguments = argv[2:]
        self._ensure_browser()
        named = [argument for argument in arguments if argument.startswith("tests")]
        if not named or any("sglang" in argument for argument in named):
            self._ensure_sglang()
        options = [] if any(argument.startswith("-n") for argument in arguments) else IN_PARALLEL
        argv = [sys.executable, "-m", "pytest", *options, *arguments]
        sys.exit(subprocess.call(argv, cwd=settings.BASE_DIR, env=os.environ | _environment()))

    def handle(self, *args: Any, **options: Any) -> None:
        raise AssertionError("run_from_argv does it all")

    def _ensure_sglang(self) -> None:
        """Installs the real SGLang once; says why when its tests cannot run."""
        if os.environ.get("R1_SGLANG_PYTHON"):
            return
        try:
            call_command("engine", "install", "sglang")
        except CommandError as error:
            self.stderr.write(f"SGLang could not be installed, so its tests are skipped: {error}")

    def _ensure_browser(self) -> None:
        """Installs Chromium with apt when it is missing and we may; says so when the browser tests cannot run."""
        if any(shutil.which(name) for name in BROWSERS):
            return
        apt = shutil.which("apt-get")
        prefix = _may_install()
        if apt is None or prefix is None:
            self.stderr.write("Chromium is missing, so the browser tests are skipped; install it with: apt-get install chromium")
            return
        self.stderr.write("Installing Chromium for the browser tests (once) …")
        environment = os.environ | {"DEBIAN_FRONTEND": "noninteractive"}
        for command in (["update", "-q"], ["install", "-y", "-q", "--no-install-recommends", "chromium"]):
            if subprocess.call([*prefix, apt, *command], env=environment, stdout=subprocess.DEVNULL) != 0:
                self.stderr.write("apt-get could not install Chromium, so the browser tests are skipped.")
                return


def _environment() -> dict[str, str]:
    """What tests have besides: one thread an operator, and the SGLang of this home though they use another.

    Compiled modules are kept also where the shell says not to: hundreds of processes would compile the platform anew.
    """
    python = Path(settings.R1_HOME) / "sglang" / "bin" / "python"
    found = {"OMP_NUM_THREADS": "1", "PYTHONDONTWRITEBYTECODE": ""}
    return found | {"R1_SGLANG_PYTHON": os.environ.get("R1_SGLANG_PYTHON") or str(python)}


def _may_install() -> list[str] | None:
    """The prefix with which we may install packages: none as root, `sudo -n` where it asks nothing, else None."""
    if os.geteuid() == 0:
        return []
    sudo = shutil.which("sudo")
    if sudo is not None and subprocess.call([sudo, "-n", "true"], stderr=subprocess.DEVNULL) == 0:
        return [sudo, "-n"]
    return None
