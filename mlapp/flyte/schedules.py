"""The state of the schedules in Flyte: deploy, list, activate and stop them.

Flyte records only when a launch plan was created, and deploying a version again does not create it again. Therefore,
each deploy writes the version to the launch plan's description.
"""

from __future__ import annotations

import datetime
from collections.abc import Callable
from typing import Any

from flyteidl.admin import common_pb2
from flytekit.clients.raw import RawSynchronousFlyteClient
from flytekit.models.admin.common import Sort
from flytekit.models.common import NamedEntityIdentifier
from flytekit.models.core.identifier import Identifier, ResourceType
from flytekit.models.launch_plan import LaunchPlanState
from flytekit.models.named_entity import NamedEntityMetadata, NamedEntityState
from flytekit.models.schedule import Schedule as FlyteSchedule

from mlapp.flyte import promotion
from mlapp.flyte.app_source import Source
from mlapp.flyte.connection import Connection
from mlapp.flyte.errors import FlyteError
from mlapp.flyte.interface import ScheduleState
from mlapp.flyte.launch_plans import find_launch_plan_schedule, list_launch_plan_names, list_schedules, name_launch_plan
from mlapp.pipeline.schedule import Schedule
from mlapp.reporting import Reporter

NEWEST = Sort("created_at", Sort.Direction.DESCENDING)
DESCRIPTION_PREFIX = "Deployed by mlapp: "
"""The beginning of the description of a launch plan, before the version."""


def list_active_schedules(connection: Connection, app: str) -> dict[str, Any]:
    """The active launch plans of the app's schedules, by schedule."""
    settings = connection.settings
    plans: dict[str, Any] = {}
    token = ""
    while True:
        page, token = connection.call_client(
            connection.client.list_active_launch_plans_paginated, settings.project, settings.domain, token=token
        )
        plans.update({name: plan for plan in page if (name := find_launch_plan_schedule(app, plan.id.name))})
        if not token:
            return plans


def deploy_schedules(
    connection: Connection, source: Source, version: str, create: Callable[[str], Any], progress: Reporter
) -> None:
    """Point the app's active and new schedules to a version. Deactivated schedules stay off, and schedules that the app
    no longer declares are switched off.

    Args:
        create: creates the launch plan of a schedule in that version.
    """
    app, declared = source.app.name, list_schedules(source)
    active_plans = list_active_schedules(connection, app)
    for name, schedule in declared.items():
        active_plan = active_plans.get(name)
        if active_plan is not None and active_plan.id.name != name_launch_plan(app, schedule):
            _set_schedule_state(
                connection, active_plan.id, LaunchPlanState.INACTIVE
            )  # the schedule changed between training and predicting
            active_plan = None
        if active_plan is not None and active_plan.id.version == version:
            continue
        deployed_plans = (
            [active_plan]
            if active_plan is not None
            else _select_last_deployed_schedule(connection, [name_launch_plan(app, schedule)])
        )
        if not deployed_plans or deployed_plans[0].id.version != version:
            create(name)
            record_deployed_version(connection, name_launch_plan(app, schedule), version)
        if active_plan is not None or not deployed_plans:
            _set_schedule_state(
                connection,
                _make_scheduled_plan_identifier(connection, name_launch_plan(app, schedule), version),
                LaunchPlanState.ACTIVE,
            )
            progress(f"schedule {name} runs version {version}")
        else:
            progress(f"schedule {name} was deactivated and stays inactive: mlapp schedule activate {name}")
    for name, plan in active_plans.items():
        if name not in declared:
            _set_schedule_state(connection, plan.id, LaunchPlanState.INACTIVE)
            progress(f"schedule {name} is no longer declared and was deactivated")


