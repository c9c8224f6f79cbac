"""Where thinking ends and the answer begins: the one rule of rewards and engines. Imports without torch.

A text that begins with `<think>` was thought up to the first `</think>`; any other text is an answer. So what is rewarded is
what a reader is shown: an engine streams, and what it has told as an answer it cannot take back when a closing mark comes.
`opened` says that the prompt's template has written the opening mark, as DeepSeek-R1's does; ours leaves it to the model.
Texts of other models that were closed and never opened get their mark where they are imported (`with_opening`).
"""

from __future__ import annotations

from model_core.serving.reasoning import CLOSE, OPEN


def split(text: str, *, opened: bool = False) -> tuple[str, str]:
    """(thought, answer) of a whole text, without the marks. A closing mark that it begins with is left out: nothing was
    thought."""
    begun = text.lstrip()
    if begun.startswith(CLOSE) and not opened:
        return "", begun.removeprefix(CLOSE)
    if not (opened or begun.startswith(OPEN)):
        return "", text
    thought, _mark, answer = (text if opened else begun.removeprefix(OPEN)).partition(CLOSE)
    return thought, answer


def with_opening(text: str) -> str:
    """A demonstration of it: with the opening mark that another model's template had written."""
    is_bare = CLOSE in text and not text.lstrip().startswith(OPEN)
    return f"{OPEN}{text}" if is_bare else text
