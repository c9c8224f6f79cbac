"""Who vouches for a user where passwords are switched off: nobody by a password, whoever knows one."""

from __future__ import annotations

from typing import Any

from django.contrib.auth.backends import ModelBackend


class WithoutPasswords(ModelBackend):
    """Users, sessions and permissions as always; every password is refused, in the admin too."""

    def authenticate(self, request: Any, username: str | None = None, password: str | None = None, **kwargs: Any) -> None:
        """Nobody."""
        return
