"""What comes from files can be stored, whatever is in it."""

from __future__ import annotations

import json

import pytest
from django.db import connection
from hypothesis import given
from hypothesis import strategies as st

from r1platform.lib.jsonb import jsonb_clean, jsonb_loads

ANYTHING = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(st.characters(exclude_categories=())),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(st.characters(exclude_categories=())), inner, max_size=3),
    max_leaves=8,
)


@given(ANYTHING)
def test_what_is_clean_has_nothing_that_jsonb_refuses(value: object) -> None:
    text = json.dumps(jsonb_clean(value), allow_nan=False)
    assert "\\u0000" not in text
    json.loads(text.encode("utf-8"))
    text.encode("utf-8")


@given(st.recursive(st.none() | st.booleans() | st.integers() | st.text(), lambda inner: st.lists(inner), max_leaves=8))
def test_what_was_clean_stays_as_it_was(value: object) -> None:
    if "\\u0000" not in json.dumps(value):
        assert jsonb_clean(value) == value == jsonb_loads(json.dumps(value).encode())


@pytest.mark.django_db
@pytest.mark.parametrize("text", [rb'"\u0000"', rb'"\ud800"', b"NaN", b"-Infinity", b"1e999", rb'{"\udc00": ["\u0000"]}'])
def test_postgresql_takes_what_was_loaded(text: bytes) -> None:
    with connection.cursor() as cursor:
        cursor.execute("SELECT %s::jsonb", [json.dumps(jsonb_loads(text))])
        assert cursor.fetchone()
