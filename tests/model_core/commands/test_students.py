"""A distilled student is evaluated and served as our own model is."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import httpx
import pytest
import torch

from model_core.causal import DenseShape, Student, StudentSampler, export_student
from model_core.config import TokenizerConfig
from model_core.data.dataset import Row
from model_core.data.tokenizer import END_THINK, THINK, decode, prompt_ids, train_tokenizer
from model_core.rollout.digest import weights_digest
from model_core.training.checkpoints import seal
from model_core.training.start import load_tokenizer
from serving_app.artifacts import refuse_code
from tests.model_core.commands.conftest import TEXT, Say
from tests.model_core.rollout.engines import KEY, builtin

SHAPE: dict[str, Any] = {
    "model_type": "qwen3", "hidden_size": 32, "num_hidden_layers": 2, "num_attention_heads": 4, "num_key_value_heads": 2,
    "intermediate_size": 48, "head_dim": 8, "max_position_embeddings": 96,
}  # fmt: skip
QUESTIONS = [f"{number} + {number * 7} = ?" for number in range(6)]


def exported(directory: Path, *, seed: int = 0) -> Student:
    torch.manual_seed(seed)
    tokenizer = train_tokenizer(TokenizerConfig(kind="byte_bpe", vocab_size=300), [Row(prompt=TEXT, completion=TEXT)])
    shape = DenseShape.of({**SHAPE, "vocab_size": len(tokenizer)}, where="test")
    student = Student(shape)
    with torch.no_grad():
        student.lm_head.weight.normal_(0, 0.5)
        for mark in (THINK, END_THINK):  # which one side of the comparison tells apart
            student.lm_head.weight[tokenizer.convert_tokens_to_ids(mark)] = 0.0
    export_student(student.state_dict(), shape, directory, tokenizer)
    return student


@pytest.fixture(scope="module")
def student_checkpoint(tmp_path_factory: pytest.TempPathFactory) -> Path:
    directory = tmp_path_factory.mktemp("students") / "step_00000004"
    student = exported(directory / "model")
    seal(directory, {"step": 4, "phase": "distillation", "model_config": student.config.resolved()})
    return directory


def greedy(student: Student, directory: Path) -> list[str]:
    tokenizer = load_tokenizer(directory)
    sampler = StudentSampler(student, eos_token_id=int(tokenizer.eos_token_id), pad_token_id=int(tokenizer.pad_token_id))
    made = sampler.generate([prompt_ids(tokenizer, text) for text in QUESTIONS], max_new_tokens=12, temperature=0.0)
    return [decode(tokenizer, one.tokens) for (one,) in made]


def test_a_benchmark_is_answered_alike_by_the_checkpoint_and_by_the_engine_that_serves_it(
    say: Say, student_checkpoint: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    data, found = tmp_path / "data.jsonl", []
    data.write_text("".join(json.dumps({"question": text, "answer": "#### 8"}) + "\n" for text in QUESTIONS))
    words = ["evaluate", "--benchmark", "gsm8k", "--data", data, "--prompt", "{question}", "--temperature", 0, "--max-new-tokens", 12]
    monkeypatch.setenv("OPENAI_API_KEY", KEY)
    refuse_code(student_checkpoint / "model")  # what stands before a deployment
    with builtin(student_checkpoint / "model", num_rows=3) as (url, backend):
        for source in (("--checkpoint", student_checkpoint), ("--endpoint", url)):
            out = tmp_path / f"{source[0]}.json"
            assert say(*words, *source, "--json", out).status == 0
            lines = [json.loads(line) for line in (tmp_path / f"{out.name}.samples.jsonl").read_text().splitlines()]
            found.append({line["row"]: line for line in lines if "row" in line})
        texts = greedy(backend.sampler.model, student_checkpoint / "model")
    assert found[0].keys() == found[1].keys() == set(range(len(QUESTIONS))) and len(set(texts)) > 1
    for row, text in enumerate(texts):
        assert all(text in json.dumps(one[row], ensure_ascii=False) or json.dumps(text) in json.dumps(one[row]) for one in found)


def test_held_out_problems_are_asked(say: Say, student_checkpoint: Path, dataset: Path) -> None:
    said = say("evaluate", student_checkpoint, dataset, "--max-new-tokens", 8)
    assert said.status == 0, said.err
    assert json.loads(said.out)["num_problems"] == 10


def test_an_engine_takes_a_students_next_weights(student_checkpoint: Path, tmp_path: Path) -> None:
    other = exported(tmp_path / "next", seed=1)
    headers = {"Authorization": f"Bearer {KEY}"}
    with builtin(student_checkpoint / "model") as (url, backend):
        before = greedy(backend.sampler.model, student_checkpoint / "model")
        body = {"model_path": str(tmp_path / "next"), "weight_version": weights_digest(other.state_dict())}
        answer = httpx.post(f"{url}/update_weights_from_disk", json=body, headers=headers)
        assert answer.json()["weight_version"] == body["weight_version"] == backend.weight_version
        told = [
            httpx.post(f"{url}/v1/chat/completions", headers=headers, timeout=30.0, json={
                "model": "tiny", "messages": [{"role": "user", "content": text}], "temperature": 0, "max_tokens": 12,
            }).json()["choices"][0]["message"]["content"] for text in QUESTIONS
        ]  # fmt: skip
    assert told == greedy(other, tmp_path / "next") != before
