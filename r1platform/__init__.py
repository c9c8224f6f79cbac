"""The plumbing of the platform: people, projects, keys, nodes, devices, processes; knows no run and no deployment."""

from r1platform.celery import app as celery_app

__all__ = ["celery_app"]
