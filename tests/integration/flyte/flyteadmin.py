"""A small Flyte: the part of flyteadmin's and the data proxy's services that is used, over real gRPC and HTTP.

It stores what is registered, and runs a workflow by starting each task's registered container arguments as a process
of its own, in an empty folder: what such a process has not got from the registered archive, it has not got.
"""

from __future__ import annotations

import base64
import hashlib
import http.server
import math
import os
import subprocess
import sys
import threading
import time
import urllib.parse
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent import futures
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import grpc
from flyteidl.admin import (
    common_pb2,
    execution_pb2,
    launch_plan_pb2,
    node_execution_pb2,
    project_pb2,
    task_execution_pb2,
    version_pb2,
)
from flyteidl.admin import task_pb2 as admin_task_pb2
from flyteidl.admin import workflow_pb2 as admin_workflow_pb2
from flyteidl.core import compiler_pb2, errors_pb2, identifier_pb2, literals_pb2, types_pb2
from flyteidl.core import execution_pb2 as core_execution_pb2
from flyteidl.service import admin_pb2_grpc, dataproxy_pb2, dataproxy_pb2_grpc

from tests.integration.flyte.preloaded import Process

WorkflowPhase = core_execution_pb2.WorkflowExecution
NodePhase = core_execution_pb2.NodeExecution
Literals = dict[str, literals_pb2.Literal]
PROJECT, DOMAIN = "flytesnacks", "development"


class TaskError(Exception):
    """A task failed."""

    def __init__(self, message: str, recoverable: bool = False) -> None:
        super().__init__(message)
        self.recoverable = recoverable


@dataclass
class Call:
    method: str
    time: float


@dataclass
class Execution:
    """One run: its message as flyteadmin answers it, and its nodes."""

    message: execution_pb2.Execution
    inputs: Literals
    nodes: dict[str, node_execution_pb2.NodeExecution] = field(default_factory=dict)
    outputs: Literals = field(default_factory=dict)
    attempts: dict[str, int] = field(default_factory=dict)
    tasks: dict[str, list[task_execution_pb2.TaskExecution]] = field(default_factory=dict)
    processes: list[Process] = field(default_factory=list)
    aborted: bool = False
    results: dict[str, Literals] = field(default_factory=dict)
    recovered: dict[str, Literals] = field(default_factory=dict)


def new_process(command: Sequence[str], cwd: Path, environment: Mapping[str, str], log: Path) -> Process:
    """A container, as far as a process with a folder and variables of its own is one."""
    with log.open("wb") as output:
        return subprocess.Popen(command, cwd=cwd, env=dict(environment), stdout=output, stderr=subprocess.STDOUT)


