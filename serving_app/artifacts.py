"""What may be served: whole directories of data files only, never code; of others' models only what was approved.

Across this boundary goes safetensors. A `.py` file, a pickle or an `auto_map` in a configuration would run somebody's
code inside the engine, so they are refused before an engine sees the directory.
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

from model_core.errors import CheckpointError
from model_core.published import digest, files_of, refusals_of_code
from model_core.published.template import template_of
from model_core.rundir import COMPLETE
from serving_app.model_directories import directory_of
from serving_app.models import Artifact, ImportedModel
from serving_app.states import ImportState
from training_app.models import Checkpoint
from training_app.services import checkpoint_model_dir

Told = Callable[[int, int], bool]
"""Hears how many bytes of how many are compared; says whether to go on."""


def refuse_if_unusable(artifact: Artifact) -> None:
    """Refuses at once what can be seen from here; on a node without the files `served_dir` decides when it starts."""
    if isinstance(artifact, ImportedModel):
        _refuse_import(artifact)
        return
    if artifact.removed_at is not None:
        raise CheckpointError(
            f"{artifact} was removed from disk to make room. Choose another checkpoint.", field="checkpoint"
        )
    if checkpoint_model_dir(artifact).parent.exists():
        model_dir(artifact)


def served_dir(artifact: Artifact, *, told: Told) -> Path:
    """The directory for an engine, after every check. Raises CheckpointError; Unhashed when `told` ends it."""
    return approved_dir(artifact, told=told) if isinstance(artifact, ImportedModel) else model_dir(artifact)


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
    """Raises CheckpointError when the directory of a checkpoint holds no safetensors, or anything that could run."""
    try:
        files = files_of(directory)
        for error in refusals_of_code(directory):
            raise error
    except CheckpointError as error:
        raise CheckpointError(f"The checkpoint cannot be served: {error.message}", field="checkpoint") from None
    if not any(name.endswith(".safetensors") for name in files):
        raise CheckpointError("The checkpoint has no safetensors file; export it again.", field="checkpoint")


def approved_dir(model: ImportedModel, *, told: Told) -> Path:
    """The directory of an imported model, of which every byte is still the approved one. Raises CheckpointError, Unhashed."""
    _refuse_import(model)
    directory = directory_of(model.name)
    _refuse_changed(model, directory)
    found = digest(directory, list(files_of(directory)), told=lambda done: told(done, model.num_bytes))
    if found.sha256 != model.sha256:
        approved = {name: sha256 for name, _size, sha256 in model.files}
        changed = next(name for name, _size, sha256 in found.files if approved.get(name) != sha256)
        raise _changed(model, f"“{changed}” has other content")
    return directory


def _refuse_import(model: ImportedModel) -> None:
    """What can be seen without reading weights."""
    if model.removed_at is not None:
        raise CheckpointError(f"“{model}” was removed from the imported models. Import it again.", field="imported_model")
    if model.state != ImportState.READY:
        label = model.get_state_display().lower()
        raise CheckpointError(f"“{model}” is {label}. {model.state_reason}".strip(), field="imported_model")
    try:
        directory = directory_of(model.name)
    except CheckpointError:
        return  # it may lie on another node
    _refuse_changed(model, directory)


def _refuse_changed(model: ImportedModel, directory: Path) -> None:
    """By the chat template and the files' names and sizes."""
    try:
        template, found = template_of(directory), files_of(directory)
    except CheckpointError as error:
        raise _changed(model, error.message.rstrip(".")) from None
    if template != model.chat_template:
        raise _changed(model, "its chat template is another one")
    approved = {name: size for name, size, _sha256 in model.files}
    for name in sorted(approved.keys() | found.keys()):
        if name not in found:
            raise _changed(model, f"“{name}” is gone")
        if name not in approved:
            raise _changed(model, f"“{name}” is new")
        if found[name] != approved[name]:
            raise _changed(model, f"“{name}” has {found[name]} bytes, not {approved[name]}")


def _changed(model: ImportedModel, what: str) -> CheckpointError:
    return CheckpointError(
        f"The directory of “{model}” is not what was approved: {what}. Put back what was there, or remove the import, look at the "
        "directory and import it again.", field="imported_model",
    )  # fmt: skip