def list_schedule_states(connection: Connection, source: Source) -> list[ScheduleState]:
    """The declared schedules, and active ones that are no longer declared. A schedule without a version was never
    deployed.
    """
    app, declared = source.app.name, list_schedules(source)
    active_plans, states = list_active_schedules(connection, app), []
    for name, schedule in declared.items():
        versions = (
            [active_plans[name]]
            if name in active_plans
            else _select_last_deployed_schedule(connection, list_launch_plan_names(app, name))
        )
        states.append(_make_schedule_state(schedule, versions[0].id.version if versions else "", name in active_plans))
    for name, plan in active_plans.items():
        if name not in declared:
            states.append(ScheduleState(name, "no longer declared", True, plan.id.version))
    return states


def list_deployed_schedules(connection: Connection, app: str) -> list[ScheduleState]:
    """The schedules in Flyte, active or not. The app's code is not needed."""
    active_plans = list_active_schedules(connection, app)
    states = [_read_schedule_state(name, plan, is_active=True) for name, plan in active_plans.items()]
    for name in _list_deployed_names(connection, app):
        if name not in active_plans:
            versions = _select_last_deployed_schedule(connection, list_launch_plan_names(app, name))
            states += [_read_schedule_state(name, plan, is_active=False) for plan in versions]
    return sorted(states, key=lambda state: state.name)


def switch_schedule(connection: Connection, app: str, name: str, is_active: bool) -> ScheduleState | None:
    """Switch a schedule on, in the version that was deployed last, or off; None if Flyte has no such schedule."""
    active_plans = list_active_schedules(connection, app)
    versions = (
        [active_plans[name]]
        if name in active_plans and not is_active
        else _select_last_deployed_schedule(connection, list_launch_plan_names(app, name))
    )
    if not versions:
        return None
    if is_active or name in active_plans:
        _set_schedule_state(
            connection, versions[0].id, LaunchPlanState.ACTIVE if is_active else LaunchPlanState.INACTIVE
        )
    return _read_schedule_state(name, versions[0], is_active=is_active)


def find_schedule(connection: Connection, app: str, name: str) -> ScheduleState | None:
    """A schedule in Flyte, in the version that was deployed last."""
    versions = _select_last_deployed_schedule(connection, list_launch_plan_names(app, name))
    return _read_schedule_state(name, versions[0], is_active=False) if versions else None


def list_schedule_versions(connection: Connection, plan: str) -> list[tuple[str, datetime.datetime]]:
    """The versions of a launch plan with their creation times, oldest first."""
    settings = connection.settings
    identifier = NamedEntityIdentifier(settings.project, settings.domain, plan)
    versions: list[tuple[str, datetime.datetime]] = []
    token = ""
    while True:
        request = common_pb2.ResourceListRequest(
            id=identifier.to_flyte_idl(), limit=100, token=token, sort_by=NEWEST.to_flyte_idl()
        )
        # flytekit's LaunchPlan drops the time; its raw client returns the whole message.
        page = connection.call_client(RawSynchronousFlyteClient.list_launch_plans_paginated, connection.client, request)
        versions += [
            (str(plan.id.version), plan.closure.created_at.ToDatetime(tzinfo=datetime.timezone.utc))
            for plan in page.launch_plans
        ]
        token = page.token
        if not token:
            return versions[::-1]


def move_schedules(connection: Connection, app: str, version: str, progress: Reporter) -> list[str]:
    """Point the active schedules to another version, if it includes them; returns the names of these schedules."""
    moved_names = []
    for name, plan in list_active_schedules(connection, app).items():
        identifier = _make_scheduled_plan_identifier(connection, plan.id.name, version)
        try:
            _set_schedule_state(connection, identifier, LaunchPlanState.ACTIVE)
        except FlyteError as error:
            if "NOT_FOUND" not in error.what:
                raise
            progress(f"version {version} has no schedule {name}; it is unchanged")
        else:
            moved_names.append(name)
    return moved_names


def stop_schedules(connection: Connection, app: str) -> list[str]:
    """Switch all schedules off; returns the names of those that were on."""
    active_plans = list_active_schedules(connection, app)
    for plan in active_plans.values():
        _set_schedule_state(connection, plan.id, LaunchPlanState.INACTIVE)
    return sorted(active_plans)


