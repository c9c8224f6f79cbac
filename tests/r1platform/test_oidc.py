"""Single sign-on against a real provider: who comes in, and every answer that is not to be trusted."""

from __future__ import annotations

import dataclasses
import time
from collections.abc import Iterator
from typing import Any

import httpx
import pytest
from allauth.socialaccount.models import SocialAccount
from django.contrib.auth.models import User
from django.core.cache import cache
from django.test import Client
from django.urls import reverse

from r1platform.access import role_in
from r1platform.lib.environment import SettingError
from r1platform.lib.single_sign_on import SingleSignOn, single_sign_on
from r1platform.models import AuditEntry, Project, Role
from r1platform.services import sign_in_link_create
from tests.r1platform.oidc_provider import CLIENT_ID, SECRET, OidcProvider, key

START = "/sign-in/oidc/"


@pytest.fixture
def provider() -> Iterator[OidcProvider]:
    made = OidcProvider()
    yield made
    made.stop()


@pytest.fixture
def sso(provider: OidcProvider, settings: Any) -> Iterator[SingleSignOn]:
    cache.clear()
    settings.R1_OIDC = SingleSignOn(provider.url, CLIENT_ID, SECRET, "Example SSO", frozenset({"example.org"}), False, "", "viewer")
    yield settings.R1_OIDC
    cache.clear()


@pytest.fixture
def known(erin: User) -> User:
    """Erin, whose address an administrator has written down."""
    User.objects.filter(pk=erin.pk).update(email="Erin@example.org")
    return erin


def there(client: Client, to: str = "/") -> str:
    """To the provider and, as a browser follows it, to the address that leads back."""
    gone = client.get(START, {"next": to})
    assert gone.status_code == 302, gone.content.decode()
    back = httpx.get(gone["Location"])
    assert back.status_code == 302
    return back.headers["Location"].removeprefix("http://testserver")


def sign_in(client: Client, to: str = "/") -> Any:
    return client.get(there(client, to))


def name_of(client: Client) -> str:
    user = client.get("/api/v1/me/")
    return user.json()["username"] if user.status_code == 200 else ""


def test_a_verified_mail_ties_an_account_and_the_subject_is_known_from_then_on(sso: SingleSignOn, provider: OidcProvider, known: User) -> None:
    client = Client()
    answer = sign_in(client, "/runs/")
    assert (answer.status_code, answer["Location"]) == (302, "/runs/") and name_of(client) == "erin"
    provider.claims |= {"email": "other@elsewhere.org", "email_verified": False}
    again = Client()
    assert sign_in(again, "https://evil.example/")["Location"] == "/" and name_of(again) == "erin"
    tie = SocialAccount.objects.get()
    assert (tie.provider, tie.uid, tie.user, tie.extra_data) == (provider.url, "subject-1", known, {})
    left = AuditEntry.objects.filter(user=known).order_by("pk").values_list("action", "detail")
    assert list(left) == [(action, {"issuer": provider.url}) for action in ("oidc.connect", "sign_in.oidc", "sign_in.oidc")]


UNTRUE: dict[str, tuple[dict[str, Any], dict[str, Any], str]] = {
    "signed by somebody else": ({}, {"signed_with": key(1)}, "Signature verification failed"),
    "signed by nobody": ({}, {"signed_with": "", "algorithm": "none"}, "“none”"),
    "signed with what is public": ({}, {"signed_with": "p" * 64, "algorithm": "HS256"}, "“HS256”"),
    "a key that is none of the provider's": ({}, {"header": {"kid": "other"}}, "none of the provider’s keys".replace("’", "'")),
    "of another sign-in": ({"nonce": "x"}, {}, "another sign-in"),
    "without a nonce": ({"nonce": None}, {}, "another sign-in"),
    "for another program": ({"aud": "other"}, {}, "Audience"),
    "for several, made for another": ({"aud": [CLIENT_ID, "other"], "azp": "other"}, {}, "another program"),
    "of another issuer": ({"iss": "https://evil.example"}, {}, "issuer"),
    "expired": ({"exp": int(time.time()) - 3600}, {}, "expired"),
    "without an end": ({"exp": None}, {}, "exp"),
    "of the future": ({"iat": int(time.time()) + 3600}, {}, "not yet valid"),
}


@pytest.mark.parametrize("case", UNTRUE)
def test_a_token_that_is_not_to_be_trusted_signs_nobody_in(sso: SingleSignOn, provider: OidcProvider, known: User, case: str) -> None:
    claims, wrong, says = UNTRUE[case]
    provider.claims |= claims
    for name, value in wrong.items():
        setattr(provider, name, value)
    client = Client()
    answer = sign_in(client)
    page = answer.content.decode().replace("&#x27;", "'")
    assert answer.status_code == 400 and "is not to be trusted" in page and says in page
    assert not name_of(client) and not SocialAccount.objects.exists()


