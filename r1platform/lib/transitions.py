"""The one way to change a state: compare and set, one history row, a callback on commit.

Which moves exist is data in each app's `states.py`. Each app wraps `transition` in its `*_transition` functions, and
those are the only writers of a `state` column (`tests/contracts/test_code.py`).
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

from django.contrib.auth.models import User
from django.db import models, transaction


class IllegalTransition(Exception):
    """The table of moves does not allow this one; whoever asked must look at the present state."""

    def __init__(self, entity: str, pk: int, current: str, to: str) -> None:
        super().__init__(f"{entity} {pk} is {current}; it cannot become {to}.")
        self.entity = entity
        self.pk = pk
        self.current = current
        self.to = to


class StaleFence(Exception):
    """A newer owner has taken over; the caller must end itself without writing."""

    def __init__(self, entity: str, pk: int, fence: int) -> None:
        super().__init__(f"{entity} {pk} has a newer owner than fence {fence}.")


def transition(
    model: type[models.Model],
    *,
    pk: int,
    to: str,
    moves: Mapping[str, set[str]],
    history: type[models.Model] | None,
    link: str = "",
    reason: str = "",
    user: User | None = None,
    fields: Mapping[str, Any] | None = None,
    fence: int | None = None,
    on_commit: Callable[[], object] | None = None,
) -> bool:
    """Moves the row `pk` to the state `to` and says whether this call did it.

    False means that the row is already there: another writer was first, which is no error. `fields` are set in the
    same update. `history` gets one row with `before`, `after`, `reason` and `user`; `link` names its foreign key.

    Raises IllegalTransition when `moves` does not allow it, StaleFence when `fence` is not the row's, and the model's
    DoesNotExist.
    """
    changes = {"state": str(to), **(fields or {})}
    if any(field.name == "state_reason" for field in model._meta.get_fields()):
        changes.setdefault("state_reason", reason)
    with transaction.atomic():
        before = _compare_and_set(model, pk, str(to), moves, changes, fence)
        if before is None:
            return False
        if history is not None:
            history._default_manager.create(
                **{f"{link}_id": pk}, before=before, after=str(to), reason=reason, user=user
            )
        if on_commit is not None:
            transaction.on_commit(on_commit)
    return True


def _compare_and_set(
    model: type[models.Model],
    pk: int,
    to: str,
    moves: Mapping[str, set[str]],
    changes: dict[str, Any],
    fence: int | None,
) -> str | None:
    """The state it was moved from, or None when it is in `to` already. Tries again when another writer came between."""
    rows = model._default_manager.filter(pk=pk)
    while True:
        before = str(_read(model, rows, pk, fence))
        allowed = to in moves.get(before, set())
        if before == to and not allowed:
            return None
        if not allowed:
            raise IllegalTransition(str(model._meta.verbose_name).capitalize(), pk, before, to)
        guard = rows.filter(state=before) if fence is None else rows.filter(state=before, fence=fence)
        if guard.update(**changes):
            return before


def _read(model: type[models.Model], rows: models.QuerySet[Any], pk: int, fence: int | None) -> str:
    names = ["state"] if fence is None else ["state", "fence"]
    found = rows.values(*names).first()
    if found is None:
        raise model.DoesNotExist(f"{model._meta.verbose_name} {pk} does not exist.")  # type: ignore[attr-defined]
    if fence is not None and found["fence"] != fence:
        raise StaleFence(str(model._meta.verbose_name).capitalize(), pk, fence)
    return str(found["state"])
