"""`route`: tokens that spell the text, loads by domain, and errors in the file as well as on the screen."""

from __future__ import annotations

import json
from pathlib import Path

from tests.model_core.commands.conftest import Say


def texts(path: Path, *lines: dict[str, str]) -> Path:
    path.write_text("".join(json.dumps(line) + "\n" for line in lines))
    return path


def test_the_first_text_is_told_token_by_token_and_all_are_counted(checkpoint: Path, tmp_path: Path, say: Say) -> None:
    file = texts(tmp_path / "texts.jsonl", {"prompt": "17 + 25", "completion": "<think>1</think>42", "domain": "sums"},
                 {"prompt": "3 + 4", "domain": "sums"}, {"prompt": "Über", "domain": "words"})  # fmt: skip
    out = tmp_path / "out.json"
    assert say("route", checkpoint / "model", "--texts", file, "--json", out).status == 0
    told = json.loads(out.read_text())
    assert "17 + 25" in "".join(told["tokens"]) and "42" in "".join(told["tokens"])
    num_tokens = len(told["tokens"])
    for layer in range(len(told["experts"])):
        assert len(told["experts"][layer]) == len(told["weights"][layer]) == len(told["entropy"][layer]) == num_tokens
    assert [(one["domain"], one["num_texts"]) for one in told["domains"]] == [("sums", 2), ("words", 1)]
    assert told["domains"][0]["num_tokens"] > num_tokens and len(told["domains"][0]["loads"][0]) == told["num_experts"]


def test_what_cannot_be_is_told_in_the_file_too(checkpoint: Path, tmp_path: Path, say: Say) -> None:
    out = tmp_path / "out.json"
    said = say("route", checkpoint / "model", "--texts", texts(tmp_path / "t.jsonl", {"completion": "x"}), "--json", out)
    assert said.status == 2 and json.loads(out.read_text())["error"]["field"] == "texts"
    said = say("route", tmp_path / "nowhere", "--texts", texts(tmp_path / "t.jsonl", {"prompt": "x"}), "--json", out)
    assert said.status == 2 and json.loads(out.read_text())["error"]["message"]
