"""Turn a bundle into a container image: install wheels locally, then only copy files in the build.

`build` creates the image, `push` uploads it to a registry. Both need the `docker` extra and a Docker engine.
"""

from mlapp.images.build import Image, build_images
from mlapp.images.engine import EngineError, ImageError
from mlapp.images.push import push_images

__all__ = ["EngineError", "Image", "ImageError", "build_images", "push_images"]
