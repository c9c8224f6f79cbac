"""Keys are shown once, stored hashed, scoped, expiring and revocable."""

from __future__ import annotations

from datetime import timedelta
from decimal import Decimal

import pytest
from django.contrib.auth.models import User
from django.db.models.functions import Now
from django.test import Client
from django.urls import reverse
from rest_framework.test import APIClient

from r1platform.keys import KeyRefused, api_key_create, api_key_find, api_key_revoke
from r1platform.models import ApiKey, AuditEntry, Project
from r1platform.services import project_create


def test_a_key_is_found_by_its_whole_text_only(alice: User) -> None:
    key, secret = api_key_create(user=alice, name="laptop", scopes=["read"])
    assert secret.startswith(f"r1_{key.prefix}_") and len(secret) > 50
    assert api_key_find(secret) == key
    for wrong in (secret[:-1], secret + "x", secret.upper(), f"r1_{key.prefix}_", "r1_", "", "x" * 500, "r1_\x00_é"):
        assert api_key_find(wrong) is None
    assert secret.split("_", 2)[2] not in str(ApiKey.objects.filter(pk=key.pk).values().get())


def test_last_use_is_shown(alice: User) -> None:
    key, secret = api_key_create(user=alice, name="laptop", scopes=["read"])
    assert key.last_used_at is None
    api_key_find(secret)
    key.refresh_from_db()
    assert key.last_used_at is not None


def test_expired_revoked_and_inactive_are_refused(alice: User) -> None:
    key, secret = api_key_create(user=alice, name="a", scopes=["read"])
    ApiKey.objects.filter(pk=key.pk).update(expires_at=Now() - timedelta(seconds=1))
    assert api_key_find(secret) is None
    key, secret = api_key_create(user=alice, name="b", scopes=["read"])
    assert api_key_revoke(key=key, by=alice) and not api_key_revoke(key=key, by=alice)
    assert api_key_find(secret) is None
    key, secret = api_key_create(user=alice, name="c", scopes=["read"])
    User.objects.filter(pk=alice.pk).update(is_active=False)
    assert api_key_find(secret) is None


@pytest.mark.parametrize(("scopes", "name", "field"), [(["admin"], "a", "scopes"), ([], "a", "scopes"), (["read"], " ", "name")])
def test_impossible_keys_are_refused(alice: User, scopes: list[str], name: str, field: str) -> None:
    with pytest.raises(KeyRefused) as refused:
        api_key_create(user=alice, name=name, scopes=scopes)
    assert refused.value.field == field


def client_with(secret: str) -> APIClient:
    client = APIClient()
    client.credentials(HTTP_AUTHORIZATION=f"Bearer {secret}")
    return client


def test_a_scope_is_needed_for_its_methods(alice: User, project: Project) -> None:
    url = f"/api/v1/projects/{project.pk}/"
    reader = client_with(api_key_create(user=alice, name="r", scopes=["read"])[1])
    assert reader.get(url).status_code == 200
    refused = reader.patch(url, {"description": "x"})
    assert refused.status_code == 403 and "write" in refused.json()["detail"]
    writer = client_with(api_key_create(user=alice, name="w", scopes=["write"])[1])
    assert writer.get(url).status_code == 403
    assert writer.patch(url, {"description": "x"}).status_code == 200


def test_a_bound_key_sees_one_project(alice: User, project: Project) -> None:
    project_create(user=alice, name="Other")
    client = client_with(api_key_create(user=alice, name="b", scopes=["read", "write"], project=project)[1])
    assert [row["id"] for row in client.get("/api/v1/projects/").json()["results"]] == [project.pk]
    answer = client.post("/api/v1/projects/", {"name": "Third"})
    assert answer.status_code == 403, answer.json()


def test_a_key_cannot_make_keys(api_alice: APIClient) -> None:
    assert api_alice.get("/api/v1/api-keys/").status_code == 403
    assert api_alice.post("/api/v1/api-keys/", {"name": "x", "scopes": ["read"]}).status_code == 403


