"""The image that tasks run in: mlapp with flytekit and the project's requirements. The code is uploaded separately."""

from __future__ import annotations

import re
import sys

from mlapp.bundle import requirements
from mlapp.errors import ConfigError, MissingExtraError
from mlapp.flyte.app_source import make_project_source
from mlapp.flyte.task_extras import list_task_extras
from mlapp.project import Project
from mlapp.reporting import Reporter
from mlapp.training.binding import infer_model_framework


def build_task_image(project: Project, tell: Reporter) -> str:
    """The image in `flyte.image`, or one that is built and pushed to `image.name` unless the registry has it.

    Raises:
        ConfigError: there is neither an image nor a registry. MlappError: the image cannot be built or pushed.
    """
    settings = project.settings
    if settings.flyte.image:
        return settings.flyte.image
    name = re.sub(r":[\w][\w.-]*$", "", settings.image.name or "")
    if "/" not in name:
        raise ConfigError(
            "There is no image for the tasks, and no registry to push one to.",
            "Set `flyte: {image: …}` in mlapp.yaml, or `image: {name: REGISTRY/NAME}` to have it built.",
        )
    try:
        from mlapp.images.task_image import build_task_image
    except ModuleNotFoundError as error:
        if error.name and error.name.startswith("mlapp"):
            raise
        raise MissingExtraError("Building the image of the tasks", "docker") from None
    python = settings.image.python or "{}.{}".format(*sys.version_info)
    source = make_project_source(project)
    extras = list_task_extras(
        source.app,
        infer_model_framework(source.app),
        settings.store.url,
        requirements.read_declared_requirements(project.root, settings.image, python),
    )
    if settings.store.has_signatures:
        extras = [*extras, "sign"]
    return build_task_image(project, name, ",".join(extras), progress=tell, warn=lambda text: tell(f"Warning: {text}"))
