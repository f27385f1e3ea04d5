"""The app's schedules as launch plans of `<app>.train` and `<app>.predict`, and their state in Flyte."""

from __future__ import annotations

import datetime
from collections.abc import Callable
from typing import Any

from flyteidl.admin import common_pb2
from flytekit.clients.raw import RawSynchronousFlyteClient
from flytekit.core.launch_plan import LaunchPlan
from flytekit.core.schedule import CronSchedule, FixedRate
from flytekit.models.admin.common import Sort
from flytekit.models.common import NamedEntityIdentifier
from flytekit.models.core.identifier import Identifier, ResourceType
from flytekit.models.launch_plan import LaunchPlanState
from flytekit.models.schedule import Schedule as FlyteSchedule

from mlapp.errors import ConfigError, DeclarationError
from mlapp.flyte import promotion
from mlapp.flyte.app_source import Source
from mlapp.flyte.connection import Connection
from mlapp.flyte.deployed_version import read_deployed_version, record_deployed_version
from mlapp.flyte.errors import FlyteError
from mlapp.flyte.inputs import Input
from mlapp.flyte.interface import ScheduleState
from mlapp.flyte.task_graph import VERSION, get_task_graph
from mlapp.flyte.workflow import monitor_workflow, predict_workflow, train_workflow
from mlapp.monitoring.run_schedule import make_cron
from mlapp.pipeline import bind_parameters
from mlapp.pipeline.parameters import select_stage_values
from mlapp.pipeline.schedule import Schedule
from mlapp.reporting import Reporter

WORKFLOWS = ("train", "predict", "monitor")
"""The workflows that schedules can run."""
MONITOR = "monitor"
"""The name of the schedule that runs `mlapp monitor run`."""
NEWEST = Sort("created_at", Sort.Direction.DESCENDING)


class MonitorSchedule(Schedule):
    """Runs `mlapp monitor run` instead of training or predicting."""

    @property
    def workflow(self) -> str:
        return "monitor"


def list_schedules(source: Source) -> dict[str, Schedule]:
    """The schedules of the app, and the schedule of monitoring with `monitor: {run: flyte}`.

    Raises:
        DeclarationError: one of the app's has the name of monitoring's. ConfigError: Flyte cannot read what a server
            records.
    """
    declared: dict[str, Schedule] = dict(source.app.schedules)
    if source.settings.monitor.run != "flyte":
        return declared
    cron = make_cron(source.settings)
    if cron is None:
        raise ConfigError(
            "mlapp.yaml: monitor.run is flyte, and Flyte cannot read what the server records: it is in a local folder.",
            "Set monitor.url to a bucket, or leave monitor.run out.",
        )
    if MONITOR in declared:
        raise DeclarationError(
            f"Schedule '{MONITOR}' has the name of the one that runs `mlapp monitor run`.",
            "Give it another name, or leave monitor.run out of mlapp.yaml.",
        )
    return {**declared, MONITOR: MonitorSchedule(MONITOR, cron=cron)}


def make_launch_plans(source: Source) -> list[LaunchPlan]:
    """One launch plan per schedule, `<app>.train.<schedule>` or `<app>.predict.<schedule>`; each is created only once.

    Raises:
        UsageError: a parameter is unknown or of the wrong type.
        DeclarationError: the parameter for the scheduled time is not a datetime; or a schedule predicts, and the
            cluster cannot reach the store.
    """
    return [_make_launch_plan(source, schedule) for schedule in list_schedules(source).values()]


def list_active_plans(connection: Connection, app: str) -> dict[str, Any]:
    """The active launch plans of the app's schedules, by schedule."""
    settings = connection.settings
    found: dict[str, Any] = {}
    token = ""
    while True:
        page, token = connection.call_client(
            connection.client.list_active_launch_plans_paginated, settings.project, settings.domain, token=token
        )
        found.update({name: plan for plan in page if (name := schedule_name(app, plan.id.name))})
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
    running = list_active_plans(connection, app)
    for name, schedule in declared.items():
        now = running.get(name)
        if now is not None and now.id.name != plan_name(app, schedule):
            _set_plan_state(connection, now.id, LaunchPlanState.INACTIVE)  # it changed from training to predicting
            now = None
        if now is not None and now.id.version == version:
            continue
        known = [now] if now is not None else _select_last_deployed(connection, [plan_name(app, schedule)])
        if not known or known[0].id.version != version:
            create(name)
            record_deployed_version(connection, plan_name(app, schedule), version)
        if now is not None or not known:
            _set_plan_state(
                connection, _plan_identifier(connection, plan_name(app, schedule), version), LaunchPlanState.ACTIVE
            )
            tell(f"schedule {name} runs version {version}")
        else:
            tell(f"schedule {name} was switched off, and stays off: mlapp schedule activate {name}")
    for name, plan in running.items():
        if name not in declared:
            _set_plan_state(connection, plan.id, LaunchPlanState.INACTIVE)
            tell(f"schedule {name} is no longer declared, and switched off")


