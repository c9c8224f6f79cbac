"""The main job, done as a person would: through the REST API, the socket and the gateway only.

`story.tell` is the order of steps; `r1platform.client` speaks HTTP, `follow` the socket, `report` prints and writes the result.
"""
