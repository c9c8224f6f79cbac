"""Makes a dataset version: a source, a mapping, a funnel of filters, a split; streaming, `dataset.json` last.

The result is a directory with train.jsonl, held_out.jsonl and the manifest dataset.json. Nothing is there, or all of
it: the work is done in a folder beside it that is renamed at the end. The command is `python -m model_core prepare`.
Rows pass in chunks: `judging` maps and filters them, here or in other processes (`workers`), `version` counts and writes.
"""

from model_core.preparation.judging import SPLITS, split_of
from model_core.preparation.mapping import mapped
from model_core.preparation.version import FORMAT_VERSION, Progress, prepare

__all__ = ["FORMAT_VERSION", "SPLITS", "Progress", "mapped", "prepare", "split_of"]
