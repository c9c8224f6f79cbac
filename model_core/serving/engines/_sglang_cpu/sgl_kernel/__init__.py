"""Stands in for SGLang's compiled kernels, which are built for CUDA: importing any name works, calling one does not."""

from __future__ import annotations

from typing import Any


def __getattr__(name: str) -> Any:
    if name.startswith("__"):
        raise AttributeError(name)

    def kernel(*_args: Any, **_kwargs: Any) -> Any:
        raise NotImplementedError(f"sgl_kernel.{name} is a CUDA kernel; this process serves on a CPU.")

    return kernel
