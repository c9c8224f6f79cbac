"""Nothing that a model writes, and no name or file that a person gives, runs in a reader's page.

Every page is read as a browser would split it into elements: none beyond the allowed ones may have come from a payload.
"""

from __future__ import annotations

from html.parser import HTMLParser
from typing import Any

import pytest
from django.contrib.auth.models import User
from django.test import Client
from django.urls import reverse

from r1platform.models import Node, Project
from serving_app import rendering, services
from serving_app.models import Conversation, Message
from tests.pages.b_rows import make_checkpoint, make_deployment, make_run
from tests.pages.xss_payloads import PAYLOADS
from training_app.models import Dataset, Upload

ADDRESSES = {"href", "src", "action", "formaction", "data", "srcdoc", "poster", "background", "xlink:href", "srcset"}


class Elements(HTMLParser):
    """Every element of a page with its attributes; what stands in a script or style is not looked into, as in a browser."""

    def __init__(self, text: str) -> None:
        super().__init__(convert_charrefs=True)
        self.found: list[tuple[str, dict[str, str | None]]] = []
        self.feed(text)
        self.close()

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.found.append((tag, dict(attrs)))


def dangers(text: str) -> list[str]:
    """What in a page could run code: handlers, addresses that are none of the web, scripts without a file of ours."""
    found = []
    for tag, attributes in Elements(text).found:
        if tag in {"iframe", "object", "embed", "base", "frameset", "applet", "foreignobject", "animate", "set", "use"}:
            found.append(f"<{tag}>")
        if tag == "script" and not (attributes.get("src") or "").startswith("/static/") and attributes.get("type") != "application/json":
            found.append(f"<script {attributes}>")
        if tag == "style" or (tag == "meta" and attributes.get("http-equiv")):
            found.append(f"<{tag} {attributes}>")
        for name, value in attributes.items():
            address = "".join((value or "").split()).lower()
            is_web = address.startswith(("http:", "https:", "mailto:", "/", "#", "?")) or ":" not in address
            if name.startswith("on") or (name in ADDRESSES and not is_web):
                found.append(f"<{tag} {name}={value!r}>")
    return found


def test_the_reader_sees_dangers() -> None:
    """The check itself: what would run is found in raw HTML."""
    raw = [text for text in PAYLOADS if text.startswith(("<img", "<script", "<svg", "<iframe", "<body", "<a href=java"))]
    assert len(raw) > 20 and all(dangers(text) for text in raw if ">" in text and "onerror=" in text)


def test_the_corpus_is_large() -> None:
    assert len(set(PAYLOADS)) == len(PAYLOADS) >= 200


def test_what_a_model_writes_renders_inert() -> None:
    allowed = rendering._TAGS | {"span"}
    for text in PAYLOADS:
        for written in (text, f"Before {text} after", f"- {text}", f"> {text}\n\n{text}", f"**{text}** $x$ {text}"):
            made = rendering.render(written)
            assert dangers(made) == [], (written, made)
            for tag, attributes in Elements(made).found:
                assert tag in allowed, (written, made)
                assert not {"style", "id", "src", "srcset"} & set(attributes), (written, made)


def test_rendering_what_was_rendered_changes_nothing_that_runs() -> None:
    """A sanitiser whose output means something else when it is read again could be fooled by nesting."""
    import nh3

    for text in PAYLOADS:
        made = rendering.render(text)
        again = nh3.clean(made, tags=rendering._TAGS, attributes=rendering._ATTRIBUTES, url_schemes={"http", "https", "mailto"},
                          link_rel="noopener noreferrer nofollow")  # fmt: skip
        assert dangers(again) == [] and [t for t, _ in Elements(again).found] == [t for t, _ in Elements(made).found], text


@pytest.mark.django_db
def test_a_conversation_a_review_and_lists_show_payloads_as_text(
    project: Project, alice: User, node: Node, client_alice: Client
) -> None:
    """All payloads at once: as what was said, thought and answered, as title, name, description, comment and file name."""
    deployment = make_deployment(project, make_checkpoint(make_run(project, name=PAYLOADS[0]), node))
    made = Conversation.objects.create(project=project, user=alice, deployment=deployment, title=PAYLOADS[-1])
    parent = None
    for text in PAYLOADS:
        said = Message.objects.create(conversation=made, parent=parent, role="user", content=text)
        parent = Message.objects.create(
            conversation=made, parent=said, role="assistant", content=text, reasoning=text, deployment=deployment, state_reason=text,
            state="failed",
        )  # fmt: skip
    assert parent is not None
    benign = _page(client_alice, "conversation", made.pk)
    assert dangers(benign) == []
    names = [text for text in PAYLOADS if len(text) < 80][:60]
    for name in names:
        Conversation.objects.create(project=project, user=alice, title=name, deployment=deployment)
        Dataset.objects.create(project=project, name=name, description=name)
    upload = Upload.objects.create(
        project=project, file_name=" ".join(names)[:255], format="jsonl", size_bytes=1, sha256="ab", columns=names,
        preview=[dict.fromkeys(names, name) for name in names[:4]],
    )  # fmt: skip
    services.message_rate(message=parent, user=alice, value=-1, comment=" ".join(names)[:2000])
    for name, query in (("playground", {}), ("review-queue", {}), ("dataset-list", {}), ("dataset-new", {"upload": upload.pk}),
                        ("playground", {"text": PAYLOADS[0], "q": PAYLOADS[1]}), ("run-list", {"q": PAYLOADS[2]})):  # fmt: skip
        assert dangers(_page(client_alice, name, **query)) == [], name


def _page(client: Client, name: str, *args: Any, **query: Any) -> str:
    answer = client.get(reverse(name, args=args), query)
    assert answer.status_code == 200
    return answer.content.decode()
