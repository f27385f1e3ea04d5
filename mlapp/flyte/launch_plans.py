"""The schedules that an app declares, as launch plans of Flyte."""

from __future__ import annotations

import datetime
from typing import Any

from flytekit.core.launch_plan import LaunchPlan
from flytekit.core.schedule import CronSchedule, FixedRate

from mlapp.errors import ConfigError, DeclarationError
from mlapp.flyte import promotion
from mlapp.flyte.app_source import Source
from mlapp.flyte.inputs import Input
from mlapp.flyte.scheduled_tasks import VERSION_INPUT
from mlapp.flyte.task_graph import get_task_graph
from mlapp.flyte.workflow import monitor_workflow, predict_workflow, train_workflow
from mlapp.monitoring.run_schedule import make_cron
from mlapp.pipeline import bind_pipeline_parameters
from mlapp.pipeline.parameters import select_pipeline_parameters
from mlapp.pipeline.schedule import Schedule

WORKFLOWS = ("train", "predict", "monitor")
"""The workflows that schedules can run."""
MONITOR = "monitor"
"""The name of the schedule that runs `mlapp monitor run`."""


class MonitorSchedule(Schedule):
    """Runs `mlapp monitor run` instead of training or predicting."""

    @property
    def workflow(self) -> str:
        return "monitor"


def list_schedules(source: Source) -> dict[str, Schedule]:
    """The schedules of the app, and the schedule of monitoring with `monitor: {run: flyte}`.

    Raises:
        DeclarationError: a schedule of the app has the name of monitoring's. ConfigError: Flyte cannot read the data
            that a server records.
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
            f"Schedule '{MONITOR}' has the name of mlapp's own schedule for `mlapp monitor run`.",
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


def _make_launch_plan(source: Source, schedule: Schedule) -> LaunchPlan:
    entities = get_task_graph(source).entities
    if schedule.name not in entities:
        makers = {"train": train_workflow, "predict": predict_workflow, "monitor": monitor_workflow}
        workflow = makers[schedule.workflow](source)
        fixed_values = _encode_schedule_values(source, schedule)
        entities[schedule.name] = LaunchPlan.create(
            f"{workflow.name}.{schedule.name}",
            workflow,
            default_inputs={
                name: value
                for name, value in workflow.python_interface.default_inputs_as_kwargs.items()
                if name not in fixed_values and name != schedule.time
            },
            fixed_inputs=fixed_values,
            schedule=_make_launch_plan_clock(source, schedule),
        )
    return entities[schedule.name]


def _encode_schedule_values(source: Source, schedule: Schedule) -> dict[str, Any]:
    """The schedule's parameter values, encoded for Flyte."""
    if isinstance(schedule, MonitorSchedule):
        return {}
    schedule_inputs = _list_launch_plan_inputs(source, schedule)
    parameters = dict(schedule.parameters)
    if schedule.time is not None:
        parameters[schedule.time] = datetime.datetime.now(datetime.timezone.utc)
    values_by_stage = bind_pipeline_parameters([input.parameter for input in schedule_inputs], parameters)
    values = {
        input.name: input.encode_value(values_by_stage[input.parameter.stage][input.parameter.name])
        for input in schedule_inputs
        if select_pipeline_parameters(input.parameter.stage, [input.parameter], schedule.parameters)
    }
    if not schedule.predict:
        return {**values, promotion.INPUT_NAME: schedule.promote_if or ""}
    url = source.settings.store.url
    if not promotion.can_promote_in_store(url):
        raise DeclarationError(
            f"Schedule '{schedule.name}' predicts on the cluster, which cannot read the store {url}.",
            "Keep models in an object store: `store: s3://bucket/models` in mlapp.yaml.",
        )
    return {**values, VERSION_INPUT: str(schedule.model)}


def _list_launch_plan_inputs(source: Source, schedule: Schedule) -> list[Input]:
    graph = get_task_graph(source)
    return graph.list_task_inputs("batch") if schedule.predict else graph.inputs


def _make_launch_plan_clock(source: Source, schedule: Schedule) -> Any:
    if schedule.time is None:
        return FixedRate(schedule.every) if schedule.every is not None else CronSchedule(schedule=schedule.cron)
    input = next(
        (
            input
            for input in _list_launch_plan_inputs(source, schedule)
            if schedule.time in (input.name, input.parameter.name)
        ),
        None,
    )
    if input is None or input.kind is not datetime.datetime:
        raise DeclarationError(
            f"Schedule '{schedule.name}': time='{schedule.time}' is not a parameter of type datetime.",
            f"Annotate it in a stage: {schedule.time}: datetime.",
        )
    return CronSchedule(
        schedule=schedule.cron or _convert_launch_rate_to_cron(schedule), kickoff_time_input_arg=input.name
    )


def _convert_launch_rate_to_cron(schedule: Schedule) -> str:
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
        f"Schedule '{schedule.name}': runs every {schedule.every} get no time from Flyte.",
        "Give a rate that divides an hour or a day, use cron= instead, or leave out time=.",
    )


def name_launch_plan(app: str, schedule: Schedule) -> str:
    """The launch plan of a schedule."""
    return f"{app}.{schedule.workflow}.{schedule.name}"


def list_launch_plan_names(app: str, name: str) -> list[str]:
    """The possible launch plans of a schedule of that name."""
    return [f"{app}.{workflow}.{name}" for workflow in WORKFLOWS]


def find_launch_plan_schedule(app: str, plan: str) -> str:
    """The schedule of a launch plan; empty if it belongs to none."""
    return next(
        (plan.removeprefix(prefix) for prefix in list_launch_plan_names(app, "") if plan.startswith(prefix)), ""
    )
