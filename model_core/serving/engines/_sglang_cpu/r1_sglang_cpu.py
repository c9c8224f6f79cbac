"""SGLang plugin for the CPU: multi-head latent attention always absorbed, and plain rotary embeddings allowed.

Registered under the entry point group `sglang.srt.plugins`; runs in SGLang's environment, not in ours.
"""

from __future__ import annotations

from typing import Any

ATTENTION = "sglang.srt.models.deepseek_v2.DeepseekV2AttentionMLA.dispatch_attn_forward_method"
ROPE = "sglang.srt.layers.rotary_embedding.factory.get_rope_cpu"


def register() -> None:
    """Hooks both; called by SGLang in each of its processes."""
    from sglang.srt.plugins.hook_registry import HookRegistry, HookType

    HookRegistry.register(ATTENTION, absorbed, HookType.AROUND)
    HookRegistry.register(ROPE, plain_rope, HookType.AROUND)


def absorbed(original: Any, *args: Any, **kwargs: Any) -> Any:
    """The torch_native backend keeps only the latent cache, so a prefill cannot take the unpacked path."""
    from sglang.srt.models.deepseek_common.attention_forward_methods.forward_methods import AttnForwardMethod

    chosen = original(*args, **kwargs)
    return AttnForwardMethod.MLA if chosen.name.startswith("MHA") else chosen


def plain_rope(original: Any, *args: Any, **kwargs: Any) -> Any:
    """The CPU's own factory knows only YaRN; without scaling the general one does."""
    from sglang.srt.layers.rotary_embedding.factory import get_rope

    scaling = kwargs.get("rope_scaling", args[5] if len(args) > 5 else None)
    if scaling and scaling.get("rope_type", "default") != "default":
        return original(*args, **kwargs)
    kwargs.pop("device", None)
    return get_rope(*args[:8], **kwargs)
