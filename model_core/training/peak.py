"""The most memory that was held since one last asked: of a GPU by torch, on a CPU by the whole process.

Linux keeps that mark for a process and sets it back on request; elsewhere a CPU's is not known.
Source: proc_pid_status(5), VmHWM, and proc_pid_clear_refs(5), value 5.
"""

from __future__ import annotations

from pathlib import Path

import torch

_STATUS, _RESET = Path("/proc/self/status"), Path("/proc/self/clear_refs")


def take_peak_bytes(device: torch.device) -> int | None:
    """Bytes held at most since the last call, or since the process began; None where the system does not tell."""
    if device.type == "cuda":
        peak = torch.cuda.max_memory_allocated(device)
        torch.cuda.reset_peak_memory_stats(device)
        return peak
    try:
        [line] = [line for line in _STATUS.read_text().splitlines() if line.startswith("VmHWM:")]
        _RESET.write_text("5")
    except (OSError, ValueError):
        return None
    return int(line.split()[1]) << 10
