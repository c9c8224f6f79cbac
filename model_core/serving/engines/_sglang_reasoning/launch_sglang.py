"""Starts SGLang with the key from R1_ENGINE_KEY, so that it stands in no list of processes.

SGLang takes its key as an argument only; here the argument is added inside the process.
"""

from __future__ import annotations

import os
import runpy
import sys

if __name__ == "__main__":
    key = os.environ.pop("R1_ENGINE_KEY", "")
    sys.argv = ["sglang.launch_server", *sys.argv[1:], *(["--api-key", key] if key else [])]
    runpy.run_module("sglang.launch_server", run_name="__main__", alter_sys=True)
