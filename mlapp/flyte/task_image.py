"""The image that tasks run in: mlapp with flytekit and the extras of an app, and the project's requirements.

The code is uploaded separately.
"""

from __future__ import annotations

import re
import sys

from mlapp.bundle import requirements
from mlapp.bundle.requirements import DeclaredRequirements
from mlapp.errors import ConfigError, MissingExtraError
from mlapp.flyte.app_source import make_flyte_app_source
from mlapp.frameworks import Framework
from mlapp.pipeline import Pipeline
from mlapp.project import Project
from mlapp.reporting import Reporter
from mlapp.training.binding import infer_model_framework

SOURCE_EXTRAS = ("sql", "files", "mongo", "redis", "dynamodb")
"""mlapp's data sources with an extra of the same name."""
OBJECT_STORE = re.compile(r"(s3|gs|az|abfs|abfss)://")
REPLACEMENTS = {"xgboost": "xgboost", "torch": "torch"}
"""By extra: a distribution that replaces it if the project requires it, such as `xgboost` (CUDA) for `xgboost-cpu`."""


def choose_task_image(project: Project, progress: Reporter) -> str:
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
            "Set `flyte: {image: …}` in mlapp.yaml, or `image: {name: REGISTRY/NAME}`: mlapp then builds it.",
        )
    try:
        from mlapp.images.task_image import build_task_image
    except ModuleNotFoundError as error:
        if error.name and error.name.startswith("mlapp"):
            raise
        raise MissingExtraError("Building the image of the tasks", "docker") from None
    python = settings.image.python or "{}.{}".format(*sys.version_info)
    source = make_flyte_app_source(project)
    extras = list_task_extras(
        source.app,
        infer_model_framework(source.app),
        settings.store.url,
        requirements.read_declared_requirements(project.root, settings.image, python),
    )
    if settings.store.has_signatures:
        extras = [*extras, "sign"]
    return build_task_image(
        project, name, ",".join(extras), progress=progress, warn=lambda text: progress(f"Warning: {text}")
    )


def list_task_extras(
    pipeline: Pipeline, framework: Framework, store: str, declared: DeclaredRequirements | None
) -> list[str]:
    """The extras, sorted. Without them, a run would fail minutes later, in the task that imports a missing package.

    Args:
        store: the URL of the model store in mlapp.yaml.
        declared: the project's own requirements.
    """
    extras = {"flyte"}
    if framework.extra and not _has_replacing_extra(framework.extra, declared):
        extras.add(framework.extra)
    reader = pipeline.stage("data_reader")
    source = getattr(reader.function, "source", None) if reader else None
    if source in SOURCE_EXTRAS:
        extras.add(source)
    if OBJECT_STORE.match(store):
        extras.add("s3")
    return sorted(extras)


def _has_replacing_extra(extra: str, declared: DeclaredRequirements | None) -> bool:
    name = REPLACEMENTS.get(extra)
    if name is None or declared is None:
        return False
    return (
        re.search(rf"^\s*{name}\s*([\[=<>~!;@]|$)", "\n".join((*declared.lines, declared.text)), re.MULTILINE)
        is not None
    )
