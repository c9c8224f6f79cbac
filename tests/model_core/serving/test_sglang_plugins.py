"""The plugins that run inside SGLang, the entry module with the key, and what stands in for compiled packages on a CPU.

SGLang itself is not here: where a plugin names a class of it, a stand-in with that class takes its place.
"""

from __future__ import annotations

import ast
import importlib.metadata
import importlib.util
import json
import os
import subprocess
import sys
from collections.abc import Callable
from enum import Enum
from pathlib import Path
from types import ModuleType, SimpleNamespace
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from model_core.serving.engines.sglang import CPU_PARTS, REASONING
from model_core.serving.reasoning import CLOSE, OPEN, ReasoningSplitter
from tests.model_core.serving.engine_commands import command_of, option


def loaded(path: Path) -> Any:
    """The module of a file that is on no path here."""
    spec = importlib.util.spec_from_file_location(f"loaded_{path.stem}", path)
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


Stand = Callable[..., ModuleType]


@pytest.fixture
def stand_in(monkeypatch: pytest.MonkeyPatch) -> Stand:
    """Puts a module of SGLang in place for the time of the test."""

    def put(name: str, **values: Any) -> ModuleType:
        module = ModuleType(name)
        vars(module).update(values)
        monkeypatch.setitem(sys.modules, name, module)
        return module

    return put


