"""A thousand documents out of real questions, each mutated so that the rules on web text fire or nearly fire."""

from __future__ import annotations

import json
import random
from collections.abc import Callable
from pathlib import Path

DATA = Path(__file__).resolve().parents[4] / "shared" / "data"
REASON = "the real GSM8K and MATH-500 are not beside the project"
GSM8K, MATH = DATA / "gsm8k" / "train.jsonl", DATA / "math500" / "test.jsonl"


def is_there() -> bool:
    return GSM8K.exists() and MATH.exists()


def questions(path: Path = GSM8K) -> list[str]:
    rows = [json.loads(line) for line in path.read_text(encoding="utf-8").split("\n") if line]
    return [str(row.get("question") or row["problem"]) for row in rows]


def documents(num: int = 1000, seed: int = 0) -> list[str]:
    """One to nine texts, a line or a paragraph each, under up to two mutations of random strength."""
    draw = random.Random(seed)
    texts = [*questions(), *questions(MATH)]
    found = []
    for _ in range(num):
        lines = draw.sample(texts, draw.randint(1, 9))
        for mutate in draw.sample(MUTATIONS, draw.choice((0, 1, 1, 2))):
            lines = mutate(lines, draw)
        found.append(draw.choice(("\n", "\n", "\n\n", " ")).join(lines))
    return found


def _on_some(change: Callable[[str, random.Random], str]) -> Callable[[list[str], random.Random], list[str]]:
    def mutate(lines: list[str], draw: random.Random) -> list[str]:
        chance = draw.choice((0.15, 0.3, 0.5, 0.95, 1.0))
        return [change(line, draw) if draw.random() < chance else line for line in lines]

    return mutate


def _on_words(change: Callable[[str], str]) -> Callable[[list[str], random.Random], list[str]]:
    def mutate(lines: list[str], draw: random.Random) -> list[str]:
        chance = draw.choice((0.05, 0.12, 0.25, 0.6))
        return [" ".join(change(word) if draw.random() < chance else word for word in line.split(" ")) for line in lines]

    return mutate


def _with_line(*wanted: str) -> Callable[[list[str], random.Random], list[str]]:
    def mutate(lines: list[str], draw: random.Random) -> list[str]:
        place = draw.randint(0, len(lines))
        return [*lines[:place], draw.choice(wanted), *lines[place:]]

    return mutate


def _repeated(lines: list[str], draw: random.Random) -> list[str]:
    return lines + [draw.choice(lines) for _ in range(draw.randint(1, len(lines)))]


def _phrase(lines: list[str], draw: random.Random) -> list[str]:
    words = draw.choice(lines).split()
    start, num = draw.randrange(len(words)), draw.randint(2, 12)
    phrase = " ".join(words[start : start + num])
    return [f"{line} {phrase}" if draw.random() < 0.8 else line for line in lines] + [" ".join([phrase] * draw.randint(1, 4))]


def _sentences(lines: list[str], draw: random.Random) -> list[str]:
    return [line.replace(". ", draw.choice((".\n", "! ", " ")) if draw.random() < 0.5 else ". ") for line in lines]


MUTATIONS: tuple[Callable[[list[str], random.Random], list[str]], ...] = (
    _repeated, _phrase, _sentences, lambda lines, draw: lines[:1],
    _on_some(lambda line, draw: draw.choice(("- ", "• ", "  - ", "* ")) + line),
    _on_some(lambda line, draw: line.rstrip(".?") + draw.choice(("...", "…", "... "))),
    _on_some(lambda line, draw: line.rstrip(".?!")),
    _on_some(lambda line, draw: line + draw.choice(("[1]", " [edit]", "[citation needed]", "[12].", '"'))),
    _on_some(lambda line, draw: " ".join(line.split()[:2]) + "."),
    _on_words(lambda word: "#" + word), _on_words(lambda word: "..."), _on_words(lambda word: str(len(word))),
    _on_words(lambda word: word * 5), _on_words(lambda word: word[:1]), _on_words(lambda word: "--"),
    _with_line("Please turn on JavaScript to see this page.", "We use cookies to make this page better.",
               "Our terms of use and privacy policy have changed since you were here."),
    _with_line("Lorem ipsum dolor sit amet, consectetur adipiscing elit.", "Call main() { return 0; } at the end.", "if (x) {"),
    _with_line("It was the U.S. of J. R. R. Tolkien?! He said so.", "Wait... what?", "Ende。 Noch eins！", "x" * 1001 + " is long."),
)  # fmt: skip
