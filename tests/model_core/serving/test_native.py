"""SGLang's own endpoints on the built-in engine: tokens in and out, weights replaced, and everything else refused."""

from __future__ import annotations

import asyncio
import shutil
import threading
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import httpx
import pytest
import torch

from model_core.model import load_pretrained, save_pretrained
from model_core.rollout import Sampler
from model_core.rollout.digest import weights_digest
from model_core.serving.backend import ModelBackend, Sampling
from model_core.training.start import load_tokenizer
from tests.model_core.rollout.engines import KEY, builtin

HEADERS = {"Authorization": f"Bearer {KEY}"}
PROMPTS = [[1, 40, 41], [1, 50, 51, 52, 53], [1, 60]]
Engine = tuple[str, ModelBackend]


@pytest.fixture(scope="module")
def engine(model_dir: Path) -> Iterator[Engine]:
    with builtin(model_dir, num_rows=2) as made:
        yield made


def post(engine: Engine, path: str, body: Any, headers: dict[str, str] = HEADERS) -> httpx.Response:
    return httpx.post(f"{engine[0]}{path}", json=body, headers=headers, timeout=60.0)


def generate(engine: Engine, prompts: Any, params: Any, **values: Any) -> Any:
    answer = post(engine, "/generate", {"input_ids": prompts, "sampling_params": params, "return_logprob": True, **values})
    assert answer.status_code == 200, answer.text
    return answer.json()


def test_greedy_tokens_and_log_probabilities_are_the_samplers(engine: Engine) -> None:
    """More completions than rows; and one that is asked for alone is no list."""
    sampler = engine[1].sampler
    alone = Sampler(sampler.model, eos_token_id=sampler.eos, pad_token_id=0)
    expected = [made for (made,) in alone.generate(PROMPTS, max_new_tokens=9, temperature=0.0)]
    found = generate(engine, PROMPTS, {"max_new_tokens": 9, "temperature": 0}, rid=["a", "b", "c"])
    for item, made, rid in zip(found, expected, "abc", strict=True):
        meta = item["meta_info"]
        assert item["output_ids"] == made.tokens == [token for _logprob, token, _text in meta["output_token_logprobs"]]
        assert [logprob for logprob, _token, _text in meta["output_token_logprobs"]] == pytest.approx(made.logprobs, abs=1e-4)
        assert meta["finish_reason"]["type"] == made.finish_reason and meta["completion_tokens"] == len(made.tokens)
        assert meta["id"] == rid and meta["weight_version"] == "default"
    one = generate(engine, PROMPTS[0], {"max_new_tokens": 9, "temperature": 0})
    assert one["output_ids"] == expected[0].tokens
    assert "output_token_logprobs" not in post(engine, "/generate", {"input_ids": PROMPTS[0], "sampling_params": {"max_new_tokens": 4}}).json()["meta_info"]


def test_log_probabilities_are_those_of_the_distribution_that_is_drawn_from(engine: Engine) -> None:
    model = engine[1].sampler.model
    for item in generate(engine, [PROMPTS[0]] * 3, [
        {"max_new_tokens": 6, "temperature": 0.7, "sampling_seed": seed} for seed in (1, 1, 2)
    ]):  # fmt: skip
        tokens = item["output_ids"]
        with torch.no_grad():
            logits = model(torch.tensor([[*PROMPTS[0], *tokens[:-1]]]))[0, len(PROMPTS[0]) - 1 :]
        own = (logits / 0.7).log_softmax(-1).gather(1, torch.tensor(tokens)[:, None])[:, 0]
        assert [pair[0] for pair in item["meta_info"]["output_token_logprobs"]] == pytest.approx(own.tolist(), abs=1e-4)


def test_a_seed_is_a_draw(engine: Engine) -> None:
    params = [{"max_new_tokens": 8, "sampling_seed": seed} for seed in (5, 5, 6)]
    one, again, other = (item["output_ids"] for item in generate(engine, [PROMPTS[1]] * 3, params))
    assert one == again != other


