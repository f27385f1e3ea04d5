"""Register the code archive, tasks, workflows, launch plans and schedules."""

from __future__ import annotations

import hashlib
import re
from collections import OrderedDict
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from flytekit.configuration import FastSerializationSettings, ImageConfig, SerializationSettings
from flytekit.core.context_manager import FlyteContextManager
from flytekit.core.launch_plan import LaunchPlan
from flytekit.models import launch_plan as launch_plans
from flytekit.models import task as tasks
from flytekit.models.admin import workflow as workflows
from flytekit.models.core.identifier import Identifier, ResourceType
from flytekit.tools.translator import get_serializable

from mlapp.errors import UsageError
from mlapp.flyte import app_source, code_archive, code_fingerprint, file_transfer, schedules
from mlapp.flyte.connection import Connection
from mlapp.flyte.errors import FlyteError
from mlapp.flyte.failures import explain_option_declaration
from mlapp.flyte.interface import Registration
from mlapp.flyte.launch_plans import MONITOR, find_launch_plan_schedule, list_schedules, make_launch_plans
from mlapp.flyte.run_stages import split_run_stage_names
from mlapp.flyte.task_graph import CODE_REVISION
from mlapp.flyte.task_specs import choose_default_resources
from mlapp.flyte.workflow import AppWorkflow, monitor_workflow, predict_workflow, train_workflow, tune_workflow
from mlapp.monitoring.run_schedule import make_cron
from mlapp.project import Project
from mlapp.provenance import GitState, read_git_state
from mlapp.reporting import Reporter
from mlapp.temporary_folders import open_temporary_folder
from mlapp.tuning import list_searchable_spaces

UNUSED_IMAGE = "unused:0"
LIMIT_MESSAGE = re.compile(r"Requested (\w+) \w+ \[(.+?)\] is greater than current limit .+? \[(.+?)\]")
"""flyteadmin's message for a task that requests more than the platform's limit (its `task_validator.go`)."""
CODE_DESTINATION = "."
"""Folder in which a container unpacks the code: its working directory."""


def register_app(connection: Connection, project: Project, image: str, progress: Reporter) -> Registration:
    """Register the app, unless this code with this image and these settings is already registered. Schedules keep
    their version until `deploy_schedules` changes it.

    The default launch plan of `<app>.train` is created last: if it exists, everything else does.

    Raises:
        FlyteError: Flyte refused, or the project does not exist.
    """
    code = _prepare_registered_code(project, image, progress)
    is_registered = _is_registered(connection, project, code.version)
    if code.is_dirty:
        progress("git has changes that are not committed: the version is marked -dirty")
    if is_registered:
        return Registration(code.version, (), code.is_dirty)
    source = app_source.make_flyte_app_source(project)
    app_workflows, _ = compile_app_for_registration(source)
    with open_temporary_folder("flyte") as folder:
        # Flyte accepts a repeated upload only with the same bytes, but versions of zlib compress differently.
        archive_digest = hashlib.sha256(code.archive).hexdigest()
        file = code_archive.write_code_archive(code.archive, folder, archive_digest)
        location = file_transfer.upload_file(connection, file, file.name, archive_digest[:32])
    created_names = [
        _register_entity(connection, entity)
        for entity in _list_registered_entities(
            _make_registration_settings(project, image, code, location), app_workflows
        )
    ]
    return Registration(code.version, tuple(created_names), code.is_dirty)


def register_workflow(connection: Connection, project: Project, version: str, workflow: AppWorkflow) -> None:
    """Register a workflow, whose tasks must be registered, and its launch plan. This is idempotent.

    Raises:
        FlyteError: Flyte refused.
    """
    for entity in _list_registered_entities(_make_registration_reference_settings(project, version), [workflow]):
        if not isinstance(entity, tasks.TaskSpec):
            _register_entity(connection, entity)


