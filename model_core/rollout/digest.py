"""The digest of a model's weights: two processes that have the same one hold the same numbers."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping

from torch import Tensor


def weights_digest(state: Mapping[str, Tensor]) -> str:
    """`sha256:…` over names, shapes and values as float32, in which every format of weights is exact."""
    found = hashlib.sha256()
    for name in sorted(state):
        values = state[name].detach().float().cpu().contiguous()
        found.update(f"{name} {tuple(values.shape)}\n".encode())
        found.update(values.numpy().data)
    return f"sha256:{found.hexdigest()}"