class Flyteadmin(admin_pb2_grpc.AdminServiceServicer, dataproxy_pb2_grpc.DataProxyServiceServicer):
    """`calls` are all that were answered, in order; `refusals` makes a method fail: name → (code, details)."""

    def __init__(self, root: Path) -> None:
        self.root = root
        self.calls: list[Call] = []
        self.refusals: dict[str, tuple[grpc.StatusCode, str]] = {}
        self.tasks: dict[tuple[str, str], admin_task_pb2.Task] = {}
        self.workflows: dict[tuple[str, str], admin_workflow_pb2.WorkflowCreateRequest] = {}
        self.plans: dict[tuple[str, str], launch_plan_pb2.LaunchPlan] = {}
        self.executions: dict[str, Execution] = {}
        self.cache: dict[str, Literals] = {}
        self.descriptions: dict[str, str] = {}
        self.pending: dict[str, str] = {}
        """Node → the cluster's reason for which its pod does not start; it waits until the entry is removed."""
        self.environment: dict[str, str] = {}
        self.start: Callable[[Sequence[str], Path, Mapping[str, str], Path], Process] = new_process
        self.address = self.web = ""

    def methods(self, start: int = 0) -> list[str]:
        return [call.method for call in self.calls[start:]]

    @contextmanager
    def refusing(self, method: str, code: grpc.StatusCode, details: str = "") -> Iterator[None]:
        self.refusals[method] = (code, details)
        try:
            yield
        finally:
            del self.refusals[method]

    @contextmanager
    def serving(self) -> Iterator[Flyteadmin]:
        store = self.root / "store"
        store.mkdir(parents=True)
        web = http.server.ThreadingHTTPServer(("127.0.0.1", 0), _object_store(store))
        self.web = f"http://127.0.0.1:{web.server_port}"
        threading.Thread(target=web.serve_forever, daemon=True).start()
        server = grpc.server(futures.ThreadPoolExecutor(8), interceptors=[_Recorder(self)])
        admin_pb2_grpc.add_AdminServiceServicer_to_server(self, server)
        dataproxy_pb2_grpc.add_DataProxyServiceServicer_to_server(self, server)
        self.address = f"127.0.0.1:{server.add_insecure_port('127.0.0.1:0')}"
        server.start()
        try:
            yield self
        finally:
            server.stop(0)
            web.shutdown()
            web.server_close()

    # Registering

    def CreateTask(self, request: Any, context: Any) -> Any:
        self._check_place(request.id, context)
        closure = admin_task_pb2.TaskClosure(compiled_task=compiler_pb2.CompiledTask(template=request.spec.template))
        self._create(self.tasks, request.id, admin_task_pb2.Task(id=request.id, closure=closure), context)
        return admin_task_pb2.TaskCreateResponse()

    def CreateWorkflow(self, request: Any, context: Any) -> Any:
        self._check_place(request.id, context)
        for node in request.spec.template.nodes:
            if not node.HasField("workflow_node"):
                self._find(self.tasks, _task(node), context)
        self._create(self.workflows, request.id, request, context)
        return admin_workflow_pb2.WorkflowCreateResponse()

    def CreateLaunchPlan(self, request: Any, context: Any) -> Any:
        self._check_place(request.id, context)
        workflow = self._find(self.workflows, request.spec.workflow_id, context)
        self._check_schedule(request.spec, workflow.spec.template.interface.inputs.variables, context)
        plan = launch_plan_pb2.LaunchPlan(id=request.id, spec=request.spec)
        plan.closure.state = launch_plan_pb2.INACTIVE
        plan.closure.created_at.GetCurrentTime()
        self._create(self.plans, request.id, plan, context)
        return launch_plan_pb2.LaunchPlanCreateResponse()

    def GetTask(self, request: Any, context: Any) -> Any:
        return self._find(self.tasks, request.id, context)

    def GetWorkflow(self, request: Any, context: Any) -> Any:
        spec = self._find(self.workflows, request.id, context).spec
        templates = (spec.template, *spec.sub_workflows)
        used = [_task(node) for template in templates for node in template.nodes]
        tasks = [self.tasks[place.name, place.version].closure.compiled_task for place in used if place.name]
        compiled = compiler_pb2.CompiledWorkflowClosure(
            primary=compiler_pb2.CompiledWorkflow(template=spec.template),
            sub_workflows=[compiler_pb2.CompiledWorkflow(template=template) for template in spec.sub_workflows],
            tasks=tasks,
        )
        closure = admin_workflow_pb2.WorkflowClosure(compiled_workflow=compiled)
        return admin_workflow_pb2.Workflow(id=request.id, closure=closure)

    def GetLaunchPlan(self, request: Any, context: Any) -> Any:
        return self._find(self.plans, request.id, context)

    def ListLaunchPlans(self, request: Any, context: Any) -> Any:
        found = [plan for (name, _), plan in self.plans.items() if name == request.id.name]
        return launch_plan_pb2.LaunchPlanList(launch_plans=found[::-1][: request.limit])

    def ListLaunchPlanIds(self, request: Any, context: Any) -> Any:
        names = dict.fromkeys(name for name, _ in self.plans)
        places = [common_pb2.NamedEntityIdentifier(project=PROJECT, domain=DOMAIN, name=name) for name in names]
        return common_pb2.NamedEntityIdentifierList(entities=places)

    def ListActiveLaunchPlans(self, request: Any, context: Any) -> Any:
        found = [plan for plan in self.plans.values() if plan.closure.state == launch_plan_pb2.ACTIVE]
        return launch_plan_pb2.LaunchPlanList(launch_plans=found)

    def UpdateLaunchPlan(self, request: Any, context: Any) -> Any:
        plan = self._find(self.plans, request.id, context)
        if request.state == launch_plan_pb2.ACTIVE:
            for (name, _), other in self.plans.items():
                if name == request.id.name:
                    other.closure.state = launch_plan_pb2.INACTIVE
        plan.closure.state = request.state
        return launch_plan_pb2.LaunchPlanUpdateResponse()

    def GetNamedEntity(self, request: Any, context: Any) -> Any:
        name = request.id.name
        if name not in {plan for plan, _ in self.plans}:
            context.abort(grpc.StatusCode.NOT_FOUND, f"missing entity of type launch plan {name}")
        metadata = common_pb2.NamedEntityMetadata(description=self.descriptions.get(name, ""))
        return common_pb2.NamedEntity(resource_type=request.resource_type, id=request.id, metadata=metadata)

    def UpdateNamedEntity(self, request: Any, context: Any) -> Any:
        self.descriptions[request.id.name] = request.metadata.description
        return common_pb2.NamedEntityUpdateResponse()

    def GetVersion(self, request: Any, context: Any) -> Any:
        version = version_pb2.Version(Version="v1.16.0")
        return version_pb2.GetVersionResponse(control_plane_version=version)

    def ListProjects(self, request: Any, context: Any) -> Any:
        one = project_pb2.Project(id=PROJECT, domains=[project_pb2.Domain(id=DOMAIN)])
        return project_pb2.Projects(projects=[one] if request.filters in ("", f"eq(identifier,{PROJECT})") else [])

    # Running

    def CreateExecution(self, request: Any, context: Any) -> Any:
        plan = self._find(self.plans, request.spec.launch_plan, context)
        for name in request.inputs.literals:
            if name not in plan.spec.default_inputs.parameters:
                context.abort(grpc.StatusCode.INVALID_ARGUMENT, f"invalid input {name}")
        return execution_pb2.ExecutionCreateResponse(id=self.execute(plan, dict(request.inputs.literals), request))

    def execute(
        self, plan: Any, given: Literals, request: Any = None, recovers: Execution | None = None
    ) -> identifier_pb2.WorkflowExecutionIdentifier:
        """Start a launch plan, as a request or a schedule does."""
        inputs = {
            name: parameter.default
            for name, parameter in plan.spec.default_inputs.parameters.items()
            if parameter.HasField("default")
        }
        inputs |= {**given, **dict(plan.spec.fixed_inputs.literals)}
        name = (request.name if request is not None else "") or f"s{len(self.executions)}"
        place = identifier_pb2.WorkflowExecutionIdentifier(project=PROJECT, domain=DOMAIN, name=name)
        spec = request.spec if request is not None else execution_pb2.ExecutionSpec(launch_plan=plan.id)
        message = execution_pb2.Execution(id=place, spec=spec)
        message.closure.phase = WorkflowPhase.QUEUED
        message.closure.workflow_id.CopyFrom(plan.spec.workflow_id)
        message.closure.created_at.GetCurrentTime()
        message.closure.started_at.GetCurrentTime()
        self.executions[name] = Execution(message, inputs, recovered=dict(recovers.results) if recovers else {})
        threading.Thread(target=self._run, args=(self.executions[name],), daemon=True).start()
        return place

    def GetExecution(self, request: Any, context: Any) -> Any:
        return self._execution(request.id.name, context).message

    def ListExecutions(self, request: Any, context: Any) -> Any:
        """Of a project that does not exist, flyteadmin lists none, and refuses nothing."""
        if (request.id.project, request.id.domain) != (PROJECT, DOMAIN):
            return execution_pb2.ExecutionList()
        found = [execution.message for execution in self.executions.values()]
        kind, _, rest = request.filters.partition("(")
        key, _, values = rest.rstrip(")").partition(",")
        wanted = values.split(";") if kind == "value_in" else [values]
        names = {"launch_plan.name": "spec.launch_plan.name", "workflow.name": "closure.workflow_id.name"}
        if key:
            found = [message for message in found if _get(message, names[key]) in wanted]
        return execution_pb2.ExecutionList(executions=[_cut(message) for message in found[::-1][: request.limit]])

    def GetExecutionData(self, request: Any, context: Any) -> Any:
        execution = self._execution(request.id.name, context)
        return execution_pb2.WorkflowExecutionGetDataResponse(
            full_inputs=literals_pb2.LiteralMap(literals=execution.inputs),
            full_outputs=literals_pb2.LiteralMap(literals=execution.outputs),
        )

    def TerminateExecution(self, request: Any, context: Any) -> Any:
        execution = self._execution(request.id.name, context)
        execution.aborted = True
        execution.message.closure.abort_metadata.cause = request.cause
        for process in execution.processes:
            process.kill()
        return execution_pb2.ExecutionTerminateResponse()

    def ListNodeExecutions(self, request: Any, context: Any) -> Any:
        """Of a run that does not exist, flyteadmin lists none, and refuses nothing."""
        execution = self.executions.get(request.workflow_execution_id.name)
        if execution is None:
            return node_execution_pb2.NodeExecutionList()
        return node_execution_pb2.NodeExecutionList(node_executions=list(map(_cut, execution.nodes.values())))

    def GetNodeExecution(self, request: Any, context: Any) -> Any:
        return self._execution(request.id.execution_id.name, context).nodes[request.id.node_id]

    def ListTaskExecutions(self, request: Any, context: Any) -> Any:
        place = request.node_execution_id
        execution = self.executions.get(place.execution_id.name)
        if execution is None:
            return task_execution_pb2.TaskExecutionList()
        found = [task for name, tasks in execution.tasks.items() if _is_of(name, place.node_id) for task in tasks]
        return task_execution_pb2.TaskExecutionList(task_executions=list(map(_cut, found)))

    def GetTaskExecution(self, request: Any, context: Any) -> Any:
        place = request.id.node_execution_id
        execution = self._execution(place.execution_id.name, context)
        found = [task for tasks in execution.tasks.values() for task in tasks]
        return next(task for task in found if task.id == request.id)

    def RecoverExecution(self, request: Any, context: Any) -> Any:
        """A new run of the same inputs. What succeeded in the old one is taken over: here, by way of the cache."""
        old = self._execution(request.id.name, context)
        if old.message.closure.phase not in (WorkflowPhase.FAILED, WorkflowPhase.ABORTED):
            context.abort(grpc.StatusCode.INVALID_ARGUMENT, f"execution {request.id.name} is not terminal")
        plan = self.plans[old.message.spec.launch_plan.name, old.message.spec.launch_plan.version]
        made = execution_pb2.ExecutionCreateRequest(name=request.name, spec=old.message.spec)
        return execution_pb2.ExecutionCreateResponse(id=self.execute(plan, old.inputs, made, recovers=old))

    # The data proxy

    def CreateUploadLocation(self, request: Any, context: Any) -> Any:
        root = request.filename_root or request.content_md5.hex()
        key = f"uploads/{request.project}/{request.domain}/{root}/{request.filename}"
        place = self.root / "store" / key
        is_known = request.filename_root and request.filename and place.is_file()
        if is_known and hashlib.md5(place.read_bytes()).digest() != request.content_md5:
            details = f"file already exists at location [{place}], specify a matching hash if you wish to rewrite"
            context.abort(grpc.StatusCode.ALREADY_EXISTS, details)
        return dataproxy_pb2.CreateUploadLocationResponse(
            signed_url=f"{self.web}/{urllib.parse.quote(key)}", native_url=str(place)
        )

    def CreateDownloadLocation(self, request: Any, context: Any) -> Any:
        key = Path(request.native_url).relative_to(self.root / "store").as_posix()
        return dataproxy_pb2.CreateDownloadLocationResponse(signed_url=f"{self.web}/{urllib.parse.quote(key)}")

    # Propeller's part

    def _run(self, execution: Execution) -> None:
        closure = execution.message.closure
        closure.phase = WorkflowPhase.RUNNING
        plan = self.plans[execution.message.spec.launch_plan.name, execution.message.spec.launch_plan.version]
        spec = self.workflows[plan.spec.workflow_id.name, plan.spec.workflow_id.version].spec
        began = time.time()
        try:
            execution.outputs = self._run_workflow(execution, spec, spec.template, execution.inputs)
            phase = WorkflowPhase.SUCCEEDED
        except TaskError as error:
            phase = WorkflowPhase.ABORTED if execution.aborted else WorkflowPhase.FAILED
            if not execution.aborted:
                closure.error.message = str(error)
        closure.duration.FromMilliseconds(int((time.time() - began) * 1000))
        closure.phase = phase

    def _run_workflow(self, execution: Execution, spec: Any, template: Any, inputs: Literals, at: str = "") -> Literals:
        outputs: dict[str, Literals] = {"": inputs, "start-node": inputs}
        waiting = list(template.nodes)
        while waiting:
            node = next(node for node in waiting if _needs(node) <= outputs.keys())
            waiting.remove(node)
            given = {binding.var: _resolve(binding.binding, outputs) for binding in node.inputs}
            outputs[node.id] = self._run_node(execution, spec, node, given, f"{at}{node.id}")
        return {binding.var: _resolve(binding.binding, outputs) for binding in template.outputs}

    def _run_node(self, execution: Execution, spec: Any, node: Any, given: Literals, name: str) -> Literals:
        place = identifier_pb2.NodeExecutionIdentifier(node_id=name, execution_id=execution.message.id)
        message = execution.nodes.setdefault(name, node_execution_pb2.NodeExecution(id=place))
        closure = message.closure
        closure.created_at.GetCurrentTime()
        closure.started_at.GetCurrentTime()
        closure.phase = NodePhase.RUNNING  # also while its pod has not started
        began = time.time()
        try:
            if name in execution.recovered:
                closure.phase = NodePhase.RECOVERED
                execution.results[name] = execution.recovered[name]
                return execution.recovered[name]
            if node.HasField("workflow_node"):
                reference = node.workflow_node.sub_workflow_ref
                inner = next(found for found in spec.sub_workflows if found.id.name == reference.name)
                outputs = self._run_workflow(execution, spec, inner, given, f"{name}-")
            elif node.HasField("array_node"):
                outputs = self._run_array(execution, node.array_node, given, name, closure)
            else:
                outputs = self._run_task(execution, node.task_node.reference_id, given, name, closure)
            closure.phase = NodePhase.SUCCEEDED
            execution.results[name] = outputs
        except TaskError as error:
            closure.error.message = str(error)
            closure.phase = NodePhase.ABORTED if execution.aborted else NodePhase.FAILED
            raise
        finally:
            closure.duration.FromMilliseconds(int((time.time() - began) * 1000))
        return outputs

    def _run_array(self, execution: Execution, array: Any, given: Literals, name: str, closure: Any) -> Literals:
        """A map task: the same inputs for each of its runs, and its index in the environment."""
        size = next(len(given[key].collection.literals) for key in given if key not in array.bound_inputs)
        place = array.node.task_node.reference_id

        def run(at: int) -> Literals | TaskError:
            try:
                return self._run_task(execution, place, given, f"{name}/{at}", closure, at)
            except TaskError as error:
                return error

        with futures.ThreadPoolExecutor(execution.message.spec.max_parallelism or size) as pool:
            results = list(pool.map(run, range(size)))
        errors = [result for result in results if isinstance(result, TaskError)]
        if size - len(errors) < math.ceil(size * (array.min_success_ratio or 1)):
            raise errors[0]
        interface = self.tasks[place.name, place.version].closure.compiled_task.template.interface
        nothing = literals_pb2.Literal(scalar=literals_pb2.Scalar(none_type=literals_pb2.Void()))
        return {
            output: literals_pb2.Literal(
                collection=literals_pb2.LiteralCollection(
                    literals=[nothing if isinstance(result, TaskError) else result[output] for result in results]
                )
            )
            for output in interface.outputs.variables
        }

    def _run_task(
        self, execution: Execution, place: Any, given: Literals, name: str, closure: Any, index: int | None = None
    ) -> Literals:
        template = self.tasks[place.name, place.version].closure.compiled_task.template
        key = _cache_key(template, given)
        if template.metadata.discoverable and key in self.cache:
            closure.task_node_metadata.cache_status = 2  # CACHE_HIT
            return self.cache[key]
        for attempt in range(template.metadata.retries.retries + 1):
            execution.attempts[name] = attempt + 1
            task = self._task_execution(execution, place, name, attempt)
            self._wait_for_pod(execution, task, name)
            try:
                outputs = self._run_container(execution, template.container, given, f"{name}/{attempt}", index)
                task.closure.phase = core_execution_pb2.TaskExecution.SUCCEEDED
                break
            except TaskError as error:
                task.closure.phase = core_execution_pb2.TaskExecution.FAILED
                task.closure.error.message = str(error)
                if not error.recoverable or attempt == template.metadata.retries.retries:
                    raise
        if template.metadata.discoverable:
            self.cache[key] = outputs
        return outputs

    def _task_execution(self, execution: Execution, place: Any, name: str, attempt: int) -> Any:
        node = identifier_pb2.NodeExecutionIdentifier(node_id=name, execution_id=execution.message.id)
        task = task_execution_pb2.TaskExecution()
        task.id.node_execution_id.CopyFrom(node)
        task.id.task_id.CopyFrom(place)
        task.id.retry_attempt = attempt
        task.closure.phase = core_execution_pb2.TaskExecution.QUEUED
        uri = f"{self.web}/logs/{execution.message.id.name}/{name}"
        task.closure.logs.append(core_execution_pb2.TaskLog(name="logs", uri=uri))
        execution.tasks.setdefault(name, []).append(task)
        return task

    def _wait_for_pod(self, execution: Execution, task: Any, name: str) -> None:
        while name in self.pending and not execution.aborted:
            task.closure.reason = self.pending[name]
            time.sleep(0.05)
        task.closure.phase = core_execution_pb2.TaskExecution.RUNNING
        task.closure.reason = ""

    def _run_container(
        self, execution: Execution, container: Any, given: Literals, name: str, index: int | None = None
    ) -> Literals:
        folder = self.root / "store" / "runs" / execution.message.id.name / name
        work, raw = self.root / "work" / execution.message.id.name / name, folder / "raw"
        for path in (folder, work, raw):
            path.mkdir(parents=True)
        (folder / "inputs.pb").write_bytes(literals_pb2.LiteralMap(literals=given).SerializeToString())
        values = {
            "{{.input}}": str(folder / "inputs.pb"),
            "{{.outputPrefix}}": str(folder),
            "{{.rawOutputDataPrefix}}": str(raw),
            "{{.checkpointOutputPrefix}}": str(folder / "checkpoint"),
            "{{.prevCheckpointPrefix}}": '""',
        }
        command = [values.get(text, text) for text in (*container.command, *container.args)]
        place = execution.message.id
        environment = {
            "PATH": f"{Path(sys.executable).parent}:/usr/bin:/bin",
            "HOME": str(work),
            "FLYTE_INTERNAL_EXECUTION_ID": place.name,
            "FLYTE_INTERNAL_EXECUTION_PROJECT": place.project,
            "FLYTE_INTERNAL_EXECUTION_DOMAIN": place.domain,
            **{pair.key: pair.value for pair in container.env},
            **self.environment,
        }
        if index is not None:
            environment |= {"BATCH_JOB_ARRAY_INDEX_VAR_NAME": "FLYTE_INDEX", "FLYTE_INDEX": str(index)}
        if execution.aborted:
            raise TaskError("aborted")
        process = self.start(command, work, environment, folder / "log")
        execution.processes.append(process)
        code = process.wait()
        if (folder / "error.pb").is_file():
            error = errors_pb2.ErrorDocument.FromString((folder / "error.pb").read_bytes()).error
            message = f"[1/1] currentAttempt done. Last Error: USER::\n{error.message}"
            raise TaskError(message, error.kind == errors_pb2.ContainerError.RECOVERABLE)
        if code in (-9, 247) and not execution.aborted:
            raise TaskError(
                f"[1/1] currentAttempt done. Last Error: USER::\n[primary] terminated with exit code ({code % 256}). "
                "Reason [OOMKilled]. Message: \n."
            )
        if not (folder / "outputs.pb").is_file():
            raise TaskError(f"exit code {code}: {(folder / 'log').read_text()[-4000:]}")
        return dict(literals_pb2.LiteralMap.FromString((folder / "outputs.pb").read_bytes()).literals)

    # What is stored

    def _check_schedule(self, spec: Any, inputs: Mapping[str, Any], context: Any) -> None:
        """As flyteadmin does: nothing is left open but the time, and that is a plain datetime of a cron schedule."""
        schedule = spec.entity_metadata.schedule
        if not schedule.cron_schedule.schedule and not schedule.HasField("rate"):
            return
        time = schedule.kickoff_time_input_arg
        given = {*spec.fixed_inputs.literals}
        given |= {name for name, parameter in spec.default_inputs.parameters.items() if parameter.HasField("default")}
        for name in inputs:
            if name not in given and name != time:
                details = f"a schedule with an unbound required input. [{name}] is required"
                context.abort(grpc.StatusCode.INVALID_ARGUMENT, details)
        if time and (time in spec.fixed_inputs.literals or inputs[time].type.simple != types_pb2.DATETIME):
            details = f"KickoffTimeInputArg must reference a datetime input. [{time}] is a [{inputs[time].type}]"
            context.abort(grpc.StatusCode.INVALID_ARGUMENT, details)
        if time and not schedule.cron_schedule.schedule:
            context.abort(grpc.StatusCode.INVALID_ARGUMENT, "the scheduler tells the time to cron schedules alone")

    def _check_place(self, place: Any, context: Any) -> None:
        if place.project == PROJECT and place.domain != DOMAIN:
            details = f"domain [{place.domain}] is unrecognized by system"
            context.abort(grpc.StatusCode.INVALID_ARGUMENT, details)
        if (place.project, place.domain) != (PROJECT, DOMAIN):
            context.abort(
                grpc.StatusCode.INVALID_ARGUMENT,
                f"failed to validate that project [{place.project}] and domain [{place.domain}] are registered, "
                f"err: [project [{place.project}] not found]",
            )

    def _create(self, kept: dict[tuple[str, str], Any], place: Any, message: Any, context: Any) -> None:
        if (place.name, place.version) in kept:
            context.abort(grpc.StatusCode.ALREADY_EXISTS, f"{place.name} with identical structure already exists")
        kept[place.name, place.version] = message

    def _find(self, kept: dict[tuple[str, str], Any], place: Any, context: Any) -> Any:
        if (place.name, place.version) not in kept:
            context.abort(grpc.StatusCode.NOT_FOUND, f"missing entity of type {place.name}:{place.version}")
        return kept[place.name, place.version]

    def _execution(self, name: str, context: Any) -> Execution:
        if name not in self.executions:
            context.abort(grpc.StatusCode.NOT_FOUND, f"missing entity of type execution with identifier {name}")
        return self.executions[name]


