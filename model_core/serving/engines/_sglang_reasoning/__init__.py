"""A plugin for SGLang and the script that starts it, run by `engines/sglang.py`; nothing in here is imported by the project."""
