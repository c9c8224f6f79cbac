"""Which texts can be kept, and how they are shortened: PostgreSQL holds no zero byte, half a surrogate pair is no character."""

from __future__ import annotations

from model_core.errors import ConfigError

MAX_TITLE = 80


def storable(text: str) -> str:
    """The text itself. Raises ValueError with the place of what cannot be kept."""
    if (place := text.find("\x00")) >= 0:
        raise ValueError(f"the text holds a zero byte at place {place}. Leave it out")
    try:
        text.encode()
    except UnicodeEncodeError as error:
        raise ValueError(f"the text holds half a surrogate pair at place {error.start}. Leave it out") from None
    return text


def title_of(text: str) -> str:
    """The first line of a text that is not empty, cut at a word."""
    line = " ".join(text.strip().splitlines()[0].split())
    if len(line) <= MAX_TITLE:
        return line
    kept = line[:MAX_TITLE].rpartition(" ")[0] or line[: MAX_TITLE - 1]
    return f"{kept.rstrip(' ,;:')}…"


def refuse_unstorable(text: str, field: str) -> str:
    """The text itself. Raises ConfigError at the field."""
    try:
        return storable(text)
    except ValueError as error:
        sentence = str(error)
        raise ConfigError(f"{sentence[:1].upper()}{sentence[1:]}.", field=field) from None
