"""Which checkpoints may be served: whole ones of data files only, never code.

Across this boundary goes safetensors. A `.py` file, a pickle or an `auto_map` in a configuration would run somebody's
code inside the engine, so they are refused before an engine sees the directory.
"""

from __future__ import annotations

import json
from pathlib import Path

from model_core.errors import CheckpointError
from model_core.rundir import COMPLETE
from training_app.models import Checkpoint
from training_app.services import checkpoint_model_dir

CODE_SUFFIXES = frozenset(
    {".py", ".pyc", ".pyd", ".so", ".bin", ".pt", ".pth", ".pkl", ".pickle", ".ckpt", ".joblib", ".npy", ".npz"}
)


def refuse_if_unusable(checkpoint: Checkpoint) -> None:
    """Refuses at once what can be seen from here; on a node without the files `model_dir` decides when it starts."""
    if checkpoint.removed_at is not None:
        raise CheckpointError(
            f"{checkpoint} was removed from disk to make room. Choose another checkpoint.", field="checkpoint"
        )
    if checkpoint_model_dir(checkpoint).parent.exists():
        model_dir(checkpoint)


def model_dir(checkpoint: Checkpoint) -> Path:
    """The Hugging Face directory of a checkpoint that is complete and holds no code. Raises CheckpointError."""
    directory = checkpoint_model_dir(checkpoint)
    if not (directory.parent / COMPLETE).is_file():
        raise CheckpointError(
            f"{checkpoint} has no {COMPLETE} marker: it was not written to its end. Choose another checkpoint.",
            field="checkpoint",
        )
    refuse_code(directory)
    return directory


def refuse_code(directory: Path) -> None:
    """Raises CheckpointError when the directory holds no safetensors, or anything that could run."""
    files = [path for path in directory.rglob("*") if not path.is_dir()]
    for path in files:
        if path.is_symlink() and not path.resolve().is_relative_to(directory.resolve()):
            raise CheckpointError(f"“{path.name}” is a link that leads out of the checkpoint.", field="checkpoint")
        if path.suffix.lower() in CODE_SUFFIXES:
            raise CheckpointError(
                f"The checkpoint holds “{path.name}”, which could run code when it is loaded. Only safetensors and "
                "JSON are served; export it again.",
                field="checkpoint",
            )
    if not any(path.suffix == ".safetensors" for path in files):
        raise CheckpointError("The checkpoint has no safetensors file; export it again.", field="checkpoint")
    for path in directory.glob("*.json"):
        _refuse_auto_map(path)


def _refuse_auto_map(path: Path) -> None:
    try:
        found = json.loads(path.read_bytes())
    except ValueError as error:
        raise CheckpointError(
            f"“{path.name}” of the checkpoint is not valid JSON: {error}.", field="checkpoint"
        ) from None
    if isinstance(found, dict) and "auto_map" in found:
        raise CheckpointError(
            f"“{path.name}” asks for code of its own (auto_map), which is never run. Export it without.",
            field="checkpoint",
        )
