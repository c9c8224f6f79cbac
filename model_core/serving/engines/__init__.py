"""One file a serving engine; their protocol is in `model_core.serving.protocol`."""

from model_core.registry import Registry

ENGINES = Registry("model_core.serving.engines", kind="engine")
