"""The target `docker`: the app on one Docker engine, replaced without a pause."""

from mlapp.deploy.docker.target import DockerTarget

__all__ = ["DockerTarget"]
