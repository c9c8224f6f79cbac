r"""Writings of one answer made one: LaTeX that says a number or words becomes plain, and plain mathematics becomes LaTeX.

`plain` is what numbers, choices and words are compared on; `as_latex` is what the verifier reads. Neither computes
anything: `3\sqrt{13}` stays what it is.
"""

from __future__ import annotations

import re

_WRAPPERS = (("$$", "$$"), ("$", "$"), (r"\(", r"\)"), (r"\[", r"\]"), ("**", "**"), (r"\boxed{", "}"))
_WORDS = r"\\(?:text|textbf|textit|textrm|mathrm|mathbf|mathsf|mbox|hbox)\s*\{([^{}]*)\}"
_UNITS = "cm|mm|km|in|ft|yd|mi|inches|feet|yards|miles|units?|meters|centimeters"
_PLAIN_RULES = tuple((re.compile(pattern), to) for pattern, to in (
    (r"−", "-"), (r",\s*\\!\s*", ","), (r"\{,\}", ","), (r"(?<!\\)\\[!,]\s?", ""), (r"(?<!\\)\\[;: ]|~|\\q?quad\b", " "),
    (r"\\(?:left|right|displaystyle)(?![A-Za-z])", ""), (r"\\([$%&#])", r"\1"), (r"\\[dtc]frac", r"\\frac"),
    (r"\^\s*(?:\{\s*\\(?:circ|degree)\s*\}|\\(?:circ|degree)(?![A-Za-z]))|\\degree(?![A-Za-z])", "°"),
    (rf"{_WORDS}\s*\^\s*\{{?2\}}?", r"\1 squared"), (rf"{_WORDS}\s*\^\s*\{{?3\}}?", r"\1 cubed"), (_WORDS, r"\1"),
    (rf"(?<=\d )\s*({_UNITS})\s*\^\s*\{{?2\}}?$", r"\1 squared"), (rf"(?<=\d )\s*({_UNITS})\s*\^\s*\{{?3\}}?$", r"\1 cubed"),
    (r"(?<=\d)\s*(?=\\frac)", " "),
    (r"\\frac\s*(?:\{\s*(-?\d+)\s*\}|(\d))\s*(?:\{\s*(\d+)\s*\}|(\d))", lambda m: f"{m[1] or m[2]}/{m[3] or m[4]}"),
))  # fmt: skip
_LATEX_RULES = tuple((re.compile(pattern), to) for pattern, to in (
    (r"(?:√|(?<!\\)\bsqrt)\s*\(([^()]*)\)", r"\\sqrt{\1}"), (r"√\s*(\w+)", r"\\sqrt{\1}"),
    (r"\\[dtc]frac", r"\\frac"), (r"\\(?:left|right|displaystyle)(?![A-Za-z])", ""),
    (r",\s*\\!\s*(?=\d)|\{,\}", ""), (r"(?<!\\)\\[!$]|\$", ""),
    (r"(?<!\\)\\[,;: ]", " "), (r"\s+", " "),
))  # fmt: skip
_SIGNS = str.maketrans({
    "−": "-", "π": r"\pi ", "°": r"^\circ ", "∞": r"\infty ", "≤": r"\le ", "≥": r"\ge ", "≠": r"\ne ", "×": r"\times ",
    "÷": r"\div ", "·": r"\cdot ", "±": r"\pm ", "²": "^2", "³": "^3", "∪": r"\cup ", "∩": r"\cap ", "∈": r"\in ", "θ": r"\theta ",
})  # fmt: skip


def plain(text: str) -> str:
    r"""The text without the signs that only set it: `\text{Evelyn}` → `Evelyn`, `\$32,\!348` → `$32,348`, `\frac43` → `4/3`."""
    text = unwrapped(text)
    if not any(sign in text for sign in "\\{−~^"):
        return text
    for pattern, to in _PLAIN_RULES:
        text = pattern.sub(to, text)
    return text.strip()


def as_latex(text: str) -> str:
    """The text as LaTeX of one line, with signs such as π and √ in their LaTeX names."""
    text = unwrapped(text).translate(_SIGNS)
    for pattern, to in _LATEX_RULES:
        text = pattern.sub(to, text)
    return text.strip()


def unwrapped(text: str) -> str:
    r"""The text without white space, a closing full stop and whole wrappers such as `$…$`, `**…**` and `\boxed{…}`."""
    while True:
        text = text.strip().removesuffix(".").rstrip()
        for opening, closing in _WRAPPERS:
            inner = text[len(opening) : len(text) - len(closing)]
            whole = len(text) > len(opening) + len(closing) and text.startswith(opening) and text.endswith(closing)
            if whole and _is_one(inner, opening, closing):
                text = inner
                break
        else:
            return text


def _is_one(inner: str, opening: str, closing: str) -> bool:
    """Whether the wrapper's end is that of its beginning: `$1$ and $2$` is not one formula."""
    if closing != "}":
        return closing not in inner and not inner.endswith("\\")
    depth = 0
    for sign in re.sub(r"\\.", "", inner):
        depth += (sign == "{") - (sign == "}")
        if depth < 0:
            return False
    return depth == 0