@pytest.mark.parametrize(("path", "body", "param"), [
    ("/generate", {"input_ids": []}, "input_ids"), ("/generate", {"input_ids": [[]]}, "input_ids"),
    ("/generate", {"input_ids": [-1]}, "input_ids"), ("/generate", {"input_ids": [1, 10**6]}, "input_ids"),
    ("/generate", {"input_ids": ["1"]}, "input_ids"), ("/generate", {}, "input_ids"), ("/generate", {"text": "1"}, "input_ids"),
    ("/generate", {"input_ids": [1], "text": "1"}, "text"), ("/generate", {"input_ids": [1] * 128}, "input_ids"),
    ("/generate", {"input_ids": [1], "stream": True}, "stream"), ("/generate", {"input_ids": [[1], [1]], "rid": "a"}, "rid"),
    ("/generate", {"input_ids": [[1], [1]], "rid": ["a"]}, "rid"), ("/generate", {"input_ids": [1], "rid": 7}, "rid"),
    ("/generate", {"input_ids": [[1], [1]], "sampling_params": [{}]}, "sampling_params"),
    ("/generate", {"input_ids": [1], "sampling_params": {"temperature": -1}}, "sampling_params"),
    ("/generate", {"input_ids": [1], "sampling_params": {"stop": ["x"]}}, "sampling_params"),
    ("/update_weights_from_disk", {}, "model_path"), ("/update_weights_from_disk", {"model_path": ""}, "model_path"),
    ("/update_weights_from_disk", {"model_path": "/x", "load_format": "pickle"}, "load_format"),
    ("/abort_request", {"rid": None}, "rid"),
])  # fmt: skip
def test_what_is_not_understood_is_refused_by_its_name(engine: Engine, path: str, body: Any, param: str) -> None:
    answer = post(engine, path, body)
    assert answer.status_code == 400 and answer.json()["error"]["param"].startswith(param), answer.text


@pytest.mark.parametrize("path", ["/generate", "/update_weights_from_disk", "/abort_request", "/model_info"])
def test_every_endpoint_asks_for_the_key(engine: Engine, path: str) -> None:
    for headers in ({}, {"Authorization": "Bearer wrong"}):
        call = httpx.get if path == "/model_info" else httpx.post
        assert call(f"{engine[0]}{path}", headers=headers).status_code == 401


def test_an_engine_without_a_key_keeps_its_weights(model_dir: Path) -> None:
    with builtin(model_dir, key="") as made:
        answer = post(made, "/update_weights_from_disk", {"model_path": str(model_dir)}, {})
    assert answer.status_code == 403 and "without a key" in answer.json()["error"]["message"]


def test_weights_are_replaced_when_they_are_those_that_were_meant(model_dir: Path, engine: Engine, tmp_path: Path) -> None:
    tokenizer, model = load_tokenizer(model_dir), load_pretrained(model_dir)
    with torch.no_grad():
        model.lm_head.weight.neg_()
    save_pretrained(model, tmp_path / "new", tokenizer)
    before = generate(engine, PROMPTS[0], {"max_new_tokens": 6, "temperature": 0})["output_ids"]
    wrong = post(engine, "/update_weights_from_disk", {"model_path": str(tmp_path / "new"), "weight_version": "sha256:0"})
    assert wrong.status_code == 400 and "digest" in wrong.json()["error"]["message"]
    assert generate(engine, PROMPTS[0], {"max_new_tokens": 6, "temperature": 0})["output_ids"] == before, "served on"
    digest = weights_digest(model.state_dict())
    told = post(engine, "/update_weights_from_disk", {"model_path": str(tmp_path / "new"), "weight_version": digest}).json()
    assert told["success"] and told["weight_version"] == digest
    assert httpx.get(f"{engine[0]}/model_info", headers=HEADERS).json()["weight_version"] == digest
    now = generate(engine, PROMPTS[0], {"max_new_tokens": 6, "temperature": 0})
    assert now["output_ids"] != before and now["meta_info"]["weight_version"] == digest
    shutil.rmtree(tmp_path / "new")
    assert generate(engine, PROMPTS[0], {"max_new_tokens": 6, "temperature": 0})["output_ids"] == now["output_ids"]
    assert post(engine, "/update_weights_from_disk", {"model_path": str(model_dir)}).json()["success"]
    assert generate(engine, PROMPTS[0], {"max_new_tokens": 6, "temperature": 0})["output_ids"] == before


