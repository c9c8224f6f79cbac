"""The library that makes and serves an R1-style model; it has never heard of Django.

Light parts import without torch: config, errors, registry, rundir, events, launch, phases, rewards, sources, filters,
tasks, evaluation.benchmarks, serving.engines. Heavy ones: model, data, training, grpo, rollout.
"""

__version__ = "0.1.0"
