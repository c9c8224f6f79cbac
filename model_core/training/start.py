"""What a run starts with: rows that fit, a tokenizer, a model; and the checks of the configuration against them.

Where a resumed attempt goes on is decided once, in `resumed`, and verified there.
"""

from __future__ import annotations

import json
import os
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import psutil
import torch
from transformers import AutoTokenizer, PreTrainedTokenizerFast

from model_core.causal import DENSE
from model_core.config import ModelConfig, RunConfig, RunPaths
from model_core.data.dataset import Row, read_rows
from model_core.data.tokenizer import encode_rows, train_tokenizer
from model_core.errors import CheckpointError, ConfigError, DataError, ModelCoreError
from model_core.model import Transformer, load_pretrained
from model_core.planner import refuse_too_large
from model_core.rewards import REWARDS
from model_core.rundir import RunDir
from model_core.training.checkpoints import newest_whole, read_metadata, tidy, verify
from model_core.training.layouts import check_parallel
from model_core.training.reporter import Reporter
from model_core.training.world import World

Encoded = tuple[list[int], list[int]]
REWARD_MODEL = "reward_model"
"""The phase whose checkpoints hold reward models."""


@dataclass(frozen=True)
class Start:
    """A model in float32 with its tokenizer and shape."""

    model: Transformer
    tokenizer: PreTrainedTokenizerFast
    model_config: ModelConfig


def check_machine(config: RunConfig, world: World) -> None:
    """Raises ConfigError when the processes or the machine are not what the configuration asks for."""
    if world.size != config.parallel.num_processes:
        raise ConfigError(
            f"The run was launched with {world.size} processes, but its configuration asks for "
            f"{config.parallel.num_processes}; launch it with model_core.launch.command.",
            field="parallel.num_processes",
        )
    num_places = torch.cuda.device_count() if torch.cuda.is_available() else len(os.sched_getaffinity(0))
    if world.size > num_places:
        what = "GPUs" if torch.cuda.is_available() else "CPU cores"
        raise ConfigError(f"num_processes is {world.size}, but this machine has {num_places} {what}; lower it.",
                          field="parallel.num_processes")
    if config.precision.dtype == "float16" and world.device.type == "cpu":
        raise ConfigError("dtype is float16, which needs a GPU; choose float32 or bfloat16 on the CPU.",
                          field="precision.dtype")
    check_parallel(config)


def check_memory(config: RunConfig, paths: RunPaths, world: World) -> None:
    """Raises ConfigError at `model` when its weights, gradients and optimizer cannot fit into what is free, before it is
    built or read. All ranks must call it, and the fewest free bytes decide for all."""
    origin, shape = paths.resume_from or paths.start_from, config.model
    if origin is not None:
        metadata = read_metadata(Path(origin))
        if is_student(metadata):
            return  # its phase looks itself, see `students`; any other refuses it
        shape = _shape(Path(origin), metadata)
    refuse_too_large(config, available_bytes=available_bytes(world), shape=shape)


def available_bytes(world: World) -> int:
    """What each process may take, the fewest of all ranks, who must all call it."""
    own: int = torch.cuda.mem_get_info(world.device)[0] if world.device.type == "cuda" else _share_of_memory(world)
    fewest: int = min(world.gather(own))
    return fewest


def _share_of_memory(world: World) -> int:
    return int(psutil.virtual_memory().available) // max(1, sum(pid != 0 for pid in world.pids))


def resumed(rundir: RunDir, paths: RunPaths, world: World, reporter: Reporter) -> RunPaths:
    """`paths` with the checkpoint that this start goes on from, which is whole; the first rank looks for all.

    The newest that this very directory holds comes first: its trainer was killed. Then `resume_from` and, where it is
    damaged, the older ones beside it. Raises CheckpointError when there are some, but none is whole.
    """
    found: tuple[str | None, list[str]] | ModelCoreError | None = None
    if world.is_first:
        try:
            found = _where_to_go_on(rundir, paths)
        except ModelCoreError as error:
            found = error
    decided = world.gather(found)[0]
    if isinstance(decided, ModelCoreError):
        raise decided
    resume_from, messages = decided
    for message in messages:
        reporter.emit("fallback", message=message)
    return paths.model_copy(update={"resume_from": resume_from})