@pytest.mark.parametrize("damage", ["gone", "shape", "cut", "code"])
def test_weights_that_cannot_be_taken_are_refused_and_the_old_ones_served_on(
    model_dir: Path, engine: Engine, tmp_path: Path, damage: str
) -> None:
    directory, version = tmp_path / "new", engine[1].weight_version
    if damage != "gone":
        shutil.copytree(model_dir, directory)
    if damage == "shape":
        text = (directory / "config.json").read_text()
        (directory / "config.json").write_text(text.replace('"max_position_embeddings": 128', '"max_position_embeddings": 64'))
    if damage == "cut":
        (file,) = directory.glob("*.safetensors")
        file.write_bytes(file.read_bytes()[:-100])
    if damage == "code":
        (directory / "modeling.py").write_text("")
    answer = post(engine, "/update_weights_from_disk", {"model_path": str(directory)})
    assert answer.status_code == 400 and answer.json()["error"]["message"], answer.text
    assert engine[1].weight_version == version and engine[1].phase == "ready"
    assert generate(engine, PROMPTS[0], {"max_new_tokens": 3})["meta_info"]["finish_reason"]["type"] in {"stop", "length"}


def test_an_aborted_completion_is_told_as_far_as_it_came_and_the_others_are_whole(
    engine: Engine, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The first hangs after three tokens; who is asked for beside it does not wait."""
    backend, hangs = engine[1], threading.Event()
    real = backend.complete

    async def complete(prompt: list[int], sampling: Any, made: list[Any]) -> None:
        if prompt == PROMPTS[0]:
            await real(prompt, replace(sampling, max_tokens=4), made)
            del made[3:]
            hangs.set()
            await asyncio.sleep(60)
        await real(prompt, sampling, made)

    monkeypatch.setattr(backend, "complete", complete)
    found: list[Any] = []
    params = {"max_new_tokens": 9, "temperature": 0}
    asking = threading.Thread(target=lambda: found.extend(generate(engine, PROMPTS[:2], params, rid=["hangs", "ends"])))
    asking.start()
    assert hangs.wait(20)
    assert post(engine, "/abort_request", {"rid": "nobody's"}).status_code == 200 and asking.is_alive()
    post(engine, "/abort_request", {"rid": "hangs"})
    asking.join(20)
    first, second = found
    assert first["meta_info"]["finish_reason"] == {"type": "abort"} and len(first["output_ids"]) == 3
    assert second["meta_info"]["finish_reason"]["type"] in {"stop", "length"}


async def test_a_completion_that_is_cancelled_frees_its_row(engine: Engine) -> None:
    backend, made = engine[1], list[Any]()
    task = asyncio.ensure_future(backend.complete(PROMPTS[0], Sampling(120, seed=1), made))
    while not made:
        await asyncio.sleep(0.001)
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    while backend.metrics()["running"]:
        await asyncio.sleep(0.001)
    assert len(made) < 120


def test_new_weights_abort_who_decodes(engine: Engine, model_dir: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Held at its second token until the weights are there: what it has made so far is told, and of no one version."""
    backend, waits, goes_on = engine[1], threading.Event(), threading.Event()
    real = backend.sampler._next_logits

    def next_logits(tokens_B1: torch.Tensor) -> torch.Tensor:
        waits.set()
        assert goes_on.wait(60)
        return real(tokens_B1)

    monkeypatch.setattr(backend.sampler, "_next_logits", next_logits)
    found: list[Any] = []
    asking = threading.Thread(target=lambda: found.append(generate(engine, PROMPTS[1], {"max_new_tokens": 100, "temperature": 0})))
    asking.start()
    assert waits.wait(20)
    updating = threading.Thread(target=lambda: found.append(
        post(engine, "/update_weights_from_disk", {"model_path": str(model_dir)}).json()))
    updating.start()
    while backend._replacements.empty():
        assert updating.is_alive()
        waits.wait(0.01)
    goes_on.set()
    asking.join(30)
    updating.join(30)
    cut = next(one for one in found if "meta_info" in one)
    assert cut["meta_info"]["finish_reason"] == {"type": "abort"} and len(cut["output_ids"]) == 2
    assert next(one for one in found if "success" in one)["success"]
