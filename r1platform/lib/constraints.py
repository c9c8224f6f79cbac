"""Database constraints that every table repeats; Django's `choices` alone guard only forms."""

from __future__ import annotations

from django.db.models import CheckConstraint, Q
from django.db.models.enums import Choices


def one_of(field: str, choices: type[Choices], *, name: str) -> CheckConstraint:
    """Refuses in the database any value of `field` outside `choices`."""
    return CheckConstraint(condition=Q(**{f"{field}__in": choices.values}), name=name)
