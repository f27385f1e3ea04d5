"""Registering: the code's archive, the tasks, the workflows, the launch plans and schedules."""

from __future__ import annotations

import tempfile
from collections import OrderedDict
from collections.abc import Iterable
from pathlib import Path
from typing import Any

from flytekit.configuration import FastSerializationSettings, ImageConfig, SerializationSettings
from flytekit.core.context_manager import FlyteContextManager
from flytekit.core.launch_plan import LaunchPlan
from flytekit.models import launch_plan as launch_plans
from flytekit.models import task as tasks
from flytekit.models.admin import workflow as workflows
from flytekit.models.core.identifier import Identifier, ResourceType
from flytekit.tools.translator import get_serializable

from mlapp.environment import GitState, git_state
from mlapp.flyte import code, files, schedules, source, versions
from mlapp.flyte.connection import Connection
from mlapp.flyte.errors import FlyteError
from mlapp.flyte.interface import Registration, Tell
from mlapp.flyte.plan import CODE_REVISION
from mlapp.flyte.workflow import AppWorkflow, predict_workflow, train_workflow, tune_workflow
from mlapp.project import Project
from mlapp.tuning import searchable

DESTINATION = "."
"""Where a container unpacks the code: its working directory."""


def register(connection: Connection, project: Project, image: str, tell: Tell) -> Registration:
    """Register the app, unless this code with this image and these settings is there already.

    The default launch plan of `<app>.train` comes last: where it is, all else is.

    Raises:
        FlyteError: Flyte refused, or there is no such project.
    """
    git = git_state(project.root)
    if git is not None and git.dirty:
        tell("git has changes that are not committed: the version is marked -dirty")
    content, digest = code.archive(project, tell)
    flyte = project.settings.flyte
    version = versions.registration_version(digest, image, {"flyte": flyte, "app": project.settings.app}, git)
    dirty = git is not None and git.dirty
    if _is_registered(connection, project, version):
        return Registration(version, (), dirty)
    with tempfile.TemporaryDirectory() as folder:
        file = code.write(content, Path(folder), digest)
        place = files.upload(connection, file, file.name, digest[:32])
    settings = _settings(project, image, version, _revision(git), place)
    origin = source.of_project(project)
    app = origin.app.name
    created: list[str] = []
    previous = schedules.active(connection, app)
    *entities, last = _entities(settings, origin, schedules.plans(origin))
    created += [_create(connection, entity) for entity in entities]
    schedules.activate_new(connection, origin, version, previous)
    created.append(_create(connection, last))
    return Registration(version, tuple(created), dirty)


def documents(project: Project, image: str) -> list[dict[str, Any]]:
    """What `register` would send, as plain data. Talks to nobody: the archive has no place yet."""
    from google.protobuf.json_format import MessageToDict

    _, digest = code.archive(project, lambda text: None)
    git = git_state(project.root)
    flyte = project.settings.flyte
    version = versions.registration_version(digest, image, {"flyte": flyte, "app": project.settings.app}, git)
    settings = _settings(project, image, version, _revision(git), f"uploaded-when-applied/{digest[:32]}.tar.gz")
    origin = source.of_project(project)
    found = []
    for entity in _entities(settings, origin, schedules.plans(origin)):
        kind, place, spec = _parts(entity)
        found.append(
            {
                "kind": kind,
                "id": MessageToDict(place.to_flyte_idl()),
                "spec": MessageToDict(spec.to_flyte_idl(), preserving_proto_field_name=True),
            }
        )
    return found


def identifier(connection: Connection, kind: int, name: str, version: str) -> Identifier:
    return Identifier(kind, connection.settings.project, connection.settings.domain, name, version)


def _entities(settings: SerializationSettings, origin: source.Source, scheduled: Iterable[LaunchPlan]) -> list[Any]:
    """Everything to register, in an order in which each finds what it refers to."""
    context = FlyteContextManager.current_context()
    with FlyteContextManager.with_context(context.with_serialization_settings(settings)) as context:
        found: OrderedDict[Any, Any] = OrderedDict()
        made = _workflows(origin)
        plans = [LaunchPlan.get_default_launch_plan(context, workflow) for workflow in made[::-1]]
        for entity in (*made, *scheduled, *plans):
            get_serializable(found, settings, entity)
        kinds = (tasks.TaskSpec, workflows.WorkflowSpec, launch_plans.LaunchPlan)
        return [entity for entity in found.values() if isinstance(entity, kinds)]


def _workflows(origin: source.Source) -> list[AppWorkflow]:
    """The app's workflows, `<app>.train` first; `<app>.tune` only where the app declares what to search."""
    made = [train_workflow(origin), predict_workflow(origin)]
    return [*made, tune_workflow(origin)] if searchable(origin.app, {}) else made


def _create(connection: Connection, entity: Any) -> str:
    client = connection.client
    kind, place, spec = _parts(entity)
    create = {"task": client.create_task, "workflow": client.create_workflow, "launch plan": client.create_launch_plan}
    try:
        connection.call(create[kind], place, spec)
    except FlyteError as error:
        # Left by a registration that was interrupted: the same version has the same content.
        if "ALREADY_EXISTS" not in error.what:
            raise
    return str(place.name)


def _parts(entity: Any) -> tuple[str, Identifier, Any]:
    """What is to be created: kind, identifier, spec."""
    if isinstance(entity, launch_plans.LaunchPlan):
        return "launch plan", entity.id, entity.spec
    return "workflow" if isinstance(entity, workflows.WorkflowSpec) else "task", entity.template.id, entity


def _settings(project: Project, image: str, version: str, revision: str, place: str) -> SerializationSettings:
    return SerializationSettings(
        image_config=ImageConfig.auto(img_name=image),
        project=project.settings.flyte.project,
        domain=project.settings.flyte.domain,
        version=version,
        env={CODE_REVISION: revision} if revision else None,
        fast_serialization_settings=FastSerializationSettings(
            enabled=True, destination_dir=DESTINATION, distribution_location=place
        ),
    )


def _revision(git: GitState | None) -> str:
    return "" if git is None else f"{git.commit}{'-dirty' if git.dirty else ''}"


def _is_registered(connection: Connection, project: Project, version: str) -> bool:
    place = identifier(connection, ResourceType.LAUNCH_PLAN, f"{project.name}.train", version)
    try:
        connection.call(connection.client.get_launch_plan, place)
    except FlyteError as error:
        if "NOT_FOUND" in error.what:
            return False
        raise
    return True
