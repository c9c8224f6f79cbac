"""What lets the real SGLang serve on a CPU from its ordinary wheel; put on PYTHONPATH of the engine's process only.

`sitecustomize` runs before SGLang and stands in for compiled packages that a CPU never uses; `r1_sglang_cpu` is a plugin
by SGLang's own entry point. The lists beside them are what `./r1 engine install sglang` installs. Measured with 0.5.23.
"""
