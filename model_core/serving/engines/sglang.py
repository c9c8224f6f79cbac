"""The real SGLang, in an environment of its own: on GPUs as it is, on a CPU with what `_sglang_cpu` adds.

Source: https://docs.sglang.ai. Deviation: readiness is a real token, since /health answers on servers that hang.
"""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any, ClassVar, Literal, Self

import httpx
from prometheus_client.parser import text_string_to_metric_families
from pydantic import Field, model_validator

from model_core.config import StrictModel
from model_core.planner.serving import Load, ServedModel
from model_core.published import Published
from model_core.registry import registered
from model_core.serving.protocol import LOOPBACK, Command, Readiness, first_token

CPU_PARTS = Path(__file__).parent / "_sglang_cpu"
REASONING = Path(__file__).parent / "_sglang_reasoning"
"""Also the folder of the script that is run, which Python puts first on the path: on a GPU nothing of the CPU's may be there."""
CPU_CACHE_TOKENS = 4096
"""On a CPU its cache would otherwise take all memory."""
_NUMBER_BYTES = {"float32": 4, "bfloat16": 2, "float16": 2}
_QUANTIZED_BYTES = {"fp8": 1.0, "w8a8_int8": 1.0, "w8a8_fp8": 1.0, "awq": 0.5, "gptq": 0.5}
"""Of a weight; awq and gptq are stored in four bits as a rule. Scales are left out."""
_NAMES = {
    "sglang:num_running_reqs": "running", "sglang:num_queue_reqs": "queued", "sglang:gen_throughput": "tokens_per_second",
    "sglang:token_usage": "kv_use", "sglang:cache_hit_rate": "cache_hit_rate",
}  # fmt: skip
_MEANS = {
    "sglang:time_to_first_token_seconds": "ttft_seconds", "sglang:inter_token_latency_seconds": "inter_token_seconds",
}  # fmt: skip


def python_of(home: Path) -> Path:
    """The interpreter that has SGLang: R1_SGLANG_PYTHON, else the environment below `home`."""
    given = os.environ.get("R1_SGLANG_PYTHON", "")
    return Path(given) if given else home / "sglang" / "bin" / "python"