def list_schedule_states(connection: Connection, source: Source) -> list[ScheduleState]:
    """The declared schedules, and active ones that are no longer declared. A schedule without a version was never
    deployed.
    """
    app, declared = source.app.name, list_schedules(source)
    running, found = list_active_plans(connection, app), []
    for name, schedule in declared.items():
        versions = [running[name]] if name in running else _select_last_deployed(connection, plan_names(app, name))
        found.append(_make_schedule_state(schedule, versions[0].id.version if versions else "", name in running))
    for name, plan in running.items():
        if name not in declared:
            found.append(ScheduleState(name, "no longer declared", True, plan.id.version))
    return found


def list_deployed(connection: Connection, app: str) -> list[ScheduleState]:
    """The schedules in Flyte, active or not. The app's code is not needed."""
    running = list_active_plans(connection, app)
    found = [_read_schedule_state(name, plan, is_active=True) for name, plan in running.items()]
    for name in _list_deployed_names(connection, app):
        if name not in running:
            versions = _select_last_deployed(connection, plan_names(app, name))
            found += [_read_schedule_state(name, plan, is_active=False) for plan in versions]
    return sorted(found, key=lambda state: state.name)


def switch_schedule(connection: Connection, app: str, name: str, is_active: bool) -> ScheduleState | None:
    """Switch a schedule on, in the version that was deployed last, or off; None if Flyte has no such schedule."""
    running = list_active_plans(connection, app)
    versions = (
        [running[name]]
        if name in running and not is_active
        else _select_last_deployed(connection, plan_names(app, name))
    )
    if not versions:
        return None
    if is_active or name in running:
        _set_plan_state(connection, versions[0].id, LaunchPlanState.ACTIVE if is_active else LaunchPlanState.INACTIVE)
    return _read_schedule_state(name, versions[0], is_active=is_active)


def find_schedule(connection: Connection, app: str, name: str) -> ScheduleState | None:
    """A schedule in Flyte, in the version that was deployed last."""
    versions = _select_last_deployed(connection, plan_names(app, name))
    return _read_schedule_state(name, versions[0], is_active=False) if versions else None


def list_plan_versions(connection: Connection, plan: str) -> list[tuple[str, datetime.datetime]]:
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
    for name, plan in list_active_plans(connection, app).items():
        place = _plan_identifier(connection, plan.id.name, version)
        try:
            _set_plan_state(connection, place, LaunchPlanState.ACTIVE)
        except FlyteError as error:
            if "NOT_FOUND" not in error.what:
                raise
            tell(f"version {version} has no schedule {name}; it stays as it is")
        else:
            moved.append(name)
    return moved


def stop_schedules(connection: Connection, app: str) -> list[str]:
    """Switch all schedules off; returns the names of those that were on."""
    running = list_active_plans(connection, app)
    for plan in running.values():
        _set_plan_state(connection, plan.id, LaunchPlanState.INACTIVE)
    return sorted(running)


def _make_launch_plan(source: Source, schedule: Schedule) -> LaunchPlan:
    made = get_task_graph(source).entities
    if schedule.name not in made:
        makers = {"train": train_workflow, "predict": predict_workflow, "monitor": monitor_workflow}
        workflow = makers[schedule.workflow](source)
        given = _encode_schedule_values(source, schedule)
        made[schedule.name] = LaunchPlan.create(
            f"{workflow.name}.{schedule.name}",
            workflow,
            default_inputs={
                name: value
                for name, value in workflow.python_interface.default_inputs_as_kwargs.items()
                if name not in given and name != schedule.time
            },
            fixed_inputs=given,
            schedule=_make_clock(source, schedule),
        )
    return made[schedule.name]


