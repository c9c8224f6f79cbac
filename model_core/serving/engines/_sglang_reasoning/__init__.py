"""A plugin for SGLang, put on its path by `engines/sglang.py`; nothing in this folder is imported by the project."""
