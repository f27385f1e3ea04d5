"""A bundle becomes a container image: dependencies laid out as wheels here, then nothing but copies in the build.

`build` makes it, `push` brings it to a registry. Both need the `docker` extra and a Docker engine.
"""

from mlapp.images.build import Image, build_images
from mlapp.images.engine import EngineError, ImageError
from mlapp.images.push import push_images

__all__ = ["EngineError", "Image", "ImageError", "build_images", "push_images"]