@pytest.mark.parametrize("folder", [CPU_PARTS, REASONING])
def test_each_plugin_is_registered_and_registers(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (dist,) = importlib.metadata.distributions(path=[str(folder)])
    (entry,) = [entry for entry in dist.entry_points if entry.group == "sglang.srt.plugins"]
    assert entry.name == entry.module == folder.name.removeprefix("_").replace("sglang", "r1_sglang") and entry.attr == "register"
    monkeypatch.syspath_prepend(folder)
    try:
        assert callable(entry.load())
    finally:
        sys.modules.pop(entry.module, None)


class Detector:
    """As much of SGLang's base class as the plugin speaks to."""

    def __init__(self, opening: str, closing: str, **options: Any) -> None:
        self.marks, self.options = (opening, closing), options


@pytest.fixture
def parser(stand_in: Stand) -> ModuleType:
    return stand_in(
        "sglang.srt.parser.reasoning_parser", BaseReasoningFormatDetector=Detector, StreamingParseResult=SimpleNamespace,
        ReasoningParser=SimpleNamespace(DetectorMap={"deepseek-r1": object}),
    )  # fmt: skip


def test_the_reasoning_plugin_adds_the_parser_that_the_command_asks_for(parser: Any) -> None:
    loaded(REASONING / "r1_sglang_reasoning.py").register()
    found = parser.ReasoningParser.DetectorMap
    assert set(found) == {"deepseek-r1", option(command_of("sglang"), "--reasoning-parser")}
    made = found["r1"](stream_reasoning=True, force_reasoning=False, tool_start_token=None)
    assert made.marks == (OPEN, CLOSE)


PIECES = st.lists(st.sampled_from([OPEN, CLOSE, "<th", "ink>", "</", "a", " b\n", "ü"]), max_size=8)


@pytest.mark.usefixtures("parser")
def test_sglang_cuts_an_answer_as_the_built_in_engine_does() -> None:
    """Streamed and at once, with and without a template that opened the thinking."""
    make = loaded(REASONING / "r1_sglang_reasoning.py").detector()

    @given(PIECES, st.booleans())
    @settings(max_examples=100, deadline=None)
    def check(pieces: list[str], forced: bool) -> None:
        whole = make(force_reasoning=forced).detect_and_parse("".join(pieces))
        streaming = make(force_reasoning=forced)
        parts = [*(streaming.parse_streaming_increment(piece) for piece in pieces), streaming.finish()]
        told = "".join(p.reasoning_text for p in parts), "".join(p.normal_text for p in parts)
        ours = ReasoningSplitter(thinking=forced).feed("".join(pieces), last=True)
        assert told == (whole.reasoning_text, whole.normal_text) == ours

    check()


def test_the_rule_needs_nothing_of_ours() -> None:
    """It is read from its file in an environment that has none of our packages."""
    rule = loaded(REASONING / "r1_sglang_reasoning.py").RULE
    imports = [node for node in ast.walk(ast.parse(rule.read_text())) if isinstance(node, ast.Import | ast.ImportFrom)]
    assert {getattr(node, "module", None) or ast.unparse(node) for node in imports} == {"__future__"}


def test_the_cpu_plugin_hooks_both_places(stand_in: Stand) -> None:
    hooks: dict[str, Any] = {}
    registry = SimpleNamespace(register=lambda where, function, kind: hooks.update({where: (function, kind)}))
    stand_in("sglang.srt.plugins.hook_registry", HookRegistry=registry, HookType=SimpleNamespace(AROUND="around"))
    plugin = loaded(CPU_PARTS / "r1_sglang_cpu.py")
    plugin.register()
    assert hooks == {plugin.ATTENTION: (plugin.absorbed, "around"), plugin.ROPE: (plugin.plain_rope, "around")}


def test_attention_on_a_cpu_is_always_absorbed(stand_in: Stand) -> None:
    method = Enum("method", ["MHA", "MHA_CHUNKED_KV", "MLA", "MLA_FUSED_ROPE"])
    where = "sglang.srt.models.deepseek_common.attention_forward_methods.forward_methods"
    stand_in(where, AttnForwardMethod=method)
    absorbed = loaded(CPU_PARTS / "r1_sglang_cpu.py").absorbed
    taken = {one.name: absorbed(lambda chosen: chosen, one).name for one in method}
    assert taken == {"MHA": "MLA", "MHA_CHUNKED_KV": "MLA", "MLA": "MLA", "MLA_FUSED_ROPE": "MLA_FUSED_ROPE"}


@pytest.mark.parametrize("scaling", [None, {}, {"rope_type": "default"}, {"rope_type": "yarn", "factor": 4.0}])
@pytest.mark.parametrize("by_name", [False, True])
def test_rotary_embeddings_without_scaling_come_from_the_general_factory(stand_in: Stand, scaling: Any, by_name: bool) -> None:
    stand_in("sglang.srt.layers.rotary_embedding.factory", get_rope=lambda *args, **named: ("general", args, named))
    plain_rope = loaded(CPU_PARTS / "r1_sglang_cpu.py").plain_rope
    positions = (64, 64, 4096, 10000, True)
    args, named = (positions, {"rope_scaling": scaling}) if by_name else ((*positions, scaling), {})
    told = plain_rope(lambda *a, **n: ("cpu", a, n), *args, **named, device="cpu")
    if scaling and scaling["rope_type"] == "yarn":
        assert told == ("cpu", args, {**named, "device": "cpu"})
    else:
        assert told == ("general", args, named), "which knows no device"


def test_a_kernel_can_be_imported_and_not_called() -> None:
    kernels = loaded(CPU_PARTS / "sgl_kernel" / "__init__.py")
    with pytest.raises(NotImplementedError, match=r"sgl_kernel\.fused_moe is a CUDA kernel; this process serves on a CPU"):
        kernels.fused_moe(1, block=2)
    assert not hasattr(kernels, "__wrapped__"), "what looks for special names finds none"


STUBS = """
import sys, types
class _StubBase: pass
_Config = type("_Config", (), {})
def _cdiv(a, b): return -(-a // b)
def _next_power_of_2(n): return 1 << (n - 1).bit_length()
def _triton_key(): return "key"
class Mock(types.ModuleType):
    __path__ = []
    def __getattr__(self, name):
        if name.startswith("__"): raise AttributeError(name)
        return Mock(f"{self.__name__}.{name}")
    def __bool__(self): return False
def _make_mock(name):
    sys.modules[name] = Mock(name)
    return sys.modules[name]
"""
LAUNCHED = """
import json, os, sys
from pathlib import Path
line = Path("/proc/self/cmdline").read_text()
print(json.dumps([sys.argv, os.environ.get("R1_ENGINE_KEY"), os.environ.get("SECRET") in line]))
"""


@pytest.fixture
def packages(tmp_path: Path) -> Path:
    """A package called sglang with the two modules that are asked for by name."""
    (tmp_path / "sglang").mkdir()
    for name, text in (("__init__", ""), ("_platform_stubs", STUBS), ("launch_server", LAUNCHED)):
        (tmp_path / "sglang" / f"{name}.py").write_text(text)
    return tmp_path


def python(*argv: str, **env: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, *argv], env={"PATH": os.environ["PATH"], **env}, capture_output=True, text=True, timeout=60, check=False
    )


