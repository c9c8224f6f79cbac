"""Who somebody from the provider is here: an account that is tied to them, the one of their verified mail, or a new one.

An account of staff is tied only by its owner, signed in by other means: a mail address is not enough for that power.
"""

from __future__ import annotations

import re
from typing import Any

from allauth.socialaccount.models import SocialAccount
from django.conf import settings
from django.contrib.auth.models import User
from django.db import IntegrityError, transaction
from django.db.models.functions import Now

from r1platform.lib.single_sign_on import SingleSignOn
from r1platform.models import Membership, Project
from r1platform.oidc import Identity, SignInRefused
from r1platform.services import audit

_NOT_IN_NAMES = re.compile(r"[^\w.+-]+")


@transaction.atomic
def oidc_sign_in(*, identity: Identity, sso: SingleSignOn) -> User:
    """The user to sign in; they are tied or made where the settings allow it. Raises SignInRefused."""
    tied = oidc_accounts(identity.issuer).filter(uid=identity.subject).select_related("user").first()
    if tied is not None:
        oidc_accounts(identity.issuer).filter(pk=tied.pk).update(last_login=Now())
        user: User = tied.user
    else:
        _require_mail(identity, sso)
        user = _of_the_mail(identity) or _new(identity, sso)
        _tie(identity, user)
    if not user.is_active:
        raise SignInRefused(f"The account “{user.get_username()}” is switched off; ask an administrator.")
    audit(user=user, project=None, action="sign_in.oidc", target=f"user:{user.pk}", detail={"issuer": identity.issuer})
    return user


@transaction.atomic
def oidc_connect(*, identity: Identity, user: User) -> None:
    """Ties somebody who is signed in to whom the provider names, at their own wish. Raises SignInRefused."""
    tied = oidc_accounts(identity.issuer).filter(uid=identity.subject).first()
    if tied is not None and tied.user_id != user.pk:
        raise SignInRefused("That identity belongs to another account here; disconnect it there first.")
    if tied is None:
        _tie(identity, user)


@transaction.atomic
def oidc_disconnect(*, issuer: str, user: User) -> bool:
    """Unties a user; False when nothing was tied."""
    found = oidc_accounts(issuer).filter(user=user)
    if not found.exists():
        return False
    found.delete()
    audit(user=user, project=None, action="oidc.disconnect", target=f"user:{user.pk}", detail={"issuer": issuer})
    return True


def oidc_accounts(issuer: str) -> Any:
    """The ties of one provider; those of another issuer are others, whatever their subjects."""
    return SocialAccount.objects.filter(provider=issuer)


def oidc_context(user: User) -> dict[str, Any]:
    """What a person's own settings say of single sign-on; nothing where there is none."""
    sso: SingleSignOn | None = settings.R1_OIDC
    return {"sso": sso, "connected": oidc_accounts(sso.issuer).filter(user=user).exists()} if sso else {}


def _require_mail(identity: Identity, sso: SingleSignOn) -> None:
    if not identity.email:
        raise SignInRefused(f"{sso.name} says no verified mail address of yours, by which people are known here. Verify it there.")
    domain = identity.email.rpartition("@")[2].lower()
    if sso.domains and domain not in sso.domains:
        raise SignInRefused(f"People of “{domain}” cannot sign in here; allowed are {', '.join(sorted(sso.domains))}.")


def _of_the_mail(identity: Identity) -> User | None:
    """The account with this address. Addresses here are written by administrators, never by their owners."""
    found = list(User.objects.filter(email__iexact=identity.email)[:2])
    if len(found) > 1:
        raise SignInRefused(f"Several accounts here have the address {identity.email}; an administrator must mend that.")
    if found and (found[0].is_staff or found[0].is_superuser):
        raise SignInRefused(
            f"The account of {identity.email} is of staff, and a mail address alone does not open it. "
            "Sign in by password or one-time link, then connect it under Settings, API keys."
        )
    if found and oidc_accounts(identity.issuer).filter(user=found[0]).exists():
        raise SignInRefused(f"The account of {identity.email} is connected with another identity; disconnect that one first.")
    return found[0] if found else None


def _new(identity: Identity, sso: SingleSignOn) -> User:
    if not sso.creates:
        raise SignInRefused(f"Nobody here has the address {identity.email}; ask an administrator for an account.")
    user = User(username=_free_name(identity), email=identity.email)
    user.set_unusable_password()
    user.save()
    audit(user=user, project=None, action="user.sign_up", target=f"user:{user.pk}", detail={"issuer": identity.issuer})
    project = Project.objects.filter(slug=sso.project, archived_at=None).first() if sso.project else None
    if project is not None:
        Membership.objects.create(project=project, user=user, role=sso.role)
        detail = {"role": sso.role, "issuer": identity.issuer}
        audit(user=user, project=project, action="member.set", target=f"user:{user.pk}", detail=detail)
    return user


def _free_name(identity: Identity) -> str:
    base = _NOT_IN_NAMES.sub("-", identity.wanted_name).strip("-")[:100] or "user"
    taken = {name.lower() for name in User.objects.filter(username__istartswith=base).values_list("username", flat=True)}
    names = [base, *(f"{base}-{number}" for number in range(2, len(taken) + 2))]
    return next(name for name in names if name.lower() not in taken)


def _tie(identity: Identity, user: User) -> None:
    try:
        with transaction.atomic():
            SocialAccount.objects.create(provider=identity.issuer, uid=identity.subject, user=user)
    except IntegrityError:
        raise SignInRefused("You signed in twice at the same moment; try again.", status=409) from None
    audit(user=user, project=None, action="oidc.connect", target=f"user:{user.pk}", detail={"issuer": identity.issuer})
