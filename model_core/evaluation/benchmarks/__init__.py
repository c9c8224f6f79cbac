"""One file a benchmark."""

from model_core.registry import Registry

BENCHMARKS = Registry("model_core.evaluation.benchmarks", kind="benchmark")