def test_a_wrong_key_is_told_so(api_anonymous: APIClient) -> None:
    answer = client_with("r1_abc_def").get("/api/v1/me/")
    assert answer.status_code == 401 and answer["WWW-Authenticate"] == "Bearer"
    assert answer["Content-Type"] == "application/problem+json" and "revoked" in answer.json()["detail"]


def test_a_page_shows_a_key_once_and_a_refresh_makes_no_other(client_alice: Client) -> None:
    url = reverse("settings-keys")
    answer = client_alice.post(url, {"name": "notebook", "scopes": ["read"], "lifetime": "90"})
    assert (answer.status_code, answer["Location"]) == (302, url)
    client_alice.head(url)
    shown = client_alice.get(url)
    assert api_key_find(shown.context["secret"]) == ApiKey.objects.get() and "no-store" in shown["Cache-Control"]
    assert shown.context["secret"] in shown.content.decode()
    again = client_alice.get(url)
    assert again.context["secret"] == "" and shown.context["secret"] not in again.content.decode()
    assert not [value for value in client_alice.session.values() if value == shown.context["secret"]]


def test_a_key_that_is_refused_keeps_what_was_typed(client_alice: Client) -> None:
    answer = client_alice.post(reverse("settings-keys"), {"name": "notebook", "lifetime": "90"})
    assert answer.status_code == 422 and 'value="notebook"' in answer.content.decode()
    assert not ApiKey.objects.exists()


LIMITS = {"requests_per_minute": 60, "tokens_per_minute": 5000, "concurrent_requests": 4, "dollars_per_month": "12.5"}


def limits_of(key: ApiKey) -> tuple[int | None, int | None, int | None, Decimal | None]:
    key.refresh_from_db()
    return key.requests_per_minute, key.tokens_per_minute, key.concurrent_requests, key.dollars_per_month


def test_limits_are_set_with_the_key_and_changed_by_its_owner_alone(client_alice: Client, client_bob: Client) -> None:
    client_alice.post(reverse("settings-keys"), {"name": "notebook", "scopes": ["inference"], "lifetime": "90", **LIMITS})
    key = ApiKey.objects.get()
    assert limits_of(key) == (60, 5000, 4, Decimal("12.5"))
    page = client_alice.get(reverse("settings-keys")).content.decode()
    assert "60 requests/min" in page and "$12.50 a month" in page and f'id="key-{key.pk}-tokens_per_minute"' in page
    client_alice.post(reverse("key-limit", args=[key.pk]), {"requests_per_minute": "7"})
    assert limits_of(key) == (7, None, None, None)
    assert client_bob.post(reverse("key-limit", args=[key.pk]), {}).status_code == 404
    assert client_alice.post(reverse("key-limit", args=[key.pk]), {"tokens_per_minute": "0"}, follow=True).context["messages"]
    assert limits_of(key) == (7, None, None, None)
    changed = client_alice.patch(f"/api/v1/api-keys/{key.pk}/", {"dollars_per_month": "3"}, content_type="application/json")
    assert changed.status_code == 200 and changed.json()["dollars_per_month"] == "3.00" and limits_of(key) == (7, None, None, Decimal(3))
    assert AuditEntry.objects.filter(action="key.limit").count() == 2


@pytest.mark.parametrize(("limit", "value"), [("requests_per_minute", 6001), ("dollars_per_month", "0"), ("concurrent_requests", -1)])
def test_impossible_limits_are_refused_at_their_field(client_alice: Client, alice: User, limit: str, value: object) -> None:
    key, _secret = api_key_create(user=alice, name="k", scopes=["inference"])
    answer = client_alice.patch(f"/api/v1/api-keys/{key.pk}/", {limit: value}, content_type="application/json")
    assert answer.status_code == 400 and limit in answer.json()["errors"], answer.json()
    with pytest.raises(KeyRefused) as refused:
        api_key_create(user=alice, name="k", scopes=["inference"], **{limit: Decimal(str(value))})
    assert refused.value.field == limit