class _Recorder(grpc.ServerInterceptor):
    """Records each call, and refuses those that a test wants refused."""

    def __init__(self, admin: Flyteadmin) -> None:
        self._admin = admin

    def intercept_service(self, continuation: Any, details: Any) -> Any:
        method = details.method.rpartition("/")[2]
        self._admin.calls.append(Call(method, time.monotonic()))
        refused = self._admin.refusals.get(method) or self._admin.refusals.get("*")
        if refused is None:
            return continuation(details)

        def refuse(request: Any, context: Any) -> None:
            context.abort(*refused)

        return grpc.unary_unary_rpc_method_handler(refuse)


def _object_store(root: Path) -> type[http.server.BaseHTTPRequestHandler]:
    """Signed URLs lead here: PUT and GET of files under `root`."""

    class Handler(http.server.BaseHTTPRequestHandler):
        def _path(self) -> Path:
            return root / urllib.parse.unquote(self.path.lstrip("/"))

        def do_PUT(self) -> None:
            content = self.rfile.read(int(self.headers["Content-Length"]))
            digest = base64.b64encode(hashlib.md5(content).digest()).decode()
            if self.headers["Content-MD5"] != digest:
                self.send_error(400)
                return
            self._path().parent.mkdir(parents=True, exist_ok=True)
            self._path().write_bytes(content)
            self._answer(b"")

        def do_GET(self) -> None:
            if not self._path().is_file():
                self.send_error(404)
                return
            self._answer(self._path().read_bytes())

        def _answer(self, content: bytes) -> None:
            self.send_response(200)
            self.send_header("Content-Length", str(len(content)))
            self.end_headers()
            self.wfile.write(content)

        def log_message(self, *args: Any) -> None:
            pass

    return Handler


