"""Model output to HTML that is safe to show: Markdown, LaTeX and code, rendered on the server.

Raw HTML of the model stays text, images become links (an image address would call home), and the whole result
goes through an allow-list last. `render` never raises for any text; what cannot be rendered stays as it was written.
"""

from __future__ import annotations

import html
import re
from collections.abc import Sequence
from functools import lru_cache
from typing import Any

import nh3
from latex2mathml import exceptions
from latex2mathml.converter import convert
from markdown_it import MarkdownIt
from markdown_it.renderer import RendererHTML
from markdown_it.rules_block import StateBlock
from markdown_it.rules_inline import StateInline
from markdown_it.token import Token
from markdown_it.utils import EnvType, OptionsDict
from pygments import highlight
from pygments.formatters import HtmlFormatter
from pygments.lexers import get_lexer_by_name
from pygments.util import ClassNotFound

MAX_MATH_CHARS = 2_000
"""A longer formula is shown as code: converting is superlinear."""
MAX_HIGHLIGHT_CHARS = 20_000
"""A longer block of code is shown without colours."""

_MATH_TAGS = {
    "math", "mrow", "mi", "mn", "mo", "ms", "mtext", "mfrac", "msqrt", "mroot", "msub", "msup", "msubsup", "munder",
    "mover", "munderover", "mtable", "mtr", "mtd", "mspace", "mstyle", "mpadded", "mphantom", "menclose",
}
_TAGS = {
    "p", "br", "hr", "em", "strong", "s", "code", "pre", "span", "div", "a", "ul", "ol", "li", "blockquote", "table",
    "thead", "tbody", "tr", "th", "td", "h1", "h2", "h3", "h4", "h5", "h6",
} | _MATH_TAGS
_MATH_ATTRIBUTES = {
    "display", "mathvariant", "stretchy", "fence", "form", "lspace", "rspace", "minsize", "maxsize", "columnalign",
    "linethickness", "displaystyle", "scriptlevel", "width", "notation", "accent", "separator", "movablelimits",
}
_ATTRIBUTES: dict[str, set[str]] = {
    "a": {"href", "title"}, "ol": {"start"}, "code": {"class"}, "span": {"class"}, "div": {"class"}, "pre": {"class"},
    **dict.fromkeys(_MATH_TAGS, _MATH_ATTRIBUTES),
}
_DELIMITERS = (("$$", "$$", True), ("\\[", "\\]", True), ("\\(", "\\)", False), ("$", "$", False))
_MATH_FAILURES: tuple[type[Exception], ...] = (
    *(e for e in vars(exceptions).values() if isinstance(e, type) and issubclass(e, Exception)),
    StopIteration, LookupError, ValueError, AttributeError, TypeError, RecursionError,
)
"""What latex2mathml raises for formulas that are none: its own errors, and these where it forgot to check."""

_LINK = re.compile(r"https?:|mailto:|[^:]*$", re.IGNORECASE)


def render(text: str) -> str:
    """HTML for `text` as a model wrote it. Safe to insert with `|safe`."""
    return nh3.clean(
        _markdown().render(text),
        tags=_TAGS,
        attributes=_ATTRIBUTES,
        url_schemes={"http", "https", "mailto"},
        link_rel="noopener noreferrer nofollow",
        attribute_filter=_attribute,
    )


def _attribute(_tag: str, name: str, value: str) -> str | None:
    """Takes out a link with a colon that is no web or mail address, however it is written."""
    return value if name != "href" or _LINK.match(value) else None


@lru_cache(maxsize=1)
def _markdown() -> MarkdownIt:
    parser = MarkdownIt("commonmark", {"html": False, "maxNesting": 20, "highlight": _coloured})
    parser.enable(["table", "strikethrough"])
    parser.disable(["image"])
    parser.inline.ruler.before("escape", "math", _math_inline)
    parser.block.ruler.before("fence", "math", _math_block, {"alt": ["paragraph", "reference", "blockquote", "list"]})
    parser.add_render_rule("math", _math_html)
    return parser


def _coloured(code: str, language: str, _attributes: str) -> str:
    if not language or len(code) > MAX_HIGHLIGHT_CHARS:
        return html.escape(code)
    try:
        lexer = get_lexer_by_name(language)
    except ClassNotFound:
        return html.escape(code)
    return str(highlight(code, lexer, HtmlFormatter(nowrap=True, classprefix="hl-")))


def _math_inline(state: StateInline, silent: bool) -> bool:
    for opening, closing, is_block in _DELIMITERS:
        if not state.src.startswith(opening, state.pos):
            continue
        start = state.pos + len(opening)
        end = state.src.find(closing, start)
        if end <= start or (opening == "$" and not _is_dollar_math(state.src, start, end)):
            return False
        if not silent:
            token = state.push("math", "math", 0)
            token.content, token.block = state.src[start:end], is_block
        state.pos = end + len(closing)
        return True
    return False


def _is_dollar_math(source: str, start: int, end: int) -> bool:
    """"$5 and $6" is money: no space inside the signs, no digit after the closing one, one line."""
    inner = source[start:end]
    after = source[end + 1 : end + 2]
    return not inner[0].isspace() and not inner[-1].isspace() and not after.isdigit() and "\n" not in inner


def _math_block(state: StateBlock, line: int, end_line: int, silent: bool) -> bool:
    if state.is_code_block(line):
        return False
    for opening, closing in (("$$", "$$"), ("\\[", "\\]")):
        begin = state.bMarks[line] + state.tShift[line]
        if not state.src.startswith(opening, begin):
            continue
        end = state.src.find(closing, begin + len(opening))
        last = next((n for n in range(line, end_line) if state.eMarks[n] >= end + len(closing)), None)
        if end < 0 or last is None or state.src[end + len(closing) : state.eMarks[last]].strip():
            return False
        if not silent:
            token = state.push("math", "math", 0)
            token.content, token.block, token.map = state.src[begin + len(opening) : end], True, [line, last + 1]
        state.line = last + 1
        return True
    return False


def _math_html(
    _renderer: RendererHTML, tokens: Sequence[Token], index: int, _options: OptionsDict, _env: EnvType
) -> str:
    token = tokens[index]
    return _mathml(token.content.strip(), "block" if token.block else "inline")


@lru_cache(maxsize=512)
def _mathml(source: str, display: str) -> str:
    plain = f"<code>{html.escape(source)}</code>"
    if not source or len(source) > MAX_MATH_CHARS:
        return plain
    try:
        converted: Any = convert(source, display=display)
    except _MATH_FAILURES:
        return plain
    return f'<span class="math math-{display}">{converted}</span>'
