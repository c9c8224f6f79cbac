"""Marks of ranks: every whole line once, whatever the pieces it was written in."""

from __future__ import annotations

import io
import subprocess
import sys

from hypothesis import given
from hypothesis import strategies as st

from model_core.ranklog import marked, rank_mark


@given(pieces=st.lists(st.text("ab\n", max_size=8), max_size=20))
def test_lines_are_marked_once_however_they_are_written(pieces: list[str]) -> None:
    out = io.StringIO()
    stream = marked(out, 3)
    for piece in pieces:
        assert stream.write(piece) == len(piece)
    *whole, rest = "".join(pieces).split("\n")
    assert out.getvalue() == "".join(f"[rank 3] {line}\n" for line in whole)
    stream.finish()  # type: ignore[attr-defined]
    assert out.getvalue().count("\n") == len(whole) + bool(rest)


def test_a_process_marks_its_output_its_errors_and_its_last_words() -> None:
    code = "from model_core.ranklog import mark_output; mark_output(1); print('a'); print('b', end=''); raise ValueError('c')"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert done.stdout == f"{rank_mark(1)}a\n{rank_mark(1)}b\n"
    assert all(line.startswith(rank_mark(1)) for line in done.stderr.splitlines()) and "ValueError: c" in done.stderr