REFUSED: dict[str, tuple[dict[str, Any], str]] = {
    "not verified": ({"email_verified": False}, "no verified mail address"),
    "not said to be verified": ({"email_verified": None}, "no verified mail address"),
    "a word for no": ({"email_verified": "false"}, "no verified mail address"),
    "of another domain": ({"email": "erin@example.org.evil.example"}, "allowed are example.org"),
    "nobody's": ({"email": "dora@example.org"}, "Nobody here has the address dora@example.org"),
}


@pytest.mark.parametrize("case", REFUSED)
def test_a_mail_that_says_too_little_signs_nobody_in(sso: SingleSignOn, provider: OidcProvider, known: User, case: str) -> None:
    claims, says = REFUSED[case]
    provider.claims |= claims
    client = Client()
    answer = sign_in(client)
    assert answer.status_code == 403 and says in answer.content.decode()
    assert not name_of(client) and not SocialAccount.objects.exists() and not User.objects.filter(email="dora@example.org").exists()


def test_accounts_that_a_mail_does_not_open(sso: SingleSignOn, provider: OidcProvider, known: User) -> None:
    def says() -> str:
        client = Client()
        answer = sign_in(client)
        assert answer.status_code == 403 and not name_of(client) and not SocialAccount.objects.exists()
        return str(answer.content.decode())

    for power in ("is_staff", "is_superuser"):
        User.objects.filter(pk=known.pk).update(**{power: True})
        assert "is of staff" in says()
        User.objects.filter(pk=known.pk).update(**{power: False})
    User.objects.filter(pk=known.pk).update(is_active=False)
    assert "is switched off" in says()
    User.objects.create_user("double", email="erin@EXAMPLE.org")
    assert "Several accounts" in says()


def test_the_mail_may_be_told_by_the_userinfo_of_the_same_person(sso: SingleSignOn, provider: OidcProvider, known: User) -> None:
    provider.claims |= {"email": None, "email_verified": None}
    provider.userinfo = {"sub": "somebody else", "email": "erin@example.org", "email_verified": True}
    client = Client()
    assert sign_in(client).status_code == 400 and not name_of(client)
    provider.userinfo["sub"] = "subject-1"
    assert sign_in(client).status_code == 302 and name_of(client) == "erin"


def test_the_way_back_works_once_and_in_the_browser_that_went(sso: SingleSignOn, provider: OidcProvider, known: User) -> None:
    client, other = Client(), Client()
    back = there(client)
    assert other.get(back).status_code == 400 and not name_of(other)
    assert client.get(back).status_code == 302
    assert client.get(back).status_code == 400
    ours, foreign = there(other), there(Client())
    mixed = foreign.partition("&state=")[0] + "&state=" + ours.partition("&state=")[2]
    answer = other.get(mixed)
    assert answer.status_code == 502 and "refused it" in answer.content.decode() and not name_of(other), "PKCE: a code of another browser"
    denied = other.get(f"{reverse('oidc-callback')}?error=access_denied&error_description=You+said+no.&state={state(other)}")
    assert denied.status_code == 403 and "You said no." in denied.content.decode()


def state(client: Client) -> str:
    return str(client.get(START)["Location"].partition("&state=")[2].partition("&")[0])


def test_a_provider_that_is_not_as_it_should_be(sso: SingleSignOn, provider: OidcProvider, known: User) -> None:
    for config, says in (({"issuer": "https://evil.example"}, "another name"), ({"token_endpoint": "http://evil.example/"}, "token_endpoint")):
        provider.config = config
        answer = Client().get(START)
        assert answer.status_code == 502 and says in answer.content.decode()
    provider.config, provider.redirects_tokens_to = {}, f"{provider.url}/elsewhere"
    assert sign_in(Client()).status_code == 502 and "/elsewhere" not in provider.asked
    provider.stop()
    answer = Client().get(START)
    assert answer.status_code == 502 and "Example SSO did not answer" in answer.content.decode()


def test_staff_connects_the_account_at_their_own_wish(sso: SingleSignOn, provider: OidcProvider, known: User, client_erin: Client) -> None:
    User.objects.filter(pk=known.pk).update(is_staff=True)
    assert client_erin.get(START)["Location"] == "/", "a link alone connects nothing"
    assert client_erin.get(reverse("oidc-connect")).status_code == 405
    assert Client(enforce_csrf_checks=True).post(reverse("oidc-connect")).status_code == 403
    page = client_erin.post(reverse("oidc-connect")).content.decode()
    assert "Connect “erin”" in page and START in page
    assert sign_in(client_erin)["Location"] == reverse("settings-keys")
    client = Client()
    assert sign_in(client).status_code == 302 and name_of(client) == "erin"
    assert "Example SSO signs you in." in client_erin.get(reverse("settings-keys")).content.decode()
    client_erin.post(reverse("oidc-disconnect"))
    assert sign_in(Client()).status_code == 403 and not SocialAccount.objects.exists()


