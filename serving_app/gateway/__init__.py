"""The OpenAI-compatible gateway: who asks (`auth`), for what (`body`), how much (`limits`), of whom (`routing`),
passed on by (`proxying`), written down by (`usage`). `views` puts them together; `gateway_urls` names the paths.

Only these paths reach an engine, with a body made of known fields and the engine's own key.
"""
