"""Imports all that a trainer may need, for the process that test processes are forked from."""

from __future__ import annotations

import importlib
import pkgutil

import deepspeed
import deepspeed.ops  # noqa: F401
import torch._dynamo  # noqa: F401
import transformers  # noqa: F401

import model_core

HEAVY = ("causal", "commands", "data", "grpo", "model", "phases", "reward_model", "rewards", "rollout", "serving", "training")

for module in pkgutil.walk_packages(model_core.__path__, "model_core."):
    if module.name.split(".")[1] in HEAVY:
        importlib.import_module(module.name)