@pytest.mark.parametrize("key", ["s3cret", ""])
def test_sglang_gets_its_key_inside_the_process(packages: Path, key: str) -> None:
    script = option(command_of("sglang"), command_of("sglang").argv[0])
    done = python(script, "--port", "1", PYTHONPATH=str(packages), R1_ENGINE_KEY=key, SECRET="s3cret")
    argv, left, is_seen = json.loads(done.stdout)
    assert argv[1:] == ["--port", "1", *(["--api-key", key] if key else [])] and left is None and not is_seen


def test_triton_is_a_mock_for_sglang_and_for_nobody_else(packages: Path) -> None:
    path = f"{packages}:{CPU_PARTS}"
    asked = (
        "import triton, triton.some.other.place, triton.language as tl, triton.runtime.jit as jit; "
        "from triton.runtime.autotuner import OutOfResources"
    )
    shown = "triton.cdiv(7, 2), tl.constexpr(3).value, isinstance(jit.JITFunction, type), issubclass(OutOfResources, Exception)"
    done = python("-c", f"import sglang; {asked}; print({shown})", PYTHONPATH=path)
    assert done.stdout.split() == ["4", "3", "True", "True"], done.stderr
    finder = "next(finder for finder in sys.meta_path if type(finder).__name__ == 'MockTriton')"
    other = python("-c", f"import sys; print({finder}.find_spec('triton'))", PYTHONPATH=path)
    assert other.stdout.strip() == "None", other.stderr


@pytest.mark.skipif(importlib.util.find_spec("torchvision") is not None, reason="the real one has declared its own")
def test_operators_of_torchvision_are_declared_once_before_it_is_imported(monkeypatch: pytest.MonkeyPatch) -> None:
    import torch

    monkeypatch.setattr(sys, "meta_path", list(sys.meta_path))
    parts = loaded(CPU_PARTS / "sitecustomize.py")
    (finder,) = [finder for finder in sys.meta_path if isinstance(finder, parts.DeclareVision)]
    finder.find_spec("torch.nn")
    assert finder in sys.meta_path and not parts._kept, "nothing is done for others"
    try:
        assert finder.find_spec("torchvision") is None and finder not in sys.meta_path
        for name in ("nms", "qnms"):
            assert "float iou_threshold" in str(getattr(torch.ops.torchvision, name).default._schema)
    finally:
        parts._kept[0]._destroy()


SEEN = """
import importlib.metadata, importlib.util, json
found = importlib.util.find_spec("sgl_kernel")
print(json.dumps([found and found.origin, [e.name for e in importlib.metadata.entry_points(group="sglang.srt.plugins")]]))
"""


@pytest.mark.parametrize(("device", "plugins"), [("cuda", {"r1_sglang_reasoning"}), ("cpu", {"r1_sglang_reasoning", "r1_sglang_cpu"})])
def test_what_a_cpu_needs_is_not_in_the_way_of_a_gpu(device: str, plugins: set[str], tmp_path: Path) -> None:
    """The folder of the script that is run comes first on its path."""
    (tmp_path / "sglang").mkdir()
    (tmp_path / "sglang" / "__init__.py").touch()
    (tmp_path / "sglang" / "launch_server.py").write_text(SEEN)
    command = command_of("sglang", device=device)
    path = f"{command.env['PYTHONPATH']}:{tmp_path}"
    done = subprocess.run([sys.executable, *command.argv[1:]], env={"PATH": os.environ["PATH"], **command.env, "PYTHONPATH": path},
                          capture_output=True, text=True, timeout=60, check=True)  # fmt: skip
    kernels, found = json.loads(done.stdout)
    assert set(found) == plugins and (kernels is not None) == (device == "cpu")