def _encode_schedule_values(source: Source, schedule: Schedule) -> dict[str, Any]:
    """The schedule's parameter values, encoded for Flyte."""
    if isinstance(schedule, MonitorSchedule):
        return {}
    own = _list_inputs(source, schedule)
    given = dict(schedule.parameters)
    if schedule.time is not None:
        given[schedule.time] = datetime.datetime.now(datetime.timezone.utc)
    bound = bind_parameters([input.parameter for input in own], given)
    values = {
        input.name: input.encode_value(bound[input.parameter.stage][input.parameter.name])
        for input in own
        if select_stage_values(input.parameter.stage, [input.parameter], schedule.parameters)
    }
    if not schedule.predict:
        return {**values, promotion.INPUT: schedule.promote_if or ""}
    url = source.settings.store.url
    if not promotion.is_shared_store(url):
        raise DeclarationError(
            f"Schedule '{schedule.name}' predicts on the cluster, which cannot read the store {url}.",
            "Keep models in an object store: `store: s3://bucket/models` in mlapp.yaml.",
        )
    return {**values, VERSION: str(schedule.model)}


def _list_inputs(source: Source, schedule: Schedule) -> list[Input]:
    plan = get_task_graph(source)
    return plan.list_task_inputs("batch") if schedule.predict else plan.inputs


def _make_clock(source: Source, schedule: Schedule) -> Any:
    if schedule.time is None:
        return FixedRate(schedule.every) if schedule.every is not None else CronSchedule(schedule=schedule.cron)
    input = next(
        (input for input in _list_inputs(source, schedule) if schedule.time in (input.name, input.parameter.name)), None
    )
    if input is None or input.kind is not datetime.datetime:
        raise DeclarationError(
            f"Schedule '{schedule.name}': time='{schedule.time}' is not a parameter of type datetime.",
            f"Annotate it in a stage: {schedule.time}: datetime.",
        )
    return CronSchedule(schedule=schedule.cron or _convert_rate_to_cron(schedule), kickoff_time_input_arg=input.name)


def _convert_rate_to_cron(schedule: Schedule) -> str:
    """A fixed rate as a cron expression: Flyte's scheduler passes the scheduled time only to cron schedules.

    Raises:
        DeclarationError: no cron expression matches the rate, such as every seven hours.
    """
    assert schedule.every is not None
    minutes = int(schedule.every.total_seconds()) // 60
    hours, days = minutes // 60, minutes // (24 * 60)
    if 60 % minutes == 0:
        return f"*/{minutes} * * * *" if minutes < 60 else "0 * * * *"
    if minutes % 60 == 0 and 24 % hours == 0:
        return f"0 */{hours} * * *" if hours < 24 else "0 0 * * *"
    if minutes % (24 * 60) == 0 and days == 7:
        return "0 0 * * 0"
    raise DeclarationError(
        f"Schedule '{schedule.name}': runs every {schedule.every} are not told their time by Flyte.",
        "Give a rate that divides an hour or a day, or cron= in its place, or leave time= out.",
    )


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
        found += [name for place in page if (name := schedule_name(app, place.name))]
        if not token:
            return list(dict.fromkeys(found))


def plan_name(app: str, schedule: Schedule) -> str:
    """The launch plan of a schedule."""
    return f"{app}.{schedule.workflow}.{schedule.name}"


def plan_names(app: str, name: str) -> list[str]:
    """The possible launch plans of a schedule of that name."""
    return [f"{app}.{workflow}.{name}" for workflow in WORKFLOWS]


def schedule_name(app: str, plan: str) -> str:
    """The schedule of a launch plan; empty if it belongs to none."""
    return next((plan.removeprefix(prefix) for prefix in plan_names(app, "") if plan.startswith(prefix)), "")


def _plan_identifier(connection: Connection, plan: str, version: str) -> Identifier:
    settings = connection.settings
    return Identifier(ResourceType.LAUNCH_PLAN, settings.project, settings.domain, plan, version)


def _select_last_deployed(connection: Connection, plans: list[str]) -> list[Any]:
    """A list with the plan that was deployed last, or with the newest if that is not recorded; empty without plans."""
    for plan in plans:
        version = read_deployed_version(connection, plan)
        if version is None:
            continue
        if version:
            try:
                return [
                    connection.call_client(
                        connection.client.get_launch_plan, _plan_identifier(connection, plan, version)
                    )
                ]
            except FlyteError as error:
                if "NOT_FOUND" not in error.what:
                    raise
        return _list_plan_versions(connection, plan, limit=1)
    return []


def _list_plan_versions(connection: Connection, plan: str, *, limit: int) -> list[Any]:
    settings = connection.settings
    place = NamedEntityIdentifier(settings.project, settings.domain, plan)
    found, _ = connection.call_client(connection.client.list_launch_plans_paginated, place, limit=limit, sort_by=NEWEST)
    return list(found)


def _set_plan_state(connection: Connection, place: Identifier, state: int) -> None:
    connection.call_client(connection.client.update_launch_plan, place, state)
