"""The DeepSeek-V3-style model. Read `transformer` first, then `attention` and `moe`; `exchange` reads and writes it."""

from model_core.model.exchange import export_state, load_pretrained, save_pretrained
from model_core.model.transformer import Transformer

__all__ = ["Transformer", "export_state", "load_pretrained", "save_pretrained"]
