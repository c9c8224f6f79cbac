"""One file a word of `python -m model_core`; heavy imports stand inside `run`."""
