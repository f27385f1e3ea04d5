"""What flyteadmin 1.16.8 refuses, with its messages (flyteadmin/pkg/manager/impl/validation)."""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any

import grpc
from flyteidl.core import types_pb2

from tests.integration.flyte.nodes import parse_quantity, read_quantities

PROJECT, DOMAIN = "flytesnacks", "development"
EXECUTION_NAME = re.compile(r"[a-z][a-z\-0-9]*")
LIMITS = {"cpu": "2", "memory": "1Gi", "nvidia.com/gpu": "1"}
"""The platform's limits for one task, as flyteadmin has them without configuration (`task_resources.limits`)."""


def check_place(place: Any, context: Any) -> None:
    if place.project == PROJECT and place.domain != DOMAIN:
        details = f"domain [{place.domain}] is unrecognized by system"
        context.abort(grpc.StatusCode.INVALID_ARGUMENT, details)
    if (place.project, place.domain) != (PROJECT, DOMAIN):
        context.abort(
            grpc.StatusCode.INVALID_ARGUMENT,
            f"failed to validate that project [{place.project}] and domain [{place.domain}] are registered, "
            f"err: [project [{place.project}] not found]",
        )


def check_resources(container: Any, limits: Mapping[str, str], context: Any) -> None:
    words = {"cpu": "CPU", "memory": "MEMORY", "nvidia.com/gpu": "GPU", "ephemeral-storage": "EPHEMERAL_STORAGE"}
    asked = (("limit", container.resources.limits), ("default", container.resources.requests))
    for kind, entries in asked:
        for name, wanted in read_quantities(entries).items():
            limit = limits.get(name)
            if limit is not None and wanted > parse_quantity(limit):
                given = next(entry.value for entry in entries if read_quantities([entry]).get(name) == wanted)
                context.abort(
                    grpc.StatusCode.INVALID_ARGUMENT,
                    f"Requested {words[name]} {kind} [{given}] is greater than current limit set in the platform "
                    f"configuration [{limit}]. Please contact Flyte Admins to change these limits or consult the "
                    "configuration",
                )


def check_schedule(schedule: Any, expected: Mapping[str, Any], context: Any) -> None:
    """Nothing is left open but the time, and that is a free input of type datetime."""
    if not schedule.cron_schedule.schedule and not schedule.HasField("rate"):
        return
    time = schedule.kickoff_time_input_arg
    for name, parameter in expected.items():
        if parameter.required and name != time:
            details = (
                "Cannot create a launch plan with a schedule if there is an unbound required input. "
                f"[{name}] is required"
            )
            context.abort(grpc.StatusCode.INVALID_ARGUMENT, details)
    if time and time not in expected:
        details = (
            "Cannot create a schedule with a KickoffTimeInputArg that does not point to a free input. "
            f"[{time}] is not free or does not exist."
        )
        context.abort(grpc.StatusCode.INVALID_ARGUMENT, details)
    if time and expected[time].var.type.simple != types_pb2.DATETIME:
        details = f"KickoffTimeInputArg must reference a datetime input. [{time}] is a [{expected[time].var.type}]"
        context.abort(grpc.StatusCode.INVALID_ARGUMENT, details)
    if time and not schedule.cron_schedule.schedule:  # flyteadmin takes it, and no run is ever told its time
        context.abort(grpc.StatusCode.INVALID_ARGUMENT, "the scheduler tells the time to cron schedules alone")


def check_inputs(plan: Any, given: Mapping[str, Any], context: Any) -> None:
    expected = plan.closure.expected_inputs.parameters
    for name in given:
        if name not in expected:
            context.abort(grpc.StatusCode.INVALID_ARGUMENT, f"invalid input {name}")
    for name, parameter in expected.items():
        if parameter.required and name not in given:
            context.abort(grpc.StatusCode.INVALID_ARGUMENT, f"expected_inputs {name} missing")


def check_name(name: str, context: Any) -> None:
    if name and not (EXECUTION_NAME.fullmatch(name.lower()) and len(name) <= 63):
        details = f"invalid name format: {name}, does not match regex '^[a-z][a-z\\-0-9]*$'"
        context.abort(grpc.StatusCode.INVALID_ARGUMENT, details)
