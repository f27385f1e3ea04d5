"""The state of the schedules in Flyte: deploy, list, activate and stop them.

Flyte only keeps creation times of launch plans, and deploying a version again does not create it again. So each deploy
writes the version to the launch plan's description.
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
MARK = "Deployed by mlapp: "
"""The beginning of the description of a launch plan, before the version."""


def list_active_schedules(connection: Connection, app: str) -> dict[str, Any]:
    """The active launch plans of the app's schedules, by schedule."""
    settings = connection.settings
    found: dict[str, Any] = {}
    token = ""
    while True:
        page, token = connection.call_client(
            connection.client.list_active_launch_plans_paginated, settings.project, settings.domain, token=token
        )
        found.update({name: plan for plan in page if (name := find_launch_plan_schedule(app, plan.id.name))})
        if not token:
            return found


def deploy_schedules(
    connection: Connection, source: Source, version: str, create: Callable[[str], Any], tell: Reporter
) -> None:
    """Point the app's active and new schedules to a version. Deactivated schedules stay off, and schedules that the app
    no longer declares are switched off.

    Args:
        create: creates the launch plan of a schedule in that version.
    """
    app, declared = source.app.name, list_schedules(source)
    running = list_active_schedules(connection, app)
    for name, schedule in declared.items():
        now = running.get(name)
        if now is not None and now.id.name != name_launch_plan(app, schedule):
            _set_schedule_state(connection, now.id, LaunchPlanState.INACTIVE)  # it changed from training to predicting
            now = None
        if now is not None and now.id.version == version:
            continue
        known = (
            [now] if now is not None else _select_last_deployed_schedule(connection, [name_launch_plan(app, schedule)])
        )
        if not known or known[0].id.version != version:
            create(name)
            record_deployed_version(connection, name_launch_plan(app, schedule), version)
        if now is not None or not known:
            _set_schedule_state(
                connection,
                _make_scheduled_plan_identifier(connection, name_launch_plan(app, schedule), version),
                LaunchPlanState.ACTIVE,
            )
            tell(f"schedule {name} runs version {version}")
        else:
            tell(f"schedule {name} was deactivated and stays inactive: mlapp schedule activate {name}")
    for name, plan in running.items():
        if name not in declared:
            _set_schedule_state(connection, plan.id, LaunchPlanState.INACTIVE)
            tell(f"schedule {name} is no longer declared and was deactivated")


def list_schedule_states(connection: Connection, source: Source) -> list[ScheduleState]:
    """The declared schedules, and active ones that are no longer declared. A schedule without a version was never
    deployed.
    """
    app, declared = source.app.name, list_schedules(source)
    running, found = list_active_schedules(connection, app), []
    for name, schedule in declared.items():
        versions = (
            [running[name]]
            if name in running
            else _select_last_deployed_schedule(connection, list_launch_plan_names(app, name))
        )
        found.append(_make_schedule_state(schedule, versions[0].id.version if versions else "", name in running))
    for name, plan in running.items():
        if name not in declared:
            found.append(ScheduleState(name, "no longer declared", True, plan.id.version))
    return found


def list_deployed_schedules(connection: Connection, app: str) -> list[ScheduleState]:
    """The schedules in Flyte, active or not. The app's code is not needed."""
    running = list_active_schedules(connection, app)
    found = [_read_schedule_state(name, plan, is_active=True) for name, plan in running.items()]
    for name in _list_deployed_names(connection, app):
        if name not in running:
            versions = _select_last_deployed_schedule(connection, list_launch_plan_names(app, name))
            found += [_read_schedule_state(name, plan, is_active=False) for plan in versions]
    return sorted(found, key=lambda state: state.name)


def switch_schedule(connection: Connection, app: str, name: str, is_active: bool) -> ScheduleState | None:
    """Switch a schedule on, in the version that was deployed last, or off; None if Flyte has no such schedule."""
    running = list_active_schedules(connection, app)
    versions = (
        [running[name]]
        if name in running and not is_active
        else _select_last_deployed_schedule(connection, list_launch_plan_names(app, name))
    )
    if not versions:
        return None
    if is_active or name in running:
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
    place = NamedEntityIdentifier(settings.project, settings.domain, plan)
    found: list[tuple[str, datetime.datetime]] = []
    token = ""
    while True:
        request = common_pb2.ResourceListRequest(
            id=place.to_flyte_idl(), limit=100, token=token, sort_by=NEWEST.to_flyte_idl()
        )
        # flytekit's LaunchPlan drops the time; its raw client returns the whole message.
        page = connection.call_client(RawSynchronousFlyteClient.list_launch_plans_paginated, connection.client, request)
        found += [
            (str(plan.id.version), plan.closure.created_at.ToDatetime(tzinfo=datetime.timezone.utc))
            for plan in page.launch_plans
        ]
        token = page.token
        if not token:
            return found[::-1]


