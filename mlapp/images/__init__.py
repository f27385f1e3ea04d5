"""A bundle becomes a container image: dependencies laid out as wheels here, then nothing but copies in the build.

`build` makes it, `push` brings it to a registry. Both need the `docker` extra and a Docker engine.
"""

from mlapp.images.build import Image, build
from mlapp.images.engine import EngineError, ImageError
from mlapp.images.push import push

__all__ = ["EngineError", "Image", "ImageError", "build", "push"]
