"""`./r1 test`: every test that this machine can run; arguments go to pytest."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from typing import Any

from django.conf import settings
from django.core.management import call_command
from django.core.management.base import BaseCommand

BROWSERS = ("chromium", "chromium-browser", "google-chrome")


class Command(BaseCommand):
    help = "Runs the tests. Arguments go to pytest, for example: ./r1 test tests/serving_app -k stream"
    requires_system_checks: list[str] = []

    def run_from_argv(self, argv: list[str]) -> None:
        """Takes every argument as pytest's; Django's own parsing would refuse them."""
        arguments = argv[2:]
        self._ensure_browser()
        if any("sglang" in argument for argument in arguments):
            call_command("engine", "install", "sglang")
        options = [] if any(argument.startswith("-n") for argument in arguments) else ["-n", "2", "--dist", "loadfile"]
        argv = [sys.executable, "-m", "pytest", *options, *arguments]
        sys.exit(subprocess.call(argv, cwd=settings.BASE_DIR, env=os.environ | {"OMP_NUM_THREADS": "1"}))

    def handle(self, *args: Any, **options: Any) -> None:
        raise AssertionError("run_from_argv does it all")

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


def _may_install() -> list[str] | None:
    """The prefix with which we may install packages: none as root, `sudo -n` where it asks nothing, else None."""
    if os.geteuid() == 0:
        return []
    sudo = shutil.which("sudo")
    if sudo is not None and subprocess.call([sudo, "-n", "true"], stderr=subprocess.DEVNULL) == 0:
        return [sudo, "-n"]
    return None
