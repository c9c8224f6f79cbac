"""Directories of Hugging Face models as others published them, looked at without torch and without running anything of theirs.

Read `looking` first; `files` is also what reads our own. What makes a model of such a directory is in `model_core.model.exchange`.
"""

from model_core.published.hashing import Digest, Unhashed, digest
from model_core.published.looking import MODELS_FIELDS, Published, Refused, files_of, look, refusals_of_code

__all__ = ["MODELS_FIELDS", "Digest", "Published", "Refused", "Unhashed", "digest", "files_of", "look", "refusals_of_code"]
