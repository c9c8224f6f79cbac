"""A trainer that trains nothing: it counts steps, tells of them, writes checkpoints and obeys the stop file.

Started as `python stub_trainer.py RUN_DIR`. What it does comes from `stub.json` of the run directory:
{"steps": 20, "pause": 0.01, "crash_at": 7, "rank_ended_at": 7, "quality": 0.9, "error": "…"}. It goes on from `resume_from`.
"""

from __future__ import annotations

import json
import os
import signal
import sys
import time
from pathlib import Path

from model_core.events import EventWriter
from model_core.rundir import COMPLETE, RunDir, write_json

PLAN = "R1_STUB_PLAN"


def main() -> int:
    rundir = RunDir(sys.argv[1])
    plan = json.loads(os.environ[PLAN])
    _config, paths = rundir.load()
    step = int(Path(paths.resume_from).name.removeprefix("step_")) if paths.resume_from else 0
    attempt = int(rundir.path.name)
    events = EventWriter(rundir.events)
    events.emit("started", phase="cold_start", num_processes=1, device="cpu")
    print("the stub begins at step", step, flush=True)
    if plan.get("error"):
        return end(rundir, "failed", step, error={"type": "DataError", "message": plan["error"], "field": "dataset_version"})
    while step < plan["steps"]:
        if rundir.stop.exists():
            save(rundir, events, step, final=False)
            return end(rundir, "stopped", step, reason=rundir.stop.read_text())
        step += 1
        values = {"loss": 1 / step}
        events.emit("scalars", step=step, tokens=step * 10, process_seconds=step * 0.1, values=values)
        events.emit("progress", stage="updating", step=step, total=plan["steps"], fraction=step / plan["steps"])
        if step % 5 == 0:
            save(rundir, events, step, final=False)
        if plan.get("crash_at") == step and (attempt == 1 or plan.get("always")):
            os.kill(os.getpid(), signal.SIGKILL)
        if plan.get("rank_ended_at") == step and attempt == 1:
            return end(rundir, "failed", step, error={"type": "RankEnded", "message": "Rank 1 ended.", "field": ""})
        time.sleep(plan.get("pause", 0.01))
    save(rundir, events, step, final=True)
    return end(rundir, "succeeded", step, quality_low=plan.get("quality", 0.9), accuracy=0.8)


def save(rundir: RunDir, events: EventWriter, step: int, *, final: bool) -> None:
    directory = rundir.checkpoint(step)
    (directory / "model").mkdir(parents=True, exist_ok=True)
    write_json(directory / "metadata.json", {"step": step})
    (directory / COMPLETE).touch()
    events.emit(
        "checkpoint", step=step, path=f"checkpoints/{directory.name}", metrics={}, size_bytes=1, sha256="e" * 64, is_final=final
    )


def end(rundir: RunDir, status: str, step: int, **values: object) -> int:
    write_json(rundir.result, {"status": status, "steps": step, **values})
    return 2 if status == "failed" else 0


if __name__ == "__main__":
    sys.exit(main())
