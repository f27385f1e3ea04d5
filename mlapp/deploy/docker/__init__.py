"""The target `docker`: the app on one Docker engine, with zero-downtime releases."""

from mlapp.deploy.docker.target import DockerTarget

__all__ = ["DockerTarget"]