def _where_to_go_on(rundir: RunDir, paths: RunPaths) -> tuple[str | None, list[str]]:
    tidy(rundir)
    own = rundir.complete_checkpoints()[::-1]
    candidates = [*own, *_with_older(paths.resume_from)]
    if not candidates:
        return None, []
    chosen, refused = newest_whole(candidates)
    messages = [f"{message} An older one is taken." for message in refused]
    if chosen in own:
        messages.append(f"{rundir.path} holds checkpoints of an earlier start: it goes on from {chosen.name}.")
    return str(chosen), messages


def _with_older(resume_from: str | None) -> list[Path]:
    if resume_from is None:
        return []
    asked = Path(resume_from)
    beside = RunDir(asked.parents[1]).complete_checkpoints() if asked.parent.name == "checkpoints" else []
    return [asked, *(path for path in reversed(beside) if path.name < asked.name)]


def training_rows(paths: RunPaths, *, need_completion: bool) -> list[Row]:
    """The training rows. Raises DataError when there is no dataset, no row, or no demonstration where one is needed."""
    if paths.dataset is None:
        raise ConfigError("This phase needs a dataset; choose a prepared version.", field="dataset")
    rows = read_rows(paths.dataset, "train")
    if not rows:
        raise DataError("The dataset has no training rows; prepare it with filters that keep some.", field="dataset")
    if need_completion:
        rows = [row for row in rows if row.completion]
        if not rows:
            raise DataError("No row of the dataset has a completion to learn from; map one, or choose another dataset.",
                            field="dataset")
    return rows


def answerable(rows: list[Row], reporter: Reporter) -> list[Row]:
    """The rows whose answer is known; tells how many are left out. Raises DataError when there is none."""
    known = [row for row in rows if row.answer is not None]
    if not known:
        raise DataError("No row of the dataset has an answer to compare with, so no sampled answer could be judged. Map a "
                        "field or an answer pattern, or choose another dataset.", field="dataset")
    if len(known) < len(rows):
        reporter.emit("warning", message=f"{len(rows) - len(known)} of {len(rows)} rows have no answer and are left out.")
    return known


def needs_answers(config: RunConfig) -> bool:
    """Whether a component of the reward can judge nothing without an expected answer."""
    return any(getattr(REWARDS.get(name), "needs_answer", False) for name in config.reward.weights)


def begin(paths: RunPaths) -> Start:
    """The model that an attempt goes on with: of the checkpoint that `resumed` chose and verified, else of `start_from`."""
    if paths.resume_from is not None:
        return _load(Path(paths.resume_from), read_metadata(Path(paths.resume_from)))
    assert paths.start_from is not None, "the phase says at which field a checkpoint is wanted"
    return load_start(paths.start_from)


def new_or_loaded(config: RunConfig, paths: RunPaths, rows: list[Row]) -> Start:
    """The model that the run begins with: a loaded one, else a new one with a tokenizer of `rows`."""
    if paths.resume_from is not None or paths.start_from is not None:
        return begin(paths)
    return _new(config, train_tokenizer(config.tokenizer, rows))


def new_like(config: RunConfig, paths: RunPaths) -> Start:
    """The model that the run begins with: a loaded one, else a new one with the tokenizer of the model that it samples from.

    Raises ConfigError when neither is named.
    """
    if paths.resume_from is not None or paths.start_from is not None:
        return begin(paths)
    if paths.rollouts_from is None:
        raise ConfigError("Choose a checkpoint to start from, or one to sample from, and new weights are trained.",
                          field="start_from")
    verify(paths.rollouts_from)
    return _new(config, load_tokenizer(Path(paths.rollouts_from) / "model"))


def _new(config: RunConfig, tokenizer: PreTrainedTokenizerFast) -> Start:
    model_config = config.model
    if model_config.vocab_size == 0:
        model_config = model_config.model_copy(update={"vocab_size": len(tokenizer)})
    if model_config.vocab_size < len(tokenizer):
        raise ConfigError(
            f"model.vocab_size is {model_config.vocab_size}, but the tokenizer has {len(tokenizer)} tokens; raise it, "
            "or set 0 to take the tokenizer's size.", field="model.vocab_size",
        )
    torch.manual_seed(config.seed)
    return Start(Transformer(model_config), tokenizer, model_config)