def deploy_schedules(connection: Connection, project: Project, version: str, progress: Reporter) -> None:
    """Point the app's schedules to a registered version.

    Raises:
        FlyteError: Flyte refused.
    """
    source = app_source.make_flyte_app_source(project)
    _, plans = compile_app_for_registration(source)
    settings = _make_registration_reference_settings(project, version)
    plans_by_schedule = {
        find_launch_plan_schedule(source.app.name, plan.id.name): plan
        for plan in _list_registration_launch_plans(settings, plans)
    }
    schedules.deploy_schedules(
        connection, source, version, lambda name: _register_entity(connection, plans_by_schedule[name]), progress
    )


def _parse_registration_image(image: str) -> ImageConfig:
    try:
        return ImageConfig.auto(img_name=image)
    except AssertionError:
        raise UsageError(
            f"The image '{image}' has no tag or digest, which Flyte needs.",
            "Write one in mlapp.yaml, as flyte: {image: 'registry.example/app:1'}.",
        ) from None


def render_documents(project: Project, image: str) -> list[dict[str, Any]]:
    """The documents that `register_app` would send, as plain data, without the archive's location. Makes no request."""
    from google.protobuf.json_format import MessageToDict

    code = _prepare_registered_code(project, image, lambda text: None)
    settings = _make_registration_settings(project, image, code, f"uploaded-when-applied/{code.digest[:32]}.tar.gz")
    documents = []
    app_workflows, plans = compile_app_for_registration(app_source.make_flyte_app_source(project))
    for entity in (
        *_list_registered_entities(settings, app_workflows),
        *_list_registration_launch_plans(settings, plans),
    ):
        kind, identifier, spec = _describe_registered_entity(entity)
        documents.append(
            {
                "kind": kind,
                "id": MessageToDict(identifier.to_flyte_idl()),
                "spec": MessageToDict(spec.to_flyte_idl(), preserving_proto_field_name=True),
            }
        )
    return documents


def compile_app_for_registration(source: app_source.Source) -> tuple[list[AppWorkflow], list[LaunchPlan]]:
    """The app's workflows, `<app>.train` first, and the launch plans of its schedules. Makes no request.

    Raises:
        DeclarationError: there is no reader or no model, or Flyte does not support a schedule. UsageError: Flyte cannot
            represent a parameter, or no stage takes a schedule's parameter.
    """
    return _list_registered_workflows(source), make_launch_plans(source)


@dataclass(frozen=True)
class _CodeRelease:
    """The registered code: its archive, the SHA-256 of the archive's content, and the resulting version."""

    archive: bytes
    digest: str
    version: str
    git: GitState | None

    @property
    def is_dirty(self) -> bool:
        return self.git is not None and self.git.dirty

    @property
    def revision(self) -> str:
        """The commit, with the suffix `-dirty` if there are changes; empty without git."""
        return "" if self.git is None else f"{self.git.commit}{'-dirty' if self.is_dirty else ''}"


def _prepare_registered_code(project: Project, image: str, progress: Reporter) -> _CodeRelease:
    git = read_git_state(project.root)
    archive, digest = code_archive.archive_code(project, progress)
    settings = {
        "flyte": project.settings.flyte,
        "app": project.settings.app,
        "environment": project.environment,
        "memory": choose_default_resources(None, app_source.read_app_training_size(project)).memory,
    }
    if project.settings.monitor.run == "flyte":
        settings["monitor"] = make_cron(project.settings)
    return _CodeRelease(
        archive, digest, code_fingerprint.compute_code_registration_version(digest, image, settings, git), git
    )


def make_registration_identifier(connection: Connection, kind: int, name: str, version: str) -> Identifier:
    return Identifier(kind, connection.settings.project, connection.settings.domain, name, version)


def _list_registered_entities(settings: SerializationSettings, app_workflows: Sequence[AppWorkflow]) -> list[Any]:
    """All objects to register except the schedules, each after those that it refers to."""
    context = FlyteContextManager.current_context()
    with FlyteContextManager.with_context(context.with_serialization_settings(settings)) as context:
        serialized: OrderedDict[Any, Any] = OrderedDict()
        plans = [LaunchPlan.get_default_launch_plan(context, workflow) for workflow in app_workflows[::-1]]
        for entity in (*app_workflows, *plans):
            get_serializable(serialized, settings, entity)
        kinds = (tasks.TaskSpec, workflows.WorkflowSpec, launch_plans.LaunchPlan)
        return [entity for entity in serialized.values() if isinstance(entity, kinds)]


