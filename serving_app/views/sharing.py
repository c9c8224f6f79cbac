"""A conversation for others: the page behind a link, the file of an export, and presets."""

from __future__ import annotations

import json
from typing import Any

from django.contrib import messages
from django.http import Http404, HttpRequest, HttpResponse
from django.shortcuts import get_object_or_404, redirect, render
from django.utils.text import slugify
from django.views.decorators.http import require_POST, require_safe

from r1platform.access import signed_in
from serving_app import selectors, services
from serving_app.models import Conversation
from serving_app.views.playground import conversation_of, turns_of
from serving_app.views.thread import Turn, branch_to


@require_safe
def shared(request: HttpRequest, token: str) -> HttpResponse:
    """One branch to read, for members of its project; of a comparison all columns that were there when it was shared."""
    share = selectors.share_found(user=request.user, token=token)
    if share is None:
        raise Http404("This link was revoked, or is not for a project of yours.")
    there = selectors.conversation_messages(conversation=share.conversation).filter(created_at__lte=share.created_at)
    context = {
        "share": share,
        "conversation": share.conversation,
        "project": share.conversation.project,
        "turns": branch_to(there, share.leaf_id),
        "is_shared": True,
    }
    return render(request, "serving_app/playground/shared.html", context)


@require_safe
def conversation_export(request: HttpRequest, conversation_id: int) -> HttpResponse:
    """The conversation as a file: `?as=json` has every branch, `?as=markdown` the one that is shown."""
    found = conversation_of(request, conversation_id)
    kind = request.GET.get("as", "json")
    if kind not in {"json", "markdown"}:
        raise Http404("A conversation is exported as json or as markdown.")
    turns = turns_of(request, found)
    if kind == "json":
        text, mime, ending = json.dumps(_as_json(found, turns), ensure_ascii=False, indent=2), "application/json", "json"
    else:
        text, mime, ending = _as_markdown(found, turns), "text/markdown; charset=utf-8", "md"
    name = slugify(found.title)[:60] or f"conversation-{found.pk}"
    return HttpResponse(text, content_type=mime, headers={"Content-Disposition": f'attachment; filename="{name}.{ending}"'})


def _as_json(found: Conversation, turns: list[Turn]) -> dict[str, Any]:
    return {
        "title": found.title,
        "model": found.deployment.shown_name if found.deployment else None,
        "system_prompt": found.system_prompt,
        "parameters": found.parameters,
        "created_at": found.created_at.isoformat(),
        "branch": [turn.message.pk for turn in turns],
        "messages": selectors.conversation_tree(conversation=found),
    }


def _as_markdown(found: Conversation, turns: list[Turn]) -> str:
    parts = [f"# {found.title or 'Conversation'}"]
    if found.system_prompt:
        parts += ["## System", found.system_prompt]
    for turn in turns:
        parts += _sections(turn)
    return "\n\n".join(parts) + "\n"


def _sections(turn: Turn) -> list[str]:
    if turn.message.role == "user":
        return ["## User", turn.message.content]
    sections = []
    for one in turn.columns or (turn,):
        author = one.message.deployment.shown_name if one.message.deployment else "Assistant"
        sections.append(f"## {author}")
        if one.message.reasoning:
            lines = "\n".join(f"> {line}" for line in one.message.reasoning.splitlines())
            sections.append(f"> *Thinking*\n>\n{lines}")
        sections.append(one.message.content or f"*{one.message.get_state_display()} without an answer.*")
    return sections


@require_POST
def preset_delete(request: HttpRequest, preset_id: int) -> HttpResponse:
    """Deletes a preset of one's own."""
    own = selectors.preset_list(user=request.user).filter(user=signed_in(request))
    found = get_object_or_404(own, pk=preset_id)
    services.preset_delete(preset=found, user=signed_in(request))
    messages.success(request, f"The preset “{found.name}” is deleted.")
    return redirect("playground")
