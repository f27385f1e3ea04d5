"""Records of runs that never ran."""

from __future__ import annotations

from flyteidl.admin import execution_pb2

from mlapp.flyte.interface import Registration
from tests.integration.flyte.flyteadmin import Flyteadmin
from tests.integration.flyte.propeller import Execution
from tests.integration.flyte.validation import DOMAIN, PROJECT


def end_run(admin: Flyteadmin, registered: Registration, name: str, phase: int) -> Execution:
    """A run of `flowers.train` in a phase."""
    plan = admin.plans["flowers.train", registered.version]
    message = execution_pb2.Execution(spec=execution_pb2.ExecutionSpec(launch_plan=plan.id))
    message.id.project, message.id.domain, message.id.name = PROJECT, DOMAIN, name
    message.closure.phase = phase
    admin.executions[name] = Execution(message, {})
    return admin.executions[name]
