"""The rows that judgements amount to: pairs for a reward model, demonstrations for supervised steps. Pure; no database.

Everything is a vote. A rating votes for or against one text; an edit and a choice vote for one text over another, and two ratings
of answers to the same prompt, one good and one bad, do so together. Equal rows are one row; where people disagree the majority
is the row, and a draw is none.
"""

from __future__ import annotations

import json
from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import Any

from serving_app.context import Turns
from serving_app.models import Judgement, JudgementKind

PAIRS, DEMONSTRATIONS = "pairs", "demonstrations"


@dataclass
class Votes:
    """What was said for a row, and against it."""

    votes: int = 0
    against: int = 0
    judgements: set[int] = field(default_factory=set)
    reasons: set[str] = field(default_factory=set)

    def add(self, *judgements: Judgement) -> None:
        """One vote, said by these together."""
        self.votes += 1
        for one in judgements:
            self.judgements.add(one.pk)
            self.reasons.update(one.reasons)


@dataclass
class Rows:
    """Rows ready to be written, the judgements that are in them, and what was left out."""

    rows: list[dict[str, Any]] = field(default_factory=list)
    judgements: set[int] = field(default_factory=set)
    num_repeated: int = 0
    """Votes beyond the first for a row that is there."""
    num_drawn: int = 0
    """Rows for and against which as many spoke."""

    def take(self, row: dict[str, Any], found: Votes) -> None:
        """Adds a row with what speaks for it."""
        self.rows.append({**row, "votes": found.votes, "against": found.against, "reasons": sorted(found.reasons)})
        self.judgements |= found.judgements
        self.num_repeated += found.votes - 1

    def encoded(self) -> bytes:
        """JSON Lines; the same judgements give the same bytes."""
        return b"".join(json.dumps(row, ensure_ascii=False).encode() + b"\n" for row in self.rows)


def judged_rows(judgements: Iterable[Judgement], form: str) -> Rows:
    """`PAIRS` or `DEMONSTRATIONS` of the judgements, oldest first."""
    found = sorted((one for one in judgements if one.value), key=lambda one: one.pk)
    return _pairs(found) if form == PAIRS else _demonstrations(found)


def _pairs(judgements: list[Judgement]) -> Rows:
    texts: dict[tuple[str, str, str], tuple[Turns, str, str]] = {}
    votes: dict[tuple[str, str, str], Votes] = {}

    def vote(better: Judgement, worse: Judgement) -> None:
        key = (_prompt_key(better.prompt), _key(better.chosen), _key(worse.rejected))
        if key[1] != key[2]:
            texts.setdefault(key, (better.prompt, better.chosen, worse.rejected))
            votes.setdefault(key, Votes()).add(*{better, worse})

    good: dict[str, list[Judgement]] = {}
    bad: dict[str, list[Judgement]] = {}
    for one in judgements:
        if one.kind != JudgementKind.RATING:
            vote(one, one)
        else:
            (good if one.value > 0 else bad).setdefault(_prompt_key(one.prompt), []).append(one)
    for prompt, better in good.items():
        for liked in better:
            for disliked in bad.get(prompt, []):
                vote(liked, disliked)
    made = Rows()
    for key, found in votes.items():
        opposite = votes.get((key[0], key[2], key[1]))
        found.against = opposite.votes if opposite else 0
        if found.votes > found.against:
            turns, chosen, rejected = texts[key]
            made.take({"prompt": turns, "chosen": _said(chosen), "rejected": _said(rejected)}, found)
        elif found.votes == found.against and key[1] < key[2]:
            made.num_drawn += 1
    return made


def _demonstrations(judgements: list[Judgement]) -> Rows:
    texts: dict[tuple[str, str], tuple[Turns, str]] = {}
    votes: dict[tuple[str, str], Votes] = {}
    against: dict[tuple[str, str], int] = {}
    for one in judgements:
        prompt = _prompt_key(one.prompt)
        if one.chosen:
            key = (prompt, _key(one.chosen))
            texts.setdefault(key, (one.prompt, one.chosen))
            votes.setdefault(key, Votes()).add(one)
        if one.rejected:
            key = (prompt, _key(one.rejected))
            against[key] = against.get(key, 0) + 1
    made = Rows()
    for key, found in votes.items():
        found.against = against.get(key, 0)
        if found.votes > found.against:
            turns, chosen = texts[key]
            made.take({"messages": [*turns, *_said(chosen)], "rating": found.votes - found.against}, found)
        elif found.votes == found.against:
            made.num_drawn += 1
    return made


def _said(text: str) -> Turns:
    return [{"role": "assistant", "content": text}]


def _key(text: str) -> str:
    """The text, however its white space is laid out."""
    return " ".join(text.split())


def _prompt_key(prompt: Turns) -> str:
    return json.dumps([[turn["role"], _key(turn["content"])] for turn in prompt])
