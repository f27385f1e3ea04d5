"""The image that tasks run in: mlapp with flytekit and the project's requirements. The code comes by itself."""

from __future__ import annotations

import sys
from typing import Any

from mlapp.environment import libraries
from mlapp.errors import ConfigError
from mlapp.flyte.errors import FlyteError
from mlapp.flyte.interface import Tell
from mlapp.project import Project


def build(project: Project, tell: Tell) -> str:
    """The image of `flyte.image`, or one that flytekit builds and pushes unless the registry has it: its tag is made
    of the requirements, so that it is built again only when these change.

    Raises:
        ConfigError: no image, and no registry to push one to. FlyteError: it cannot be built or pushed.
    """
    settings = project.settings
    if settings.flyte.image:
        return settings.flyte.image
    registry, slash, name = (settings.image.name or "").rpartition("/")
    if not slash:
        raise ConfigError(
            "There is no image for the tasks, and no registry to push one to.",
            "Set `flyte: {image: …}` in mlapp.yaml, or `image: {name: REGISTRY/NAME}` to have it built.",
        )
    from flytekit.image_spec.image_spec import ImageBuildEngine

    spec = image_spec(project, registry, name)
    reference = str(spec.image_name())
    if spec.exist():
        return reference
    tell(f"build {reference}: the requirements have changed")
    try:
        ImageBuildEngine.build(spec)
    except Exception as error:  # what docker says, in flytekit's own kinds
        raise FlyteError(
            f"The image {reference} cannot be built: {' '.join(str(error).split())[:300]}",
            "Check that Docker runs and that you are logged in to the registry, or set `flyte: {image: …}`.",
        ) from error
    return reference


def image_spec(project: Project, registry: str, name: str) -> Any:
    """What the image is made of, as flytekit's ImageSpec."""
    from flytekit import ImageSpec

    settings = project.settings.image
    requirements = project.root / "requirements.txt"
    return ImageSpec(
        name=name,
        registry=registry,
        base_image=settings.base,
        python_version=settings.python or "{}.{}".format(*sys.version_info),
        requirements=str(requirements) if requirements.is_file() else None,
        packages=[f"mlapp[flyte]=={libraries(['mlapp'])['mlapp']}"],
        apt_packages=list(settings.system_packages) or None,
        env=dict(settings.env) or None,
        pip_index=settings.index_url,
        pip_extra_index_url=list(settings.extra_index_urls) or None,
        platform=",".join(settings.platforms) or "linux/amd64",
    )
