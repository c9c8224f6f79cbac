"""No body of the REST API reaches the database with what it cannot hold."""

from __future__ import annotations

import pytest
from rest_framework.test import APIClient

from r1platform.models import Project

pytestmark = pytest.mark.django_db


@pytest.mark.parametrize(
    ("body", "field"),
    [
        (r'{"name": "a\u0000"}', "name"),
        (r'{"name": "\ud800"}', "name"),
        (r'{"config": {"checkpoint": {"metric": "\udfff"}}}', "config.checkpoint.metric"),
        ('{"budget_device_seconds": 1e999}', "budget_device_seconds"),
        (r'{"tags": ["fine", "\u0000"]}', "tags.1"),
        (r'{"a\u0000": 1}', "request"),
    ],
)
def test_it_is_refused_at_its_field(body: str, field: str, api_alice: APIClient, project: Project) -> None:
    answer = api_alice.post("/api/v1/runs/", body, content_type="application/json")
    assert answer.status_code == 400 and list(answer.json()["errors"]) == [field]


@pytest.mark.parametrize("body", ['{"name": NaN}', "[1, 2", '"text"', "[]", "null", "7"])
def test_what_is_no_object_of_json_is_a_400(body: str, api_alice: APIClient, project: Project) -> None:
    answer = api_alice.post("/api/v1/projects/", body, content_type="application/json")
    assert answer.status_code == 400, answer.content
    assert answer["Content-Type"] == "application/problem+json"


def test_what_is_no_json_at_all_is_said_to_be_unsupported(api_alice: APIClient, project: Project) -> None:
    answer = api_alice.post("/api/v1/projects/", "name=x", content_type="application/x-www-form-urlencoded")
    assert answer.status_code == 415