def test_a_wish_is_that_of_the_one_who_has_it(sso: SingleSignOn, provider: OidcProvider, known: User, alice: User, client_erin: Client) -> None:
    client_erin.post(reverse("oidc-connect"))
    back = there(client_erin)
    states = client_erin.session["socialaccount_states"]
    client_erin.force_login(alice)
    moved = client_erin.session
    moved["socialaccount_states"] = states
    moved.save()
    assert client_erin.get(back).status_code == 400 and not SocialAccount.objects.exists()
    SocialAccount.objects.create(provider=provider.url, uid="subject-1", user=known)
    client_erin.post(reverse("oidc-connect"))
    answer = sign_in(client_erin)
    assert answer.status_code == 403 and "belongs to another account" in answer.content.decode()


def test_somebody_new_gets_what_the_settings_say(sso: SingleSignOn, provider: OidcProvider, settings: Any, project: Project) -> None:
    settings.R1_OIDC = dataclasses.replace(sso, creates=True, project=project.slug, role="editor")
    provider.claims |= {"email": "Alice@example.org", "preferred_username": "Alice"}
    client = Client()
    assert sign_in(client).status_code == 302 and name_of(client) == "Alice-2", "alice is somebody else"
    made = User.objects.get(username="Alice-2")
    assert role_in(made, project) == Role.EDITOR and not made.has_usable_password() and not made.is_staff
    assert made.email == "Alice@example.org"
    assert set(AuditEntry.objects.filter(user=made).values_list("action", flat=True)) == {
        "user.sign_up", "member.set", "oidc.connect", "sign_in.oidc",
    }  # fmt: skip


def test_attempts_are_limited_by_address(sso: SingleSignOn) -> None:
    assert {Client().get(reverse("oidc-callback")).status_code for _ in range(21)} == {400, 429}


def test_it_is_there_only_where_it_is_set_up(client_alice: Client) -> None:
    assert "single sign-on" not in Client().get("/sign-in/").content.decode()
    assert "Signing in" not in client_alice.get(reverse("settings-keys")).content.decode()
    for client in (Client(), client_alice):
        assert [client.get(path).status_code for path in (START, reverse("oidc-callback"))] == [404, 404]
    assert [client_alice.post(reverse(name)).status_code for name in ("oidc-connect", "oidc-disconnect")] == [404, 404]


def test_passwords_can_be_switched_off(sso: SingleSignOn, settings: Any, alice: User) -> None:
    page = Client().get("/sign-in/").content.decode()
    assert "Sign in with Example SSO" in page and 'name="password"' in page
    settings.R1_PASSWORD_SIGN_IN, settings.AUTHENTICATION_BACKENDS = False, ["r1platform.backends.WithoutPasswords"]
    User.objects.filter(pk=alice.pk).update(is_staff=True)
    page = Client().get("/sign-in/").content.decode()
    assert "Sign in with Example SSO" in page and 'name="password"' not in page
    sent = {"username": "alice", "password": "correct horse battery"}
    answer = Client().post("/sign-in/", sent)
    assert answer.status_code == 403 and "Passwords are switched off" in answer.content.decode()
    admin = Client()
    admin.post("/admin/login/", sent)
    assert not name_of(admin)
    client = Client()
    assert client.post(sign_in_link_create(user=alice)).status_code == 302 and name_of(client) == "alice"


GIVEN = {"issuer": "https://sso.example.org/", "client_id": "r1", "client_secret": "s", "name": "SSO", "domains": "example.org Example.com",
         "creates": True, "project": "", "role": "viewer"}  # fmt: skip


def test_what_can_be_meant_is_taken() -> None:
    found = single_sign_on(**GIVEN)  # type: ignore[arg-type]
    assert found is not None and found.issuer == "https://sso.example.org" and found.domains == {"example.org", "example.com"}
    assert single_sign_on(**{**GIVEN, "issuer": ""}) is None  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("name", "value", "says"),
    [
        ("issuer", "http://sso.example.org", "https address"), ("issuer", "https://", "https address"), ("issuer", "https://a:x", "https"),
        ("client_id", "", "R1_OIDC_CLIENT_ID"), ("client_secret", "", "R1_OIDC_CLIENT_SECRET"), ("domains", "@example.org", "“@example.org”"),
        ("domains", "", "R1_OIDC_CREATE is on without"), ("role", "owner", "“owner”"),
    ],
)  # fmt: skip
def test_what_cannot_be_meant_is_one_sentence(name: str, value: str, says: str) -> None:
    with pytest.raises(SettingError, match=says):
        single_sign_on(**{**GIVEN, name: value})  # type: ignore[arg-type]
