"""Runs at the start of every Python of the SGLang engine on a CPU: lets it import what is compiled for CUDA.

torchvision's operators are declared so that its import works; triton, a gigabyte that no CPU uses, becomes modules made
by the mock class that SGLang ships for macOS.
"""

from __future__ import annotations

import importlib.util
import sys
from importlib.machinery import ModuleSpec
from pathlib import Path
from types import ModuleType
from typing import Any

SUBMODULES = (
    "language", "language.extra", "language.extra.libdevice", "runtime", "runtime.jit", "runtime.cache",
    "runtime.autotuner", "runtime.driver", "compiler", "compiler.compiler", "testing", "tools",
    "tools.tensor_descriptor", "backends", "backends.compiler",
)  # fmt: skip
_kept: list[Any] = []


class DeclareVision:
    """Declares two operators of torchvision right before it is imported for the first time."""

    def find_spec(self, name: str, _path: Any = None, _target: Any = None) -> None:
        if name != "torchvision":
            return
        sys.meta_path.remove(self)
        import torch

        library: Any = torch.library.Library("torchvision", "FRAGMENT")  # type: ignore[no-untyped-call]
        for operator in ("nms", "qnms"):
            library.define(f"{operator}(Tensor dets, Tensor scores, float iou_threshold) -> Tensor")
        _kept.append(library)


class MockTriton:
    """Finds `triton` and everything below it where no real one is installed."""

    def __init__(self) -> None:
        self.stubs: Any = None
        self.made: dict[str, ModuleType] = {}

    def find_spec(self, name: str, _path: Any = None, _target: Any = None) -> ModuleSpec | None:
        if name.partition(".")[0] != "triton" or not _is_sglang():
            return None
        if self.stubs is None:
            self._make()
        return ModuleSpec(name, self, is_package=True)  # type: ignore[arg-type]

    def create_module(self, spec: ModuleSpec) -> Any:
        found = self.made.get(spec.name)
        return self.stubs._make_mock(spec.name) if found is None else found  # a mock may count as false

    def exec_module(self, _module: ModuleType) -> None:
        """It is complete when it is made."""

    def _make(self) -> None:
        """Builds the tree with the few names that are used as types or called at import."""
        self.stubs = stubs = _load_stubs()
        top = stubs._make_mock("triton")
        for name in SUBMODULES:
            parent, _, child = f"triton.{name}".rpartition(".")
            setattr(sys.modules[parent], child, stubs._make_mock(f"triton.{name}"))
        top.__version__ = "3.0.0"
        top.cdiv, top.next_power_of_2, top.Config = stubs._cdiv, stubs._next_power_of_2, stubs._Config
        found = sys.modules
        found["triton.language"].constexpr = type("constexpr", (), {"__init__": _keep_value})  # type: ignore[attr-defined]
        found["triton.language"].dtype = type("dtype", (), {})  # type: ignore[attr-defined]
        for where, names in {
            "runtime.jit": ("JITFunction", "KernelInterface"), "compiler": ("CompiledKernel",),
            "compiler.compiler": ("ASTSource",), "backends.compiler": ("GPUTarget",),
        }.items():  # fmt: skip
            for name in names:
                setattr(found[f"triton.{where}"], name, type(name, (stubs._StubBase,), {}))
        for name in ("OutOfResources", "PTXASError"):
            setattr(found["triton.runtime.autotuner"], name, type(name, (Exception,), {}))
        for where in ("runtime.cache", "compiler.compiler"):
            found[f"triton.{where}"].triton_key = stubs._triton_key  # type: ignore[attr-defined]
        self.made = {name: module for name, module in found.items() if name.partition(".")[0] == "triton"}
        for name in self.made:
            del found[name]  # imports have to go through this finder


def _keep_value(self: Any, value: Any = None) -> None:
    self.value = value


def _load_stubs() -> Any:
    """SGLang's module of mocks, without importing SGLang itself."""
    package = importlib.util.find_spec("sglang")
    assert package is not None and package.submodule_search_locations
    path = Path(package.submodule_search_locations[0]) / "_platform_stubs.py"
    spec = importlib.util.spec_from_file_location("r1_sglang_platform_stubs", path)
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules[spec.name] = module
    spec.loader.exec_module(module)
    return module


def _is_sglang() -> bool:
    """Whether this Python is the engine or one that it has spawned; other programs are left alone."""
    line = " ".join([*sys.argv, *sys.orig_argv])
    return "sglang" in line or "spawn_main" in line or "sglang" in sys.modules


sys.meta_path.insert(0, DeclareVision())
sys.meta_path.append(MockTriton())
