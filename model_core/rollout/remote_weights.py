"""Gives an engine the policy's weights, and makes sure that it has them: by their digest and by a canary prompt.

The digest is that of the engine's memory where it tells one, as our own does. SGLang holds the weights merged and tells a
checksum of that form: it must change when our digest does, and only then. The canary is answered greedily by the engine and
judged by the trainer, token by token: that finds what no checksum does, weights in the wrong places or another computation.
"""

from __future__ import annotations

import shutil
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import torch

from model_core.errors import EngineError
from model_core.model import Transformer, save_pretrained
from model_core.rollout.digest import weights_digest
from model_core.rollout.remote import RemoteEngine

CANARY_TOKENS = 16
"""Tokens of the canary's answer; fewer where the context ends."""


class WeightSync:
    """Exports below `directory`, which the engine must see under the same name; nothing of it is left after `close`."""

    def __init__(
        self, engine: RemoteEngine, directory: Path, *, canary: Sequence[int], tolerance: float,
        tell: Callable[[str], None] = lambda _sentence: None,
    ) -> None:
        """`tolerance` in nats a token; `tell` hears of checks that the engine does not allow."""
        self.engine, self.directory, self.canary, self.tolerance, self._tell = engine, directory, list(canary), tolerance, tell
        self._last: tuple[str, str] | None = None
        """The last digest, and the checksum that the engine gave for it."""
        self._is_told = False
        shutil.rmtree(directory, ignore_errors=True)  # of an attempt that was killed

    def sync(self, policy: Transformer, tokenizer: Any, step: int) -> None:
        """Has the engine serve `policy`. Raises EngineError, whose words begin small, when it cannot be sure of that."""
        digest, target = weights_digest(policy.state_dict()), self.directory / f"step_{step:08d}"
        try:
            self.directory.mkdir(parents=True, exist_ok=True)
            save_pretrained(policy, target, tokenizer)
        except OSError as error:
            raise EngineError(f"the weights cannot be written to {self.directory} ({error.strerror})") from error
        told, checksum = self.engine.update(target.absolute(), digest), None
        if told is None:
            checksum = self.engine.checksum()
            self._compare(digest, checksum)
        elif told != digest:
            raise EngineError(f"the engine's weights have the digest {told}, not {digest}")
        self._ask_canary(policy)
        self._last = (digest, checksum) if checksum is not None else None
        for old in self.directory.iterdir():
            if old != target:
                shutil.rmtree(old, ignore_errors=True)

    def close(self) -> None:
        """Removes the exports."""
        shutil.rmtree(self.directory, ignore_errors=True)

    def _compare(self, digest: str, checksum: str | None) -> None:
        """The engine's own checksum against what it was at the last sync."""
        if checksum is None:
            if not self._is_told:
                self._tell("The engine tells no checksum of its weights; after each sync only the canary prompt is compared.")
            self._is_told = True
        elif self._last is not None and (self._last[0] == digest) != (self._last[1] == checksum):
            changed = "other weights" if self._last[0] != digest else "the same weights"
            raise EngineError(f"the engine was given {changed}, and its checksum was {self._last[1]} before and is {checksum} now")

    def _ask_canary(self, policy: Transformer) -> None:
        room = policy.config.max_position_embeddings - len(self.canary)
        ((answer,),) = self.engine.generate([self.canary], max_new_tokens=min(CANARY_TOKENS, room), temperature=0.0)
        apart = worst_difference(policy, self.canary, answer.tokens, answer.logprobs)
        if not apart <= self.tolerance:
            raise EngineError(
                f"on the canary prompt engine and trainer differ by {apart:.3g} nats a token, more than max_canary_difference "
                f"{self.tolerance:g}: the engine does not compute what is trained"
            )


@torch.no_grad()
def worst_difference(policy: Transformer, prompt: Sequence[int], tokens: Sequence[int], logprobs: Sequence[float]) -> float:
    """Most nats by which a token's log-probability, or its distance from the likeliest token, differs from the trainer's.

    The answer was greedy, so that its distance is 0; a tie that falls otherwise costs only what separates the two.
    """
    device = policy.lm_head.weight.device
    was_training = policy.training
    policy.eval()
    try:
        logits_TV = policy(torch.tensor([[*prompt, *tokens[:-1]]], device=device))[0, len(prompt) - 1 :]
    finally:
        policy.train(was_training)
    own_TV = logits_TV.float().log_softmax(dim=-1)
    own_T = own_TV.gather(1, torch.tensor(tokens, device=device)[:, None])[:, 0]
    difference_T = (own_T - torch.tensor(logprobs, device=device)).abs()
    return float(torch.maximum(difference_T, own_TV.max(dim=-1).values - own_T).max())
