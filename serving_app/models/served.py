"""What a revision serves, in one form for pages, API, placement and messages: a checkpoint of a run, or an imported model.

`kind` is its field in forms, API and audit; `label` and `title` are words, `url` is its page.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

from django.urls import reverse

from r1platform.models import Project
from serving_app.models.imports import ImportedModel
from training_app.models import Checkpoint

Artifact = Checkpoint | ImportedModel


@dataclass(frozen=True)
class ServedCheckpoint:
    """A step of a run."""

    artifact: Checkpoint
    kind: ClassVar[str] = "checkpoint"

    @property
    def label(self) -> str:
        """For a cell of a table."""
        return f"step {self.artifact.step} of run {self.artifact.run_id}"

    @property
    def title(self) -> str:
        """With the run's name."""
        return f"{self.label}, {self.artifact.run.name}"

    @property
    def url(self) -> str:
        """The checkpoints of its run."""
        return reverse("run-detail", args=[self.artifact.run_id, "checkpoints"])

    @property
    def project(self) -> Project:
        """Whose it is."""
        return self.artifact.run.project

    @property
    def node_id(self) -> int | None:
        """The node that has its files."""
        return self.artifact.attempt.node_id


@dataclass(frozen=True)
class ServedImport:
    """A directory of others."""

    artifact: ImportedModel
    kind: ClassVar[str] = "imported_model"

    @property
    def label(self) -> str:
        """For a cell of a table."""
        return self.artifact.name

    @property
    def title(self) -> str:
        """With what it is."""
        return f"{self.label}, imported"

    @property
    def url(self) -> str:
        """Its page."""
        return reverse("imported-model", args=[self.artifact.pk])

    @property
    def project(self) -> Project:
        """Whose it is."""
        return self.artifact.project

    @property
    def node_id(self) -> int | None:
        """The node that has hashed its files; None: any may have them."""
        return self.artifact.node_id


Served = ServedCheckpoint | ServedImport


def served_of(artifact: Artifact) -> Served:
    """The one place that tells them apart."""
    return ServedImport(artifact) if isinstance(artifact, ImportedModel) else ServedCheckpoint(artifact)
