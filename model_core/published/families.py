"""The `model_type`s that are read here, with the class that config.json names: our own, and those of dense students."""

from __future__ import annotations

ARCHITECTURES = {"deepseek_v2": "DeepseekV2ForCausalLM", "deepseek_v3": "DeepseekV3ForCausalLM"}
"""What `model_core.model` builds."""
DENSE_CLASSES = {"qwen2": "Qwen2ForCausalLM", "qwen3": "Qwen3ForCausalLM", "llama": "LlamaForCausalLM"}
"""What `model_core.causal` builds: a trunk `model`, a head `lm_head`, no experts."""
DENSE = tuple(DENSE_CLASSES)
"""Their `model_type`s."""
