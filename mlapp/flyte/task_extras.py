"""The extras of mlapp that an app's tasks need: for the model's framework, the reader's source and the store."""

from __future__ import annotations

import re

from mlapp.bundle.requirements import DeclaredRequirements
from mlapp.frameworks import Framework
from mlapp.pipeline import Pipeline

SOURCE_EXTRAS = ("sql", "files", "mongo", "redis", "dynamodb")
"""mlapp's data sources with an extra of the same name."""
OBJECT_STORE = re.compile(r"(s3|gs|az|abfs|abfss)://")
REPLACES = {"xgboost": "xgboost", "torch": "torch"}
"""Extra → a distribution that replaces it if the project requires that, such as `xgboost` (CUDA) for `xgboost-cpu`."""


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
    name = REPLACES.get(extra)
    if name is None or declared is None:
        return False
    return (
        re.search(rf"^\s*{name}\s*([\[=<>~!;@]|$)", "\n".join((*declared.lines, declared.text)), re.MULTILINE)
        is not None
    )
