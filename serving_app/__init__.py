"""Deployments, the OpenAI-compatible gateway in front of them, and the playground."""