def move_schedules(connection: Connection, app: str, version: str, tell: Reporter) -> list[str]:
    """Point the active schedules to another version, if it includes them; returns the names of those."""
    moved = []
    for name, plan in list_active_schedules(connection, app).items():
        place = _make_scheduled_plan_identifier(connection, plan.id.name, version)
        try:
            _set_schedule_state(connection, place, LaunchPlanState.ACTIVE)
        except FlyteError as error:
            if "NOT_FOUND" not in error.what:
                raise
            tell(f"version {version} has no schedule {name}; it is unchanged")
        else:
            moved.append(name)
    return moved


def stop_schedules(connection: Connection, app: str) -> list[str]:
    """Switch all schedules off; returns the names of those that were on."""
    running = list_active_schedules(connection, app)
    for plan in running.values():
        _set_schedule_state(connection, plan.id, LaunchPlanState.INACTIVE)
    return sorted(running)


def _make_schedule_state(schedule: Schedule, version: str, is_active: bool) -> ScheduleState:
    return ScheduleState(schedule.name, schedule.description, is_active, version, schedule.promote_if or "")


def _read_schedule_state(name: str, plan: Any, *, is_active: bool) -> ScheduleState:
    clock = plan.spec.entity_metadata.schedule
    if clock.rate is not None:
        unit = FlyteSchedule.FixedRateUnit.enum_to_string(clock.rate.unit).lower()
        when = f"every {clock.rate.value} {unit}{'' if clock.rate.value == 1 else 's'}"
    else:
        when = clock.cron_schedule.schedule if clock.cron_schedule is not None else clock.cron_expression
    given = plan.spec.fixed_inputs.literals.get(promotion.INPUT)
    return ScheduleState(name, when or "", is_active, plan.id.version, given.scalar.primitive.value if given else "")


def _list_deployed_names(connection: Connection, app: str) -> list[str]:
    """The names of all schedules that were ever deployed."""
    settings = connection.settings
    found: list[str] = []
    token = ""
    while True:
        page, token = connection.call_client(
            connection.client.list_launch_plan_ids_paginated, settings.project, settings.domain, token=token
        )
        found += [name for place in page if (name := find_launch_plan_schedule(app, place.name))]
        if not token:
            return list(dict.fromkeys(found))


def _make_scheduled_plan_identifier(connection: Connection, plan: str, version: str) -> Identifier:
    settings = connection.settings
    return Identifier(ResourceType.LAUNCH_PLAN, settings.project, settings.domain, plan, version)


def _select_last_deployed_schedule(connection: Connection, plans: list[str]) -> list[Any]:
    """A list with the plan that was deployed last, or with the newest if that is not recorded; empty without plans."""
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
        return _list_schedule_plan_versions(connection, plan, limit=1)
    return []


def _list_schedule_plan_versions(connection: Connection, plan: str, *, limit: int) -> list[Any]:
    settings = connection.settings
    place = NamedEntityIdentifier(settings.project, settings.domain, plan)
    found, _ = connection.call_client(connection.client.list_launch_plans_paginated, place, limit=limit, sort_by=NEWEST)
    return list(found)


def _set_schedule_state(connection: Connection, place: Identifier, state: int) -> None:
    connection.call_client(connection.client.update_launch_plan, place, state)


def record_deployed_version(connection: Connection, plan: str, version: str) -> None:
    """Record that `version` of the launch plan `plan` was deployed last."""
    metadata = NamedEntityMetadata(f"{MARK}{version}", NamedEntityState.ACTIVE)
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
    return description.removeprefix(MARK) if description.startswith(MARK) else ""


def _identify_deployed_plan(connection: Connection, plan: str) -> NamedEntityIdentifier:
    return NamedEntityIdentifier(connection.settings.project, connection.settings.domain, plan)