def _list_registration_launch_plans(
    settings: SerializationSettings, scheduled: Sequence[LaunchPlan]
) -> list[launch_plans.LaunchPlan]:
    """The schedules' launch plans, to register after their workflows."""
    context = FlyteContextManager.current_context()
    with FlyteContextManager.with_context(context.with_serialization_settings(settings)):
        return [get_serializable(OrderedDict(), settings, plan) for plan in scheduled]


def _list_registered_workflows(source: app_source.Source) -> list[AppWorkflow]:
    """The app's workflows, `<app>.train` first; `<app>.monitor` only with `monitor: {run: flyte}`, and `<app>.tune`
    only if the app declares parameters to search.
    """
    app_workflows = [train_workflow(source), predict_workflow(source)]
    if MONITOR in list_schedules(source):
        app_workflows.append(monitor_workflow(source))
    return [*app_workflows, tune_workflow(source)] if list_searchable_spaces(source.app, {}) else app_workflows


def _register_entity(connection: Connection, entity: Any) -> str:
    client = connection.client
    kind, identifier, spec = _describe_registered_entity(entity)
    create_calls = {
        "task": client.create_task,
        "workflow": client.create_workflow,
        "launch plan": client.create_launch_plan,
    }
    try:
        connection.call_client(create_calls[kind], identifier, spec)
    except FlyteError as error:
        # An interrupted registration created it. The same version has the same content.
        if "ALREADY_EXISTS" not in error.what:
            raise _explain_registration_limit(str(identifier.name), error.what) or error from error
    return str(identifier.name)


def _explain_registration_limit(entity: str, refusal: str) -> FlyteError | None:
    """The error for a task that requests more than Flyte allows per task; None for other refusals."""
    match = LIMIT_MESSAGE.search(refusal)
    if match is None:
        return None
    kind, request, limit = match.groups()
    task = entity.rpartition(".")[2]
    option = "disk" if kind == "EPHEMERAL_STORAGE" else kind.lower()
    value = limit if option in ("cpu", "gpu") else f"'{limit}'"
    declaration = explain_option_declaration(split_run_stage_names(task)[0], f"resources=Resources({option}={value})")
    return FlyteError(
        f"Task {task} asks for {option} {request}, but Flyte's limit for a task is {limit}.",
        f"Request less: {declaration}. Or ask the operator to raise task_resources.limits in Flyte's configuration.",
    )


def _describe_registered_entity(entity: Any) -> tuple[str, Identifier, Any]:
    """An object to create: kind, identifier, spec."""
    if isinstance(entity, launch_plans.LaunchPlan):
        return "launch plan", entity.id, entity.spec
    return "workflow" if isinstance(entity, workflows.WorkflowSpec) else "task", entity.template.id, entity


def _make_registration_reference_settings(project: Project, version: str) -> SerializationSettings:
    """Serialization settings for workflows and launch plans, without image and code, which only tasks contain."""
    return SerializationSettings(
        ImageConfig.auto(img_name=UNUSED_IMAGE), project.settings.flyte.project, project.settings.flyte.domain, version
    )


def _make_registration_settings(
    project: Project, image: str, code: _CodeRelease, location: str
) -> SerializationSettings:
    return SerializationSettings(
        image_config=_parse_registration_image(image),
        project=project.settings.flyte.project,
        domain=project.settings.flyte.domain,
        version=code.version,
        env={CODE_REVISION: code.revision} if code.revision else None,
        fast_serialization_settings=FastSerializationSettings(
            enabled=True, destination_dir=CODE_DESTINATION, distribution_location=location
        ),
    )


def _is_registered(connection: Connection, project: Project, version: str) -> bool:
    identifier = make_registration_identifier(connection, ResourceType.LAUNCH_PLAN, f"{project.name}.train", version)
    try:
        connection.call_client(connection.client.get_launch_plan, identifier)
    except FlyteError as error:
        if "NOT_FOUND" in error.what:
            return False
        raise
    return True
