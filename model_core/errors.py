"""Every error that a user of the library can cause; each says the value, what is allowed and the remedy.

`field` names the configuration field (dotted) that the message belongs to, so that a form can show it there.
"""

from __future__ import annotations


class ModelCoreError(Exception):
    """Base of all errors that a user can cause."""

    def __init__(self, message: str, *, field: str = "") -> None:
        super().__init__(message)
        self.message = message
        self.field = field


class ConfigError(ModelCoreError):
    """A configuration that cannot work; change the named field. Where several are wrong, `parts` has (field, sentence) of each."""

    parts: tuple[tuple[str, str], ...] = ()


class DataError(ModelCoreError):
    """Data that cannot be used; mend the file or the mapping."""


class CheckpointError(ModelCoreError):
    """A checkpoint that is missing, incomplete, damaged or refused; choose another."""


class MachineError(ModelCoreError):
    """The machine cannot do what the configuration asks: too little memory, disk, or no compiler."""


class TrainingError(ModelCoreError):
    """Training cannot go on: a non-finite loss, a rank that died."""


class EngineError(ModelCoreError):
    """A serving engine cannot start or answer."""


class UnknownName(ModelCoreError):
    """A name that no file of the folder has; the message lists those that exist."""


class Undecided(ModelCoreError):
    """An answer that could not be judged: neither right nor wrong. Leave it out and count it as unscored."""
