"""The first signal asks, a later one kills; what the launcher passes on at once is the same ask."""

from __future__ import annotations

import signal
import subprocess
import sys

import pytest

CODE = """
import signal, sys
from model_core.training import signals
signals.SAME_ASK_SECONDS = float(sys.argv[1])
asked = signals.StopSignals()
for name in sys.argv[2:]:
    signal.raise_signal(getattr(signal, name))
print(asked.received)
"""


def run(*arguments: str) -> tuple[int, str]:
    done = subprocess.run([sys.executable, "-c", CODE, *arguments], capture_output=True, text=True, timeout=60)
    return done.returncode, done.stdout.strip()


@pytest.mark.parametrize("name", ["SIGTERM", "SIGINT"])
def test_the_first_asks_and_a_later_one_kills(name: str) -> None:
    assert run("60", name) == (0, name)
    assert run("60", name, "SIGTERM") == (0, name)
    assert run("-1", name, "SIGTERM") == (-signal.SIGTERM, "")
