"""How pages write numbers, times and states, so that the same thing looks the same everywhere.

Filters answer "–" for what is not known. Numbers carry their unit with a thin space; times are relative, with the
exact one on hover. The parts that need the request (rail, fields) are in `r1_parts`.
"""

from __future__ import annotations

import datetime as dt
import json
from typing import Any

from django import template
from django.utils import timezone
from django.utils.html import format_html
from django.utils.safestring import SafeString

register = template.Library()

THIN = "\u202f"
NONE = "–"
UNITS = ("B", "KiB", "MiB", "GiB", "TiB", "PiB")

TONES: dict[str, str] = {
    **dict.fromkeys(("queued", "pending", "waiting", "none", "new", "empty"), "queued"),
    **dict.fromkeys(
        ("claimed", "starting", "running", "preparing", "checking", "loading", "warming", "thinking", "answering", "stopping",
         "pausing", "shifting"),
        "running",
    ),
    **dict.fromkeys(
        ("held", "gate_failed", "paused", "degraded", "draining", "unreachable", "overridden", "rolled_back"), "waiting"
    ),
    **dict.fromkeys(("succeeded", "ready", "passed", "done", "online", "free", "active", "accepted", "current"), "succeeded"),
    **dict.fromkeys(("failed", "error", "revoked"), "failed"),
    **dict.fromkeys(("lost", "interrupted", "silent"), "lost"),
    **dict.fromkeys(("stopped", "removed", "expired", "rejected", "retired", "asleep"), "stopped"),
}
"""The token of colour and icon that each state of any entity has; `static/css/r1.css` knows the seven."""


@register.simple_tag
def state_badge(state: str, label: str = "") -> SafeString:
    """A state as icon, word and colour."""
    word = label or str(state).replace("_", " ").capitalize()
    return format_html('<span class="badge state-{} tone-{}">{}</span>', state, tone(state), word)


@register.filter
def tone(state: str) -> str:
    """The meaning of a state: queued, running, waiting, succeeded, failed, lost or stopped."""
    return TONES.get(str(state), "queued")


@register.simple_tag
def ago(moment: dt.datetime | None) -> SafeString | str:
    """A relative time that the page keeps true; the exact one is its title."""
    if moment is None:
        return NONE
    local = timezone.localtime(moment)
    return format_html(
        '<time datetime="{}" title="{}" data-ago>{}</time>',
        moment.isoformat(),
        local.strftime("%Y-%m-%d %H:%M:%S %Z"),
        relative((timezone.now() - moment).total_seconds()),
    )


def relative(seconds: float) -> str:
    """192 → "3 min ago", −60 → "in 1 min"."""
    size = abs(seconds)
    if size < 5:
        return "just now"
    for limit, divisor, unit in ((60, 1, "s"), (3600, 60, "min"), (86_400, 3600, "h"), (86_400 * 120, 86_400, "d")):
        if size < limit:
            amount = f"{int(size // divisor)}{THIN}{unit}"
            return f"{amount} ago" if seconds > 0 else f"in {amount}"
    months = int(size // (86_400 * 30))
    return f"{months}{THIN}months ago" if seconds > 0 else f"in {months}{THIN}months"


@register.filter
def duration(seconds: Any) -> str:
    """192 → "3 m 12 s"."""
    if not _is_number(seconds):
        return NONE
    if abs(seconds) < 1:
        return f"{seconds * 1000:.0f}{THIN}ms" if seconds else f"0{THIN}s"
    if seconds < 10:
        return f"{seconds:.1f}{THIN}s"
    total = round(seconds)
    if total < 60:
        return f"{total}{THIN}s"
    if total < 3600:
        return f"{total // 60}{THIN}m {total % 60}{THIN}s"
    if total < 86_400:
        return f"{total // 3600}{THIN}h {total % 3600 // 60}{THIN}m"
    return f"{total // 86_400}{THIN}d {total % 86_400 // 3600}{THIN}h"


@register.filter(name="bytes")
def as_bytes(value: Any) -> str:
    """1536 → "1.5 KiB"."""
    if not _is_number(value):
        return NONE
    size = float(value)
    for unit in UNITS:
        if abs(size) < 1024 or unit == UNITS[-1]:
            return f"{size:.0f}{THIN}{unit}" if unit == "B" or size >= 100 else f"{size:.1f}{THIN}{unit}"
        size /= 1024
    return NONE


@register.filter
def grouped(value: Any) -> str:
    """Thousands parted by thin spaces."""
    return f"{value:,}".replace(",", THIN) if _is_number(value) else NONE


@register.filter
def number(value: Any, figures: int = 4) -> str:
    """A measured value with few figures and a true minus."""
    if not _is_number(value):
        return NONE
    if value == 0:
        return "0"
    if abs(value) >= 10 ** int(figures):
        return grouped(round(value)).replace("-", "−")
    return f"{value:.{figures}g}".replace("e-0", "e-").replace("-", "−")


@register.filter
def fixed(value: Any, digits: int = 3) -> str:
    """A measured share with as many decimals in every row, so that eyes can compare: 0.9899 → "0.990"."""
    return f"{value:.{digits}f}".replace("-", "−") if _is_number(value) else NONE


@register.filter
def percent(value: Any, digits: int = 1) -> str:
    """0.9612 → "96.1 %"."""
    return f"{value * 100:.{digits}f}{THIN}%" if _is_number(value) else NONE


@register.filter
def words(value: Any) -> str:
    """A name from the code as words: `cold_start` is "cold start"."""
    return str(value).replace("_", " ").replace("-", " ")


@register.filter
def pretty(value: Any) -> str:
    """JSON, one setting a line."""
    return json.dumps(value, indent=2, ensure_ascii=False, default=str)


@register.filter
def at(mapping: Any, key: Any) -> Any:
    """The value of a dictionary, or None."""
    return mapping.get(key) if hasattr(mapping, "get") else None


def _is_number(value: Any) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool)