def _make_schedule_state(schedule: Schedule, version: str, is_active: bool) -> ScheduleState:
    return ScheduleState(schedule.name, schedule.description, is_active, version, schedule.promote_if or "")


def _read_schedule_state(name: str, plan: Any, *, is_active: bool) -> ScheduleState:
    clock = plan.spec.entity_metadata.schedule
    if clock.rate is not None:
        unit = FlyteSchedule.FixedRateUnit.enum_to_string(clock.rate.unit).lower()
        when = f"every {clock.rate.value} {unit}{'' if clock.rate.value == 1 else 's'}"
    else:
        when = clock.cron_schedule.schedule if clock.cron_schedule is not None else clock.cron_expression
    promotion_metric = plan.spec.fixed_inputs.literals.get(promotion.INPUT_NAME)
    return ScheduleState(
        name,
        when or "",
        is_active,
        plan.id.version,
        promotion_metric.scalar.primitive.value if promotion_metric else "",
    )


def _list_deployed_names(connection: Connection, app: str) -> list[str]:
    """The names of all schedules that were ever deployed."""
    settings = connection.settings
    names: list[str] = []
    token = ""
    while True:
        page, token = connection.call_client(
            connection.client.list_launch_plan_ids_paginated, settings.project, settings.domain, token=token
        )
        names += [name for identifier in page if (name := find_launch_plan_schedule(app, identifier.name))]
        if not token:
            return list(dict.fromkeys(names))


def _make_scheduled_plan_identifier(connection: Connection, plan: str, version: str) -> Identifier:
    settings = connection.settings
    return Identifier(ResourceType.LAUNCH_PLAN, settings.project, settings.domain, plan, version)


def _select_last_deployed_schedule(connection: Connection, plans: list[str]) -> list[Any]:
    """A list with the plan that was deployed last, or the newest one if none is recorded; empty without plans."""
    for plan in plans:
        version = read_deployed_version(connection, plan)
        if version is None:
            continue
        if version:
            try:
                return [
                    connection.call_client(
                        connection.client.get_launch_plan, _make_scheduled_plan_identifier(connection, plan, version)
                    )
                ]
            except FlyteError as error:
                if "NOT_FOUND" not in error.what:
                    raise
        settings = connection.settings
        identifier = NamedEntityIdentifier(settings.project, settings.domain, plan)
        newest_plans, _ = connection.call_client(
            connection.client.list_launch_plans_paginated, identifier, limit=1, sort_by=NEWEST
        )
        return list(newest_plans)
    return []


def _set_schedule_state(connection: Connection, identifier: Identifier, state: int) -> None:
    connection.call_client(connection.client.update_launch_plan, identifier, state)


def record_deployed_version(connection: Connection, plan: str, version: str) -> None:
    """Record that `version` of the launch plan `plan` was deployed last."""
    metadata = NamedEntityMetadata(f"{DESCRIPTION_PREFIX}{version}", NamedEntityState.ACTIVE)
    connection.call_client(
        connection.client.update_named_entity,
        ResourceType.LAUNCH_PLAN,
        _identify_deployed_plan(connection, plan),
        metadata,
    )


def read_deployed_version(connection: Connection, plan: str) -> str | None:
    """The version that was deployed last; empty if none is recorded, None if the plan does not exist."""
    request = common_pb2.NamedEntityGetRequest(
        resource_type=ResourceType.LAUNCH_PLAN, id=_identify_deployed_plan(connection, plan).to_flyte_idl()
    )
    client: Any = connection.client
    try:  # flytekit's client has no method for this call
        entity: Any = connection.call_client(client._stub.GetNamedEntity, request, metadata=client._metadata)
    except FlyteError as error:
        if "NOT_FOUND" in error.what:
            return None
        raise
    description = entity.metadata.description
    return description.removeprefix(DESCRIPTION_PREFIX) if description.startswith(DESCRIPTION_PREFIX) else ""


def _identify_deployed_plan(connection: Connection, plan: str) -> NamedEntityIdentifier:
    return NamedEntityIdentifier(connection.settings.project, connection.settings.domain, plan)
