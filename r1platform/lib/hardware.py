"""What a machine has: CPU, memory, disk, GPUs. `r1platform.page_data` compares it with the article's requirements."""

from __future__ import annotations

import contextlib
import os
import platform
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import psutil


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
        "temperature_celsius": _reading(nvml, lambda: nvml.nvmlDeviceGetTemperature(handle, nvml.NVML_TEMPERATURE_GPU)),
        "busy_fraction": _reading(nvml, lambda: nvml.nvmlDeviceGetUtilizationRates(handle).gpu / 100),
        "driver": str(nvml.nvmlSystemGetDriverVersion()),
    }


def _reading(nvml: Any, read: Callable[[], float]) -> float | None:
    """What a sensor says; None of a device that has none (a slice of one, say)."""
    try:
        return read()
    except nvml.NVMLError:
        return None


def _cpu_name() -> str:
    for line in Path("/proc/cpuinfo").read_text().splitlines():
        if line.startswith("model name"):
            return line.partition(":")[2].strip()
    return platform.processor() or platform.machine()