def _is_of(name: str, node: str) -> bool:
    return name == node or name.startswith(f"{node}/")


def _cut(message: Any) -> Any:
    """As flyteadmin lists executions: an error has 100 bytes. Asked for one by one, they have all."""
    if not message.closure.HasField("error"):
        return message
    cut = type(message)()
    cut.CopyFrom(message)
    cut.closure.error.message = message.closure.error.message[:100]
    return cut


def _task(node: Any) -> Any:
    """The identifier of a node's task; an empty one where it has none."""
    return (node.array_node.node if node.HasField("array_node") else node).task_node.reference_id


def _needs(node: Any) -> set[str]:
    return {*node.upstream_node_ids, *(name for binding in node.inputs for name in _promised(binding.binding))}


def _promised(binding: Any) -> Iterator[str]:
    if binding.HasField("promise"):
        yield binding.promise.node_id
    for inner in (*binding.collection.bindings, *binding.map.bindings.values()):
        yield from _promised(inner)


def _resolve(binding: Any, outputs: dict[str, Literals]) -> literals_pb2.Literal:
    if binding.HasField("promise"):
        return outputs[binding.promise.node_id][binding.promise.var]
    if binding.HasField("collection"):
        items = [_resolve(inner, outputs) for inner in binding.collection.bindings]
        return literals_pb2.Literal(collection=literals_pb2.LiteralCollection(literals=items))
    if binding.HasField("map"):
        named = {name: _resolve(inner, outputs) for name, inner in binding.map.bindings.items()}
        return literals_pb2.Literal(map=literals_pb2.LiteralMap(literals=named))
    return literals_pb2.Literal(scalar=binding.scalar)


def _cache_key(template: Any, given: Literals) -> str:
    parts = [f"{name}={value.hash or value.SerializeToString(deterministic=True)!r}" for name, value in given.items()]
    text = f"{template.id.name} {template.metadata.discovery_version} {sorted(parts)}"
    return hashlib.sha256(text.encode()).hexdigest()


def _get(message: Any, path: str) -> Any:
    for name in path.split("."):
        message = getattr(message, name)
    return message


if __name__ == "__main__":
    with Flyteadmin(Path(sys.argv[1])).serving() as admin:
        print(admin.address, os.getpid(), flush=True)
        threading.Event().wait()
