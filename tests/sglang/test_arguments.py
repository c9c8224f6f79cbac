"""The arguments that settings become are ones that the real SGLang knows, with values that it takes."""

from __future__ import annotations

import json
import os
import subprocess
from typing import Any, get_args

import pytest

from model_core.serving.engines import ENGINES
from tests.model_core.serving.engine_commands import command_of

ENGINE = ENGINES.get("sglang")
MISSING = ENGINE().installed()
PARSE = (
    "import argparse, json, sys; from sglang.srt.server_args import ServerArgs; parser = argparse.ArgumentParser(); "
    "ServerArgs.add_cli_args(parser); told = [vars(parser.parse_args(argv)) for argv in json.loads(sys.argv[1])]; "
    "print(json.dumps(told, default=str))"
)
pytestmark = [
    pytest.mark.sglang, pytest.mark.slow, pytest.mark.timeout(240), pytest.mark.skipif(MISSING is not None, reason=str(MISSING)),
]  # fmt: skip


def choices(name: str) -> list[str]:
    return [str(one) for one in get_args(ENGINE.Config.model_fields[name].annotation)]


def understood(*settings: dict[str, Any]) -> list[dict[str, Any]]:
    """What its own parser makes of our commands, in one process of its environment."""
    commands = [command_of("sglang", reasoning_parser="qwen3", **one) if "reasoning_parser" not in one else command_of("sglang", **one)
                for one in settings]  # fmt: skip
    argv = json.dumps([command.argv[2:] for command in commands])
    done = subprocess.run([commands[0].argv[0], "-c", PARSE, argv], env=os.environ | commands[0].env, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr[-3000:]
    found: list[dict[str, Any]] = json.loads(done.stdout.splitlines()[-1])
    return found


def test_it_understands_every_setting_and_every_choice() -> None:
    whole = {
        "tensor_parallel_size": 4, "expert_parallel_size": 2, "data_parallel_size": 3, "memory_fraction": 0.8, "context_length": 512,
        "speculative_tokens": 3, "max_total_tokens": 640, "max_running_requests": 5,
    }  # fmt: skip
    formats = [{"quantization": one} for one in choices("quantization")] + [{"cache_dtype": one} for one in choices("cache_dtype")]
    formats += [{"dtype": one} for one in choices("dtype")]
    parsers = [{"reasoning_parser": one} for one in choices("reasoning_parser") if one != "r1"]  # “r1” is our plugin's, in the tests beside
    first, *others = understood(whole, *formats, *parsers)
    names = ("tp_size", "ep_size", "dp_size", "mem_fraction_static", "context_length", "speculative_algorithm", "speculative_num_steps",
             "speculative_eagle_topk", "speculative_num_draft_tokens", "max_total_tokens", "max_running_requests")  # fmt: skip
    assert [first[name] for name in names] == [4, 2, 3, 0.8, 512, "EAGLE", 3, 1, 4, 640, 5]
    told = [{"quantization": one["quantization"] or "none", "cache_dtype": one["kv_cache_dtype"], "dtype": one["dtype"],
             "reasoning_parser": one["reasoning_parser"]} for one in others]  # fmt: skip
    wanted = [*formats, *parsers]
    assert len(told) == len(wanted)
    for asked, found in zip(wanted, told, strict=True):
        ((name, value),) = asked.items()
        assert found[name] == (value if (name, value) != ("dtype", "auto") else "float32"), "on a CPU “auto” is float32"
