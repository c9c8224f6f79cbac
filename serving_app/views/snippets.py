"""The same request as curl and as Python, for the pages that offer it."""

from __future__ import annotations

import json
from typing import Any

KEY = "r1_YOUR_KEY"


def chat_snippets(
    *, base_url: str, model: str, messages: list[dict[str, str]], parameters: dict[str, Any]
) -> list[tuple[str, str]]:
    """(language, code) pairs that send `messages` to the gateway; the key is a placeholder, never a real one."""
    body = {"model": model, "messages": messages, **parameters}
    return [("curl", _curl(base_url, body)), ("Python", _python(base_url, body))]


def _curl(base_url: str, body: dict[str, Any]) -> str:
    text = json.dumps(body, indent=2, ensure_ascii=False).replace("'", "'\\''")
    return (
        f"curl {base_url}/v1/chat/completions \\\n"
        f"  -H 'Authorization: Bearer {KEY}' \\\n"
        "  -H 'Content-Type: application/json' \\\n"
        f"  -d '{text}'"
    )


def _python(base_url: str, body: dict[str, Any]) -> str:
    extra = {name: body[name] for name in body if name not in {"model", "messages"}}
    arguments = "".join(f"    {name}={value!r},\n" for name, value in extra.items())
    turns = "".join(f"        {turn!r},\n" for turn in body["messages"])
    return (
        "from openai import OpenAI\n\n"
        f'client = OpenAI(base_url="{base_url}/v1", api_key="{KEY}")\n'
        "stream = client.chat.completions.create(\n"
        f"    model={body['model']!r},\n    messages=[\n{turns}    ],\n{arguments}    stream=True,\n)\n"
        "for chunk in stream:\n"
        "    if chunk.choices and chunk.choices[0].delta.content:\n"
        '        print(chunk.choices[0].delta.content, end="", flush=True)'
    )
