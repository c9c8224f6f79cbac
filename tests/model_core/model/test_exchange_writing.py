"""A directory is written whole or not at all, converted without a model, and never twice in memory."""

from __future__ import annotations

import json
import signal
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file
from transformers import AutoTokenizer

from model_core.__main__ import main
from model_core.commands import convert as command
from model_core.errors import CheckpointError, MachineError
from model_core.model import Transformer, load_pretrained, save_pretrained
from model_core.model.exchange import convert, converting
from tests.model_core.model.random_models import GROUPS, YARN, say, shape, tokenizer

EVERYTHING = {**GROUPS, "q_lora_rank": 10, "rope_scaling": YARN, "num_nextn_predict_layers": 1}


def made(**changes: Any) -> Transformer:
    torch.manual_seed(1)
    return Transformer(shape(**changes))


def equal(one: Transformer, other: Transformer) -> bool:
    return all(torch.equal(tensor, other.state_dict()[name]) for name, tensor in one.state_dict().items())


def test_what_is_there_is_not_written_over(tmp_path: Path) -> None:
    model = made()
    save_pretrained(model, tmp_path / "model")
    before = {file.name: file.read_bytes() for file in (tmp_path / "model").iterdir()}
    with pytest.raises(CheckpointError, match="exists and is not empty"):
        save_pretrained(made(hidden_size=64), tmp_path / "model")
    (tmp_path / "file").touch()
    with pytest.raises(CheckpointError, match="exists and is not empty"):
        save_pretrained(model, tmp_path / "file")
    assert {file.name: file.read_bytes() for file in (tmp_path / "model").iterdir()} == before
    (tmp_path / "empty").mkdir()
    save_pretrained(model, tmp_path / "empty")
    assert equal(load_pretrained(tmp_path / "empty"), model)


@pytest.mark.parametrize("fails_at", ["model-00002-of", "tokenizer", "config.json"])
def test_nothing_stays_of_what_could_not_be_finished(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, fails_at: str) -> None:
    """A disk that fills in the middle, whatever was being written."""
    whole, words = Path.open, tokenizer()

    def opened(path: Path, *args: Any, **kwargs: Any) -> Any:
        if path.name.startswith(fails_at) and ".part" in str(path):
            raise OSError(28, "No space left on device")
        return whole(path, *args, **kwargs)

    def no_room(*_args: Any, **_kwargs: Any) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(Path, "open", opened)
    if fails_at == "tokenizer":
        monkeypatch.setattr(type(words), "save_pretrained", no_room)
    with pytest.raises(OSError, match="No space left"):
        save_pretrained(made(vocab_size=len(words)), tmp_path / "model", words, max_shard_bytes=30_000)
    assert not list(tmp_path.iterdir())


KILLED = """
import os, signal, sys
from model_core.config import ModelConfig
from model_core.model import Transformer, save_pretrained
from model_core.model.exchange import shards
def write(file, entries, whole=shards._write_file):
    if "00003" in file.name:
        os.kill(os.getpid(), signal.SIGKILL)
    whole(file, entries)
shards._write_file = write
save_pretrained(Transformer(ModelConfig.model_validate_json(sys.argv[1])), sys.argv[2], max_shard_bytes=30_000)
"""


def child(program: str, *arguments: str) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-c", program, *arguments]
    return subprocess.run(command, timeout=120, check=False, capture_output=True, text=True)


def test_a_killed_save_leaves_no_directory_and_the_next_one_succeeds(tmp_path: Path) -> None:
    ended = child(KILLED, shape().model_dump_json(), str(tmp_path / "model"))
    assert ended.returncode == -signal.SIGKILL, ended.stderr
    left = [path.name for path in tmp_path.iterdir()]
    assert left == [".model.part"] and not (tmp_path / ".model.part" / "config.json").exists()
    with pytest.raises(CheckpointError, match=r"has no config\.json"):
        load_pretrained(tmp_path / ".model.part")
    save_pretrained(made(), tmp_path / "model")
    assert equal(load_pretrained(tmp_path / "model"), made()) and [path.name for path in tmp_path.iterdir()] == ["model"]


MEASURED = """
import pathlib, re, sys, torch
from model_core.config import ModelConfig
from model_core.model import load_pretrained, save_pretrained, Transformer
from model_core.model.exchange import convert
def say_peak():
    print(1024 * int(re.search(r"VmHWM:\\s+(\\d+)", pathlib.Path("/proc/self/status").read_text())[1]))
small, source, target = ModelConfig.model_validate_json(sys.argv[1]), *sys.argv[2:]
save_pretrained(Transformer(small), target + "_small")
load_pretrained(target + "_small")
say_peak()
convert(source, target + "_convert", dtype=torch.bfloat16, max_shard_bytes=5 * 10**6, say=str)
say_peak()
model = load_pretrained(source)
say_peak()
save_pretrained(model, target + "_save", max_shard_bytes=5 * 10**6)
say_peak()
"""
BIG = {"hidden_size": 256, "moe_intermediate_size": 512, "n_routed_experts": 24, "vocab_size": 2000}
"""20 million parameters."""


