"""Writing a figure's result with what it was measured on."""

from __future__ import annotations

import json
import os
import platform
import time
from importlib.metadata import version
from pathlib import Path
from typing import Any

RESULTS = Path(__file__).parent / "results"


def write(name: str, *, packages: tuple[str, ...], peers: dict[str, str] | None = None, **values: Any) -> None:
    """Writes `results/NAME.json` and prints it. `peers` are the versions of what is not installed here."""
    lines = Path("/proc/cpuinfo").read_text().splitlines()
    cpu = next((line.partition(":")[2].strip() for line in lines if "model name" in line), "")
    result = {
        "name": name, **values, "versions": {package: version(package) for package in packages} | (peers or {}),
        "machine": {"cpu": cpu or platform.machine(), "num_cpus": len(os.sched_getaffinity(0))},
        "date": time.strftime("%Y-%m-%d"),
    }  # fmt: skip
    RESULTS.mkdir(exist_ok=True)
    text = json.dumps(result, indent=1, ensure_ascii=False)
    (RESULTS / f"{name}.json").write_text(text + "\n")
    print(text)
