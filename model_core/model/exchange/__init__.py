"""Hugging Face directories of DeepSeek-V2 and V3 models: read, written and copied, one tensor in memory at a time.

`shape` and `rotary` speak config.json, `names` the published names, `blocks` and `model_core.published.files` read, `shards`
writes; `reading`, `writing` and `converting` put them together. Only safetensors cross this border: pickled weights, Python files
and `auto_map` are refused.
"""

from model_core.model.exchange.converting import convert
from model_core.model.exchange.reading import load_pretrained
from model_core.model.exchange.shape import read_config
from model_core.model.exchange.writing import export_state, save_pretrained

__all__ = ["convert", "export_state", "load_pretrained", "read_config", "save_pretrained"]