def load_start(checkpoint: str | Path) -> Start:
    """Model and tokenizer of a checkpoint. Raises CheckpointError when it is incomplete or damaged."""
    return _load(Path(checkpoint), verify(checkpoint))


def _load(checkpoint: Path, metadata: dict[str, Any]) -> Start:
    refuse_reward_model(checkpoint, metadata)
    model_config, directory = _shape(checkpoint, metadata), checkpoint / "model"
    model = load_pretrained(directory)
    return Start(model, load_tokenizer(directory), model_config)


def _shape(checkpoint: Path, metadata: dict[str, Any]) -> ModelConfig:
    shape = metadata.get("model_config")
    if not isinstance(shape, dict):
        raise CheckpointError(f"{checkpoint}/metadata.json has no model_config: it is no checkpoint of this trainer. "
                              "Choose another checkpoint.")
    if is_student(metadata):
        raise CheckpointError(f"{checkpoint} holds a dense student ({shape['model_type']}), which is trained on by distillation "
                              "only. Choose a checkpoint of another phase.")
    return ModelConfig.parse(shape, prefix="model")


def refuse_reward_model(checkpoint: str | Path, metadata: dict[str, Any]) -> None:
    """Raises CheckpointError for a checkpoint of a model that only judges."""
    if metadata.get("phase") == REWARD_MODEL:
        raise CheckpointError(f"{checkpoint} holds a reward model, which judges answers and writes none. Choose a checkpoint of "
                              "another phase; the reward “preference” is what asks this one.", field="start_from")


def is_student(metadata: dict[str, Any]) -> bool:
    """Whether a checkpoint is of a dense student, of which only distillation knows what to do."""
    shape = metadata.get("model_config")
    return isinstance(shape, dict) and shape.get("model_type") in DENSE


def load_tokenizer(directory: Path) -> PreTrainedTokenizerFast:
    """The tokenizer in a checkpoint's `model/`; nothing in it is executed. Raises CheckpointError when there is none."""
    try:
        kind: Any = PreTrainedTokenizerFast if _is_whole(directory) else AutoTokenizer
        tokenizer: Any = kind.from_pretrained(str(directory), trust_remote_code=False, local_files_only=True)
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise CheckpointError(f"{directory} has no readable tokenizer ({str(error)[:200]}). Choose another checkpoint.") from error
    if not isinstance(tokenizer, PreTrainedTokenizerFast) or tokenizer.eos_token_id is None or tokenizer.pad_token_id is None:
        raise CheckpointError(f"{directory} has no fast tokenizer with an end and a padding token. Choose another checkpoint.")
    return tokenizer


def _is_whole(directory: Path) -> bool:
    """Whether tokenizer.json is all of the tokenizer, as ours is: by its model's type, transformers would put another one's way of
    parting words in its place, and a dense student of ours would lose every word."""
    config = directory / "tokenizer_config.json"
    told = json.loads(config.read_text(encoding="utf-8")) if config.is_file() else None
    return isinstance(told, dict) and told.get("tokenizer_class") in {"TokenizersBackend", "PreTrainedTokenizerFast"}


def encode_fitting(
    tokenizer: PreTrainedTokenizerFast, rows: list[Row], *, limit: int, reserve: int = 0, field: str
) -> list[Encoded]:
    """Token ids of `rows`. Raises ConfigError for `field` when one is longer than `limit` less `reserve` tokens."""
    encoded = encode_rows(tokenizer, rows)
    longest = max((len(prompt) + len(completion) for prompt, completion in encoded), default=0)
    if longest + reserve > limit:
        num_long = sum(len(p) + len(c) + reserve > limit for p, c in encoded)
        room = f" and {reserve} tokens of answer" if reserve else ""
        raise ConfigError(
            f"{num_long} of {len(rows)} rows do not fit into {limit} positions: the longest has {longest} tokens"
            f"{room}. Raise model.max_position_embeddings of the first phase, or filter the dataset by length.",
            field=field,
        )
    return encoded


