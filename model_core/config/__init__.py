"""Configuration of runs, models and datasets, importable without torch. Presets are in `config.model`."""

from model_core.config.base import StrictModel
from model_core.config.gate import BenchmarkConfig, GateConfig
from model_core.config.model import PRESETS, ModelConfig, YarnConfig, preset
from model_core.config.prepare import FilterStep, MappingConfig, PrepareConfig
from model_core.config.run import (
    BudgetConfig,
    CheckpointConfig,
    HeldOutConfig,
    ParallelConfig,
    PrecisionConfig,
    RewardConfig,
    RunConfig,
    RunPaths,
    TokenizerConfig,
)

__all__ = [
    "PRESETS", "BenchmarkConfig", "BudgetConfig", "CheckpointConfig", "FilterStep", "GateConfig", "HeldOutConfig",
    "MappingConfig", "ModelConfig", "ParallelConfig", "PrecisionConfig", "PrepareConfig", "RewardConfig", "RunConfig", "RunPaths",
    "StrictModel", "TokenizerConfig", "YarnConfig", "preset",
]
