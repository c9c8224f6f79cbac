"""What a machine has: CPU, memory, disk, GPUs; and how that compares with the article's requirements."""

from __future__ import annotations

import contextlib
import os
import platform
import shutil
from pathlib import Path
from typing import Any

import psutil

GIB = 1 << 30
MINIMUM = {"gpu": "RTX 3060", "gpu_memory_bytes": 12 * GIB, "memory_bytes": 16 * GIB, "disk_bytes": 50 * GIB}
RECOMMENDED = {"gpu": "RTX 4080", "gpu_memory_bytes": 16 * GIB, "memory_bytes": 32 * GIB, "disk_bytes": 100 * GIB}
"""Source: the article's table of system requirements; GPU memory is that of the cards it names."""
_ROUNDING = 0.93
"""Firmware and drivers keep a part of the memory that is on the label."""


def hardware_find(home: Path) -> dict[str, Any]:
    """CPU, memory, disk of `home`, GPUs. Units: bytes and counts."""
    disk = shutil.disk_usage(home)
    return {
        "cpu": _cpu_name(),
        "num_cpus": len(os.sched_getaffinity(0)),
        "memory_bytes": psutil.virtual_memory().total,
        "disk_bytes": disk.total,
        "disk_free_bytes": disk.free,
        "platform": platform.platform(terse=True),
        "python": platform.python_version(),
        "gpus": gpus_find(),
    }


def gpus_find() -> list[dict[str, Any]]:
    """GPUs as the driver lists them; none without a driver."""
    import pynvml

    try:
        pynvml.nvmlInit()
    except pynvml.NVMLError:
        return []
    try:
        return [_gpu(pynvml, index) for index in _visible(pynvml.nvmlDeviceGetCount())]
    finally:
        with contextlib.suppress(pynvml.NVMLError):
            pynvml.nvmlShutdown()


def gpu_memory_used(uuid: str) -> int | None:
    """Bytes in use on one GPU, or None when it cannot be asked; a stopped engine has given them back."""
    import pynvml

    try:
        pynvml.nvmlInit()
        return int(pynvml.nvmlDeviceGetMemoryInfo(pynvml.nvmlDeviceGetHandleByUUID(uuid)).used)
    except pynvml.NVMLError:
        return None


def hardware_assess(found: dict[str, Any]) -> list[dict[str, Any]]:
    """One row a requirement: what, found, minimum, recommended (texts) and verdict: recommended, minimum or below."""
    gpus = found.get("gpus") or []
    best = max(gpus, key=lambda gpu: gpu["memory_bytes"], default=None)
    rows = [
        {
            "what": "GPU",
            "found": f"{best['name']}, {_gib(best['memory_bytes'])}" if best else "none: everything runs on the CPU",
            "minimum": MINIMUM["gpu"],
            "recommended": f"{RECOMMENDED['gpu']} or better",
            "verdict": _verdict(best["memory_bytes"] if best else 0, "gpu_memory_bytes"),
        }
    ]
    for what, key in (("Memory", "memory_bytes"), ("Disk", "disk_bytes")):
        size = int(found.get(key) or 0)
        rows.append(
            {
                "what": what,
                "found": _gib(size),
                "minimum": _gib(int(MINIMUM[key])),  # type: ignore[call-overload]
                "recommended": _gib(int(RECOMMENDED[key])),  # type: ignore[call-overload]
                "verdict": _verdict(size, key),
            }
        )
    return rows


def _verdict(size: int, key: str) -> str:
    if size >= RECOMMENDED[key] * _ROUNDING:  # type: ignore[operator]
        return "recommended"
    return "minimum" if size >= MINIMUM[key] * _ROUNDING else "below"  # type: ignore[operator]


def _gib(size: int) -> str:
    return f"{size / GIB:.0f} GiB"


def _visible(count: int) -> list[int]:
    """Indices that CUDA_VISIBLE_DEVICES leaves us; all when it is unset or names no plain indices."""
    text = os.environ.get("CUDA_VISIBLE_DEVICES")
    if text is None:
        return list(range(count))
    parts = [part.strip() for part in text.split(",") if part.strip()]
    if not all(part.isdigit() for part in parts):
        return list(range(count))
    return [int(part) for part in parts if int(part) < count]


def _gpu(nvml: Any, index: int) -> dict[str, Any]:
    handle = nvml.nvmlDeviceGetHandleByIndex(index)
    memory = nvml.nvmlDeviceGetMemoryInfo(handle)
    return {
        "index": index,
        "name": str(nvml.nvmlDeviceGetName(handle)),
        "uuid": str(nvml.nvmlDeviceGetUUID(handle)),
        "memory_bytes": int(memory.total),
        "memory_used_bytes": int(memory.used),
        "driver": str(nvml.nvmlSystemGetDriverVersion()),
    }


def _cpu_name() -> str:
    for line in Path("/proc/cpuinfo").read_text().splitlines():
        if line.startswith("model name"):
            return line.partition(":")[2].strip()
    return platform.processor() or platform.machine()
