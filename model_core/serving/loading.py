"""Which model a directory holds, and how it is served: ours, or a dense student of distillation."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from model_core.rollout.stream import StreamingSampler


def load_model(directory: Path) -> Any:
    """The model in float32. Raises CheckpointError for what neither family reads."""
    from model_core.model import load_pretrained
    from model_core.published.families import ARCHITECTURES
    from model_core.published.files import read_object

    file = directory / "config.json"
    kind = read_object(file).get("model_type") if file.is_file() else None
    if kind is None or kind in list(ARCHITECTURES):
        return load_pretrained(directory)
    from model_core.causal import DENSE, load_student  # seconds of imports, which our own model does without

    return load_student(directory) if kind in DENSE else load_pretrained(directory)


def stream_of(model: Any, *, eos_token_id: int, num_rows: int) -> StreamingSampler:
    """The continuous batch of the model's family."""
    from model_core.model import Transformer
    from model_core.rollout.stream import StreamingSampler

    if isinstance(model, Transformer):
        return StreamingSampler(model, eos_token_id=eos_token_id, num_rows=num_rows)
    from model_core.causal.stream import StudentStream

    return StudentStream(model, eos_token_id=eos_token_id, num_rows=num_rows)
