"""Writes an example conversation by a chat template, in transformers' sandbox and within limits of memory and time.

A template comes from strangers and is a program: whoever runs one does so here, where one that runs wild harms nobody else.
"""

from __future__ import annotations

import argparse
import json
import resource
import sys
from typing import Any

from model_core.published.template import EXAMPLE

MAX_CPU_SECONDS = 5
MAX_MEMORY_BYTES = 4 << 30
MAX_CHARS = 20_000


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """None: {"template", "special"} comes in as JSON."""


def run(args: argparse.Namespace) -> int:
    """Prints {"text": …} or {"error": …}; exit status 2 with the latter."""
    from jinja2 import TemplateError
    from transformers.utils.chat_template_utils import render_jinja_template

    asked = json.load(sys.stdin)
    used = int(sum(resource.getrusage(resource.RUSAGE_SELF)[:2]))
    resource.setrlimit(resource.RLIMIT_CPU, (used + MAX_CPU_SECONDS, used + MAX_CPU_SECONDS))
    resource.setrlimit(resource.RLIMIT_AS, (MAX_MEMORY_BYTES, MAX_MEMORY_BYTES))
    try:
        told: Any = render_jinja_template(
            conversations=[list(EXAMPLE)], chat_template=asked["template"], add_generation_prompt=True, **asked["special"]
        )
    except (TemplateError, ArithmeticError, AttributeError, LookupError, MemoryError, RuntimeError, TypeError, ValueError) as error:
        print(json.dumps({"error": f"{type(error).__name__}: {str(error)[:500]}"}))
        return 2
    print(json.dumps({"text": str(told[0][0])[:MAX_CHARS]}))
    return 0