def test_there_is_never_a_second_copy_in_memory(tmp_path: Path) -> None:
    """Beside the model one file is mapped and one tensor converted; a copy of the weights would take all of `size` again."""
    model = made(**BIG)
    size = sum(tensor.numel() * 4 for tensor in model.state_dict().values())
    save_pretrained(model, tmp_path / "source", max_shard_bytes=5 * 10**6)
    ended = child(MEASURED, shape().model_dump_json(), str(tmp_path / "source"), str(tmp_path / "target"))
    before, converted, loaded, saved = (int(line) / size for line in ended.stdout.split())
    grown = {"convert": converted - before, "load": loaded - before, "save": saved - loaded}
    assert grown["convert"] < 0.25 and grown["load"] < 1.25 and grown["save"] < 0.25, grown


def test_convert_keeps_the_weights_the_tokenizer_and_the_ids(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    words = tokenizer()
    model = made(**EVERYTHING, vocab_size=len(words))
    save_pretrained(model, tmp_path / "source", words, dtype=torch.bfloat16)
    source, target = str(tmp_path / "source"), str(tmp_path / "target")
    assert set(command.DTYPES) == set(converting.DTYPES)
    assert main(["convert", source, target, "--dtype", "float32", "--max-shard-gb", "0.00003"]) == 0
    said = capsys.readouterr().out.splitlines()
    files = sorted(file.name for file in Path(target).glob("*.safetensors"))
    assert "are written in float32" in said[0] and "is complete after" in said[-1]
    assert [line.split(":")[0] for line in said[1 : 1 + len(files)]] == files and len(files) > 2
    assert said[len(files)].endswith("100 %.") and "The tokenizer is copied: tokenizer.json" in said[-2]
    again = load_pretrained(target)
    assert again.config == model.config and equal(again, load_pretrained(source))
    text = "What is 17 + 25?"
    read = AutoTokenizer.from_pretrained(target)
    assert read(text)["input_ids"] == words(text)["input_ids"] and read.chat_template == words.chat_template
    ids = {name: json.loads((Path(target) / "config.json").read_text())[name] for name in ("bos_token_id", "eos_token_id")}
    assert ids["eos_token_id"] == words.eos_token_id
    assert (Path(target) / "generation_config.json").read_bytes() == (Path(source) / "generation_config.json").read_bytes()


def test_convert_without_a_word_keeps_the_format_and_needs_no_tokenizer(tmp_path: Path) -> None:
    save_pretrained(made(), tmp_path / "source", dtype=torch.bfloat16)
    said: list[str] = []
    convert(tmp_path / "source", tmp_path / "target", say=said.append)
    assert f"{tmp_path / 'source'} has no tokenizer, so none is copied." in said
    one, other = (load_file(tmp_path / name / "model.safetensors") for name in ("source", "target"))
    assert one.keys() == other.keys()
    assert all(torch.equal(tensor, other[name]) and tensor.dtype == other[name].dtype for name, tensor in one.items())


def test_convert_takes_out_what_is_repeated(tmp_path: Path) -> None:
    model = made(num_nextn_predict_layers=1)
    save_pretrained(model, tmp_path / "source")
    file = tmp_path / "source" / "model.safetensors"
    state = load_file(file)
    again = {"embed_tokens": "model.embed_tokens.weight", "shared_head.head": "lm_head.weight"}
    repeated = {f"model.layers.3.{name}.weight": state[first].clone() for name, first in again.items()}
    save_file(state | repeated, file)
    convert(tmp_path / "source", tmp_path / "target", say=str)
    assert load_file(tmp_path / "target" / "model.safetensors").keys() == state.keys()
    assert equal(load_pretrained(tmp_path / "target"), model)


def test_convert_refuses_what_it_cannot_read_or_write(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    save_pretrained(made(), tmp_path / "source")
    (tmp_path / "there").mkdir()
    with pytest.raises(CheckpointError, match="there exists; choose a directory that does not"):
        convert(tmp_path / "source", tmp_path / "there")
    monkeypatch.setattr(converting, "RESERVE_BYTES", 1 << 60)
    with pytest.raises(MachineError, match=r"needs 0\.2 MB, but .* are free"):
        convert(tmp_path / "source", tmp_path / "far" / "away", say=str)
    monkeypatch.undo()
    state = load_file(tmp_path / "source" / "model.safetensors")
    state["model.norm.weight"][0] = float("nan")
    save_file(state, tmp_path / "source" / "model.safetensors")
    assert main(["convert", str(tmp_path / "source"), str(tmp_path / "target")]) == 2
    assert "model.norm.weight holds NaN" in capsys.readouterr().err
    say(tmp_path / "source", dtype="int8")
    with pytest.raises(CheckpointError, match="says dtype 'int8'; choose one of float32"):
        convert(tmp_path / "source", tmp_path / "target")
    for size in ("0", "-1", "inf", "nan", "much"):
        with pytest.raises(SystemExit):
            main(["convert", "a", "b", "--max-shard-gb", size])
    assert sorted(path.name for path in tmp_path.iterdir()) == ["source", "there"]
