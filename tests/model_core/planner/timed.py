"""Real steps of real phases on the presets, in one process and one thread, beside what the planner predicts of them.

`python -m` calibrates first, on its own shapes, or takes the rates of the file that it is given; then it prints a line of JSON for
each case. What is measured is the processor's time of the loop's whole step: sampling, scoring, update, counting and telling.
What only data and weights decide, the lengths of prompts and answers, is told to the planner, of each step its own.
"""

from __future__ import annotations

import json
import statistics
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import torch

from model_core.config import PRESETS, ModelConfig, PrepareConfig, RunConfig, RunPaths
from model_core.data.dataset import read_rows
from model_core.data.tokenizer import encode_rows
from model_core.phases import PHASES
from model_core.planner.seconds import Lengths, Rates, step_seconds
from model_core.preparation import prepare
from model_core.rundir import RunDir
from model_core.training import frame as frames
from model_core.training.calibration import calibrate
from model_core.training.reporter import Reporter
from model_core.training.start import load_start
from model_core.training.world import World, join

MODELS: dict[str, Any] = {
    "tiny": "tiny", "small": "small",
    "medium": {**PRESETS["medium"], "num_hidden_layers": 2, "n_routed_experts": 4, "intermediate_size": 1024},
}
"""Medium as it is cut down where its memory is measured."""
SUPERVISED: dict[str, dict[str, Any]] = {
    "tiny": {"steps": 12}, "small": {"steps": 5}, "medium": {"steps": 4, "batch_size": 8, "optimizer": "adamw"},
}
SAMPLED: dict[str, dict[str, Any]] = {
    "tiny": {"steps": 4}, "small": {"steps": 3, "prompts_per_step": 12, "group_size": 8},
    "medium": {"steps": 3, "prompts_per_step": 6, "group_size": 8, "max_new_tokens": 32, "kl_probe": 0},
}


def main() -> None:
    """Every preset's cold start, and reinforcement from where it came."""
    torch.set_num_threads(1)
    world = join()
    rates = Rates.parse(json.loads(Path(sys.argv[1]).read_text())) if sys.argv[1:] else calibrate(world, tell=_tell)
    print(json.dumps({"rates": rates.resolved()}), flush=True)
    with tempfile.TemporaryDirectory() as directory:
        data = Path(directory) / "data"
        prepare(PrepareConfig.parse({
            "source": "generated", "source_config": {"task": "sums", "num_train": 600, "num_held_out": 1}}), out=data)
        for name, model in MODELS.items():
            begun = Path(directory) / name
            for phase, given in (("cold_start", SUPERVISED[name]), ("reinforcement", SAMPLED[name])):
                config = RunConfig.parse({"phase": phase, "model": model, "phase_config": given, "held_out": {"num_problems": 1}})
                paths = RunPaths(dataset=str(data), start_from=str(begun) if phase == "reinforcement" else None)
                told = timed(config, paths, Path(directory) / f"{name}-{phase}", world, rates)
                begun = RunDir(Path(directory) / f"{name}-{phase}").complete_checkpoints()[-1]
                print(json.dumps({"case": f"{name}, {phase}", **told}), flush=True)
    world.close()


def timed(config: RunConfig, paths: RunPaths, directory: Path, world: World, rates: Rates) -> dict[str, Any]:
    """Seconds of each step as measured and as predicted, and the median ratio of the second to the first, without the first step."""
    taken = _run(config, paths, directory, world)
    start = load_start(RunDir(directory).complete_checkpoints()[-1])
    rows = encode_rows(start.tokenizer, read_rows(str(paths.dataset), "train"))
    prompt = round(statistics.fmean(len(prompt) for prompt, _told in rows))
    told = [len(told) for _prompt, told in rows]
    steps = [values for values in _scalars(directory) if "perf/step_s" in values]
    lengths = [
        Lengths(prompt, round(step.get("len/mean", statistics.fmean(told))), round(step.get("len/max", max(told)))) for step in steps
    ]
    found = [step_seconds(config, ModelConfig.parse(start.model_config.resolved()), one, rates) for one in lengths]
    return {
        "ratio": statistics.median([one.total / seconds for one, seconds in zip(found, taken, strict=True)][1:]),
        "measured": taken, "predicted": [one.total for one in found], "parts": found[-1].parts,
        "lengths": [[one.prompt, one.answer, one.longest] for one in lengths],
        "told": {name: value for name, value in steps[-1].items() if name.startswith("perf/") and name.endswith("_s")},
    }  # fmt: skip


def _run(config: RunConfig, paths: RunPaths, directory: Path, world: World) -> list[float]:
    """Runs the phase; the processor's seconds of each step."""
    rundir, taken = RunDir.create(directory, run=config, paths=paths), []
    step = frames.Frame._step

    def watched(self: Any, one_step: Any) -> None:
        began = time.process_time()
        step(self, one_step)
        taken.append(time.process_time() - began)

    frames.Frame._step = watched  # type: ignore[method-assign]
    reporter = Reporter(rundir, is_first=True)
    try:
        PHASES.get(config.phase)().run(config, frames.Context(rundir, paths, world, reporter, None))
    finally:
        reporter.close()
        frames.Frame._step = step  # type: ignore[method-assign]
    return taken


def _scalars(directory: Path) -> list[dict[str, Any]]:
    events = [json.loads(line) for line in RunDir(directory).events.read_text().splitlines()]
    return [event["payload"]["values"] for event in events if event["kind"] == "scalars"]


def _tell(line: str) -> None:
    print(line, file=sys.stderr, flush=True)


if __name__ == "__main__":
    main()