@registered
class SGLang:
    """RadixAttention, tensor parallelism and every feature of a production engine."""

    title: ClassVar[str] = "SGLang"
    stop_grace_seconds: ClassVar[float] = 20.0

    class Config(StrictModel):
        """Settings of the engine; what they mean is in SGLang's server arguments."""

        device: Literal["auto", "cpu", "cuda"] = "auto"
        """Where it runs; "auto" takes a GPU where there is one."""
        dtype: Literal["auto", "float32", "bfloat16", "float16"] = "auto"
        """Number format of the weights; on a CPU "auto" is float32."""
        context_length: int | None = Field(None, ge=1)
        """Longest prompt and answer together; empty: as the checkpoint says."""
        max_total_tokens: int | None = Field(None, ge=64)
        """Tokens of the cache; on a CPU it would otherwise take all memory, so empty means 4096 there."""
        max_running_requests: int = Field(8, ge=1, le=4096)
        """Requests that decode together."""
        tensor_parallel_size: int = Field(1, ge=1, le=64)
        """Devices over which each layer is split."""
        expert_parallel_size: int = Field(1, ge=1, le=64)
        """Groups of those devices among which the experts are divided, in place of splitting each expert."""
        data_parallel_size: int = Field(1, ge=1, le=64)
        """Copies of the model, each on devices of its own, that share the requests of one replica."""
        memory_fraction: float | None = Field(None, ge=0.1, le=0.98)
        """Share of a device's memory for weights and cache; empty: as SGLang finds it."""
        quantization: Literal["none", "fp8", "awq", "gptq", "w8a8_int8", "w8a8_fp8"] = "none"
        """Format that the weights are multiplied in: “fp8” makes it while loading, the others must be stored so."""
        cache_dtype: Literal["auto", "fp8_e4m3", "fp8_e5m2"] = "auto"
        """Number format of the cache; “auto” is that of the weights."""
        speculative_tokens: int = Field(0, ge=0, le=8)
        """Tokens that the model's multi-token prediction drafts a step; 0: none, and for models without it."""
        reasoning_parser: Literal["r1", "deepseek-r1", "deepseek-v3", "qwen3", "gpt-oss"] = "r1"
        """How thinking is told from the answer; “r1” takes it from tag to tag wherever it begins, as the built-in engine does."""

        @model_validator(mode="after")
        def _divides(self) -> Self:
            if self.tensor_parallel_size % self.expert_parallel_size:
                raise ValueError(
                    f"expert_parallel_size {self.expert_parallel_size} must divide tensor_parallel_size {self.tensor_parallel_size}"
                )
            return self

    def installed(self) -> str | None:
        """Whether its environment is there."""
        python = python_of(_home())
        if python.is_file():
            return None
        return f"SGLang is not installed ({python} is not there). Install it with: ./r1 engine install sglang"

    def refuses(self, model: Published) -> str | None:
        """It reads what transformers knows."""
        return None

    def load(self, model: ServedModel, config: Any, *, on_gpu: bool) -> Load:
        """In the format that is asked for, over the devices of tensor parallelism; the cache is laid out where it has a size."""
        on_gpu = on_gpu and config.device != "cpu"
        number_bytes = _NUMBER_BYTES.get(config.dtype) or _auto_bytes(model.stored_as, on_gpu=on_gpu)
        return Load(
            number_bytes=number_bytes if config.quantization == "none" else _QUANTIZED_BYTES[config.quantization],
            rows=config.max_running_requests,
            tokens=config.context_length or model.context,
            devices=config.tensor_parallel_size,
            copies=config.data_parallel_size,
            cache_number_bytes=number_bytes if config.cache_dtype == "auto" else 1,
            cache_tokens=config.max_total_tokens or (None if on_gpu else CPU_CACHE_TOKENS),
        )

    def command(
        self, *, model_dir: Path, port: int, served_name: str, api_key: str, config: Any, host: str = LOOPBACK
    ) -> Command:
        """`python -m sglang.launch_server`; the key is in a file-less environment, read by the small entry module."""
        on_cpu = config.device == "cpu" or (config.device == "auto" and not Path("/dev/nvidia0").exists())
        argv = [
            str(python_of(_home())), str(REASONING / "launch_sglang.py"), "--model-path", str(model_dir),
            "--host", host, "--port", str(port), f"--served-model-name={served_name}", "--enable-metrics",
            "--max-running-requests", str(config.max_running_requests), "--tp-size", str(config.tensor_parallel_size),
            "--reasoning-parser", config.reasoning_parser, *_given(config),
        ]  # fmt: skip
        dtype = "float32" if on_cpu and config.dtype == "auto" else config.dtype
        argv += ["--dtype", dtype]
        total = config.max_total_tokens or (CPU_CACHE_TOKENS if on_cpu else None)
        argv += ["--max-total-tokens", str(total)] if total else []
        argv += ["--context-length", str(config.context_length)] if config.context_length else []
        if not on_cpu:
            return Command(argv, {"R1_ENGINE_KEY": api_key, "PYTHONPATH": str(REASONING)})
        argv += ["--device", "cpu", "--attention-backend", "torch_native"]
        binding = "|".join(str(index) for index in range(config.tensor_parallel_size))
        env = {
            "R1_ENGINE_KEY": api_key, "PYTHONPATH": f"{CPU_PARTS}:{REASONING}", "SGLANG_USE_CPU_ENGINE": "1",
            "TORCHDYNAMO_DISABLE": "1", "OMP_NUM_THREADS": "1", "SGLANG_CPU_OMP_THREADS_BIND": binding,
        }  # fmt: skip
        return Command(argv, env)

    def is_ready(self, base_url: str, api_key: str, served_name: str) -> Readiness:
        """Up, then a real token."""
        try:
            answer = httpx.get(
                f"{base_url}/v1/models", headers={"Authorization": f"Bearer {api_key}"}, timeout=5, trust_env=False
            )
        except httpx.HTTPError:
            return Readiness("loading", "SGLang imports and loads the model; on a CPU this takes about a minute.")
        if not answer.is_success:
            return Readiness("loading", f"SGLang answers {answer.status_code}.")
        return first_token(base_url, api_key, served_name)

    def read_metrics(self, base_url: str) -> dict[str, Any]:
        """From its Prometheus page."""
        try:
            text = httpx.get(f"{base_url}/metrics/", timeout=5, trust_env=False, follow_redirects=True).text
            return parse_metrics(text)
        except (httpx.HTTPError, ValueError):
            return {}


def _given(config: Any) -> list[str]:
    """Arguments of settings that are not as SGLang has them by itself."""
    argv = ["--ep-size", str(config.expert_parallel_size)] if config.expert_parallel_size > 1 else []
    argv += ["--dp-size", str(config.data_parallel_size)] if config.data_parallel_size > 1 else []
    argv += ["--mem-fraction-static", str(config.memory_fraction)] if config.memory_fraction else []
    argv += ["--quantization", config.quantization] if config.quantization != "none" else []
    argv += ["--kv-cache-dtype", config.cache_dtype] if config.cache_dtype != "auto" else []
    if drafted := config.speculative_tokens:
        argv += ["--speculative-algorithm", "EAGLE", "--speculative-num-steps", str(drafted), "--speculative-eagle-topk", "1"]
        argv += ["--speculative-num-draft-tokens", str(drafted + 1)]
    return argv


def parse_metrics(text: str) -> dict[str, Any]:
    """The common names out of SGLang's Prometheus text."""
    found: dict[str, Any] = {}
    sums: dict[str, float] = {}
    for family in text_string_to_metric_families(text):
        for sample in family.samples:
            if sample.name in _NAMES:
                found[_NAMES[sample.name]] = sample.value
            sums[sample.name] = sums.get(sample.name, 0.0) + sample.value
    for name, common in _MEANS.items():
        if sums.get(f"{name}_count"):
            found[common] = sums[f"{name}_sum"] / sums[f"{name}_count"]
    return found


def _auto_bytes(stored_as: str, *, on_gpu: bool) -> int:
    """Of a number in the format that "auto" stands for: float32 on a CPU; on a GPU as it is stored, but float32 in half."""
    if not on_gpu:
        return 4
    return 1 if stored_as.startswith("F8") else 2


def _home() -> Path:
    return Path(os.environ.get("R1_HOME") or Path(__file__).resolve().parents[3] / "var")
