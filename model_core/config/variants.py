"""The published relatives of GRPO, as names of the parts that they are made of. Imports without torch.

An algorithm is an advantage, a ratio, a surrogate, a mean and two clip ranges. `PRESETS` has the papers' choices; every part
can be set by itself. What the parts do is in `model_core/grpo`.
"""

from __future__ import annotations

from typing import Any, Literal

Algorithm = Literal[
    "grpo_token", "grpo", "dr_grpo", "dapo", "gspo", "cispo", "rloo", "reinforce_plus_plus", "reinforce_plus_plus_baseline"
]
Advantage = Literal["group_std", "group_mean", "leave_one_out", "batch", "group_mean_batch_std"]
Mean = Literal["token", "sequence", "constant"]

PRESETS: dict[str, dict[str, Any]] = {
    "grpo_token": {"advantage": "group_std", "ratio": "token", "surrogate": "clip", "loss_mean": "token"},
    "grpo": {"advantage": "group_std", "ratio": "token", "surrogate": "clip", "loss_mean": "sequence"},
    "dr_grpo": {"advantage": "group_mean", "ratio": "token", "surrogate": "clip", "loss_mean": "constant"},
    "dapo": {
        "advantage": "group_std", "ratio": "token", "surrogate": "clip", "loss_mean": "token", "clip_high": 0.28,
        "refill_rounds": 3,
    },
    "gspo": {
        "advantage": "group_std", "ratio": "sequence", "surrogate": "clip", "loss_mean": "sequence", "clip_low": 3e-4,
        "clip_high": 4e-4,
    },
    "cispo": {"advantage": "group_std", "ratio": "token", "surrogate": "cispo", "loss_mean": "token", "clip_high": 4.0},
    "rloo": {"advantage": "leave_one_out", "ratio": "token", "surrogate": "clip", "loss_mean": "sequence"},
    "reinforce_plus_plus": {"advantage": "batch", "ratio": "token", "surrogate": "clip", "loss_mean": "token"},
    "reinforce_plus_plus_baseline": {
        "advantage": "group_mean_batch_std", "ratio": "token", "surrogate": "clip", "loss_mean": "token",
    },
}  # fmt: skip
"""Settings of `Reinforcement.Config` by algorithm.

Sources: grpo DeepSeekMath (arXiv 2402.03300), equation 3; dr_grpo arXiv 2503.20783, section 3.2; dapo arXiv 2503.14476,
equations 8 to 12; gspo arXiv 2507.18071, equation 5, clip ranges of its section 5.1; cispo MiniMax-M1 (arXiv 2506.13585),
equation 4; rloo arXiv 2402.14740, section 2.3; reinforce_plus_plus arXiv 2501.03262. `grpo_token` is GRPO with DAPO's mean over
tokens, which the demo was found with. RLOO and REINFORCE++ keep the clipped ratio where a step makes several updates.
"""


def with_parts(values: dict[str, Any], *, default: Algorithm) -> dict[str, Any]:
    """The settings with the parts of their algorithm where nothing else is said; an unknown algorithm is left to be refused."""
    name = values.get("algorithm", default)
    return {**PRESETS.get(name, {}), **values} if isinstance(name, str) else values
