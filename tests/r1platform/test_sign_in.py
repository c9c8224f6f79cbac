"""The door: guessing is slowed by address and by name, whatever the caller claims, and bad bytes are told so."""

from __future__ import annotations

from collections.abc import Iterator
from datetime import timedelta
from typing import Any

import pytest
from django.contrib.auth.models import User
from django.core.cache import cache
from django.db.models.functions import Now
from django.test import Client

from r1platform.models import Project, SignInLink
from r1platform.services import sign_in_link_create

PASSWORD = "correct horse battery"


@pytest.fixture(autouse=True)
def nobody_has_tried() -> Iterator[None]:
    cache.clear()
    yield
    cache.clear()


def attempt(name: str, password: str = "a guess", **headers: str) -> int:
    return Client().post("/sign-in/", {"username": name, "password": password}, headers=headers).status_code


def test_name_and_password_sign_in(alice: User) -> None:
    assert attempt("alice") == 400
    assert attempt("alice", PASSWORD) == 302


def test_a_claimed_address_gives_no_new_attempts(alice: User) -> None:
    codes = [attempt(f"user{number}", **{"X-Forwarded-For": f"10.0.0.{number}"}) for number in range(21)]
    assert codes == [400] * 20 + [429]
    assert attempt("alice", PASSWORD, **{"X-Forwarded-For": "10.9.9.9"}) == 429


def test_behind_a_proxy_the_address_that_the_proxy_saw_counts(alice: User, settings: Any) -> None:
    """The last entry is the proxy's own; what stands before it came from the caller."""
    settings.REST_FRAMEWORK = {**settings.REST_FRAMEWORK, "NUM_PROXIES": 1}
    codes = [attempt(f"user{number}", **{"X-Forwarded-For": f"10.0.0.{number}, 203.0.113.7"}) for number in range(21)]
    assert codes == [400] * 20 + [429]
    assert attempt("alice", PASSWORD, **{"X-Forwarded-For": "203.0.113.8"}) == 302


def test_a_name_is_slowed_from_everywhere(alice: User) -> None:
    def from_address(number: int, name: str) -> int:
        form = {"username": name, "password": "a guess"}
        return Client(REMOTE_ADDR=f"10.0.0.{number}").post("/sign-in/", form).status_code

    assert [from_address(number, "alice" if number % 2 else "ALICE") for number in range(11)] == [400] * 10 + [429]
    assert from_address(12, "bob") == 400, "another name is not slowed"


def test_a_link_is_slowed_by_address_only(alice: User) -> None:
    for _ in range(11):
        attempt("alice")
    assert Client().post(sign_in_link_create(user=alice)).status_code == 302
    for number in range(20):
        Client().post(f"/sign-in/wrong{number}/")
    assert Client().post("/sign-in/wrong/").status_code == 429


def test_a_link_promises_only_what_it_holds(alice: User) -> None:
    """Looking uses nothing up; a spent, an ended, an invented link and that of a closed account say so at once."""
    promise, link = "This link signs you in once", sign_in_link_create(user=alice)
    for _ in range(2):
        assert promise in Client().get(link).content.decode()
    assert Client().post(link).status_code == 302
    ended, closed = sign_in_link_create(user=alice), sign_in_link_create(user=User.objects.create_user("dora", is_active=False))
    SignInLink.objects.filter(user=alice, used_at=None).update(expires_at=Now() - timedelta(seconds=1))
    for path in (link, ended, closed, "/sign-in/invented/"):
        answer = Client().get(path)
        assert answer.status_code == 400 and promise not in answer.content.decode()
        assert "make another with ./r1 sign_in_link NAME" in answer.content.decode()


def test_a_zero_byte_in_a_form_is_a_400_with_a_sentence(client_alice: Client, project: Project) -> None:
    forms = [
        ("/sign-in/", {"username": "al\x00ice", "password": "x"}),
        ("/sign-in/", {"username": "alice", "password": "\x00"}),
        ("/settings/projects/", {"name": "a\x00b"}),
        ("/settings/members/", {"username": "bob\x00", "role": "viewer"}),
        ("/settings/keys/", {"name": "k", "scopes": ["read", "wri\x00te"]}),
        ("/settings/projects/", {"name": "a", "na\x00me": "b"}),
    ]
    for path, form in forms:
        for kind in ("multipart/form-data; boundary=BoUnDaRyStRiNg", "application/x-www-form-urlencoded"):
            if kind.startswith("multipart"):
                answer = client_alice.post(path, form)
            else:
                from urllib.parse import urlencode

                answer = client_alice.post(path, urlencode(form, doseq=True), content_type=kind)
            assert answer.status_code == 400, (path, form, kind)
            assert "zero byte" in answer.content.decode()
    assert "zero byte" in client_alice.get("/settings/audit/?q=%00").content.decode()
    assert Project.objects.filter(name__startswith="a").count() == 0


def test_programs_are_told_in_their_language(client_alice: Client) -> None:
    answer = client_alice.get("/api/v1/projects/?page_size=%00")
    assert answer.status_code == 400 and answer["Content-Type"] == "application/problem+json"
