"""One directory, three readers: the real SGLang, transformers and our sampler give the same greedy tokens from it.

What else the engine does is asked of such a V3 directory in `test_real_sglang.py`, and this of one with another head.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from model_core.model import Transformer, load_pretrained, save_pretrained
from tests.model_core.model.random_models import tokenizer
from tests.sglang.same_tokens import EVERYTHING, from_transformers, say_the_same
from tests.sglang.test_real_sglang import MISSING, serve

pytestmark = [
    pytest.mark.slow, pytest.mark.sglang, pytest.mark.timeout(240),
    pytest.mark.skipif(MISSING is not None, reason=str(MISSING)),
]  # fmt: skip

@pytest.fixture(scope="module", params=sorted(EVERYTHING))
def served(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[Transformer, Path, str]]:
    directory = tmp_path_factory.mktemp(request.param)
    save_pretrained(from_transformers(request.param, directory, len(words := tokenizer())), directory / "ours", words)
    model = load_pretrained(directory / "ours")
    for url in serve("sglang", directory / "ours", directory, 150):
        yield model, directory / "ours", url


def test_all_three_say_the_same_tokens(served: tuple[Transformer, Path, str]) -> None:
    model, directory, url = served
    say_the_same(url, model, directory)
