"""A small Flyte: the part of flyteadmin's and the data proxy's services that is used, over real gRPC and HTTP.

It stores what is registered, and runs a workflow by starting each task's registered container arguments as a process
of its own, in an empty folder: what such a process has not got from the registered archive, it has not got.
It checks and refuses as flyteadmin 1.16.8 does (flyteadmin/pkg/manager/impl and its folder `validation`).
"""

from __future__ import annotations

import hashlib
import http.server
import os
import sys
import threading
import time
import urllib.parse
from collections.abc import Iterator
from concurrent import futures
from contextlib import contextmanager
from dataclasses import dataclass
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
from flyteidl.core import compiler_pb2, identifier_pb2, literals_pb2
from flyteidl.service import admin_pb2_grpc, dataproxy_pb2, dataproxy_pb2_grpc

from tests.integration.flyte import validation
from tests.integration.flyte.object_store import make_handler
from tests.integration.flyte.preloaded import preloaded
from tests.integration.flyte.propeller import Execution, Literals, Propeller, WorkflowPhase
from tests.integration.flyte.validation import DOMAIN, LIMITS, PROJECT

ENDED = (WorkflowPhase.SUCCEEDED, WorkflowPhase.FAILED, WorkflowPhase.ABORTED, WorkflowPhase.TIMED_OUT)


@dataclass
class Call:
    method: str
    time: float


class Flyteadmin(admin_pb2_grpc.AdminServiceServicer, dataproxy_pb2_grpc.DataProxyServiceServicer):
    """`calls` are all that were answered, in order; `refusals` makes a method fail: name → (code, details).

    Attributes:
        limits: what one task may ask for. signs_outputs: `remoteData.signedUrls` is on, and outputs come by URL.
    """

    def __init__(self, root: Path) -> None:
        self.root = root
        self.propeller = Propeller(root)
        self.calls: list[Call] = []
        self.refusals: dict[str, tuple[grpc.StatusCode, str]] = {}
        self.limits = dict(LIMITS)
        self.signs_outputs = False
        self.workflows: dict[tuple[str, str], admin_workflow_pb2.WorkflowCreateRequest] = {}
        self.plans: dict[tuple[str, str], launch_plan_pb2.LaunchPlan] = {}
        self.executions: dict[str, Execution] = {}
        self.descriptions: dict[str, str] = {}
        self.address = self.web = ""
        self._specs: dict[tuple[str, str, str], bytes] = {}

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
        web = http.server.ThreadingHTTPServer(("127.0.0.1", 0), make_handler(store, self.propeller.nodes))
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
        validation.check_place(request.id, context)
        validation.check_resources(request.spec.template.container, self.limits, context)
        task = compiler_pb2.CompiledTask(template=request.spec.template)
        self._create("task", self.propeller.tasks, request, task, context)
        return admin_task_pb2.TaskCreateResponse()

    def CreateWorkflow(self, request: Any, context: Any) -> Any:
        validation.check_place(request.id, context)
        for node in request.spec.template.nodes:
            if not node.HasField("workflow_node"):
                self._find(self.propeller.tasks, _task(node), context)
        self._create("workflow", self.workflows, request, request, context)
        return admin_workflow_pb2.WorkflowCreateResponse()

    def CreateLaunchPlan(self, request: Any, context: Any) -> Any:
        validation.check_place(request.id, context)
        workflow = self._find(self.workflows, request.spec.workflow_id, context)
        plan = launch_plan_pb2.LaunchPlan(id=request.id, spec=request.spec)
        expected = plan.closure.expected_inputs.parameters
        for name, variable in workflow.spec.template.interface.inputs.variables.items():
            if name in request.spec.default_inputs.parameters:
                expected[name].CopyFrom(request.spec.default_inputs.parameters[name])
            elif name not in request.spec.fixed_inputs.literals:
                expected[name].var.CopyFrom(variable)
                expected[name].required = True
        validation.check_schedule(request.spec.entity_metadata.schedule, expected, context)
        plan.closure.state = launch_plan_pb2.INACTIVE
        plan.closure.created_at.GetCurrentTime()
        self._create("launch plan", self.plans, request, plan, context)
        return launch_plan_pb2.LaunchPlanCreateResponse()

    def GetTask(self, request: Any, context: Any) -> Any:
        task = self._find(self.propeller.tasks, request.id, context)
        return admin_task_pb2.Task(id=request.id, closure=admin_task_pb2.TaskClosure(compiled_task=task))

    def GetWorkflow(self, request: Any, context: Any) -> Any:
        spec = self._find(self.workflows, request.id, context).spec
        templates = (spec.template, *spec.sub_workflows)
        used = [_task(node) for template in templates for node in template.nodes]
        tasks = [self.propeller.tasks[place.name, place.version] for place in used if place.name]
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
        plans = [plan for (name, _), plan in self.plans.items() if name == request.id.name and _is_known(request.id)]
        page, token = _list_page(plans, request, context)
        return launch_plan_pb2.LaunchPlanList(launch_plans=page, token=token)

    def ListLaunchPlanIds(self, request: Any, context: Any) -> Any:
        names = dict.fromkeys(name for name, _ in self.plans if _is_known(request))
        places = [common_pb2.NamedEntityIdentifier(project=PROJECT, domain=DOMAIN, name=name) for name in names]
        page, token = _list_page(places, request, context)
        return common_pb2.NamedEntityIdentifierList(entities=page, token=token)

    def ListActiveLaunchPlans(self, request: Any, context: Any) -> Any:
        active = launch_plan_pb2.ACTIVE
        plans = [plan for plan in self.plans.values() if plan.closure.state == active and _is_known(request)]
        page, token = _list_page(plans, request, context)
        return launch_plan_pb2.LaunchPlanList(launch_plans=page, token=token)

    def UpdateLaunchPlan(self, request: Any, context: Any) -> Any:
        plan = self._find(self.plans, request.id, context)
        if request.state == launch_plan_pb2.ACTIVE:
            for (name, _), other in self.plans.items():
                if name == request.id.name:
                    other.closure.state = launch_plan_pb2.INACTIVE
        plan.closure.state = request.state
        return launch_plan_pb2.LaunchPlanUpdateResponse()

    def GetNamedEntity(self, request: Any, context: Any) -> Any:
        name = self._named_entity(request, context)
        metadata = common_pb2.NamedEntityMetadata(description=self.descriptions.get(name, ""))
        return common_pb2.NamedEntity(resource_type=request.resource_type, id=request.id, metadata=metadata)

    def UpdateNamedEntity(self, request: Any, context: Any) -> Any:
        name = self._named_entity(request, context)
        if request.resource_type == identifier_pb2.LAUNCH_PLAN:
            self.descriptions[name] = request.metadata.description
        return common_pb2.NamedEntityUpdateResponse()

    def _named_entity(self, request: Any, context: Any) -> str:
        name = str(request.id.name)
        kind = identifier_pb2.ResourceType.Name(request.resource_type)
        kept = {"TASK": self.propeller.tasks, "WORKFLOW": self.workflows, "LAUNCH_PLAN": self.plans}[kind]
        if not _is_known(request.id) or name not in {known for known, _ in kept}:
            context.abort(grpc.StatusCode.NOT_FOUND, f"missing entity of type {kind} {name}")
        return name

    def GetVersion(self, request: Any, context: Any) -> Any:
        version = version_pb2.Version(Version="v1.16.8")
        return version_pb2.GetVersionResponse(control_plane_version=version)

    def ListProjects(self, request: Any, context: Any) -> Any:
        one = project_pb2.Project(id=PROJECT, domains=[project_pb2.Domain(id=DOMAIN)])
        return project_pb2.Projects(projects=[one] if request.filters in ("", f"eq(identifier,{PROJECT})") else [])

    # Running

    def CreateExecution(self, request: Any, context: Any) -> Any:
        """flyteadmin fills in defaults and fixed inputs, and refuses what the launch plan does not expect."""
        validation.check_place(request, context)
        validation.check_name(request.name, context)
        plan = self._find(self.plans, request.spec.launch_plan, context)
        validation.check_inputs(plan, request.inputs.literals, context)
        if request.name in self.executions:
            context.abort(grpc.StatusCode.ALREADY_EXISTS, f"execution {request.name} already exists")
        return execution_pb2.ExecutionCreateResponse(id=self.execute(plan, dict(request.inputs.literals), request))

    def execute(
        self, plan: Any, given: Literals, request: Any = None, recovers: Execution | None = None
    ) -> identifier_pb2.WorkflowExecutionIdentifier:
        """Start a launch plan, as a request or a schedule does."""
        inputs = {
            name: parameter.default
            for name, parameter in plan.closure.expected_inputs.parameters.items()
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
        execution = Execution(message, inputs, recovered=dict(recovers.results) if recovers else {})
        self.executions[name] = execution
        workflow = self.workflows[plan.spec.workflow_id.name, plan.spec.workflow_id.version].spec
        threading.Thread(target=self.propeller.run, args=(execution, workflow), daemon=True).start()
        return place

    def GetExecution(self, request: Any, context: Any) -> Any:
        return self._execution(request.id, context).message

    def ListExecutions(self, request: Any, context: Any) -> Any:
        """Of a project that does not exist, flyteadmin lists none, and refuses nothing."""
        executions = [execution.message for execution in self.executions.values() if _is_known(request.id)]
        kind, _, rest = request.filters.partition("(")
        key, _, values = rest.rstrip(")").partition(",")
        wanted = values.split(";") if kind == "value_in" else [values]
        names = {"launch_plan.name": "spec.launch_plan.name", "workflow.name": "closure.workflow_id.name"}
        if key:
            executions = [message for message in executions if _get(message, names[key]) in wanted]
        page, token = _list_page(executions, request, context)
        return execution_pb2.ExecutionList(executions=list(map(_cut, page)), token=token)

    def GetExecutionData(self, request: Any, context: Any) -> Any:
        execution = self._execution(request.id, context)
        answer = execution_pb2.WorkflowExecutionGetDataResponse(
            full_inputs=literals_pb2.LiteralMap(literals=execution.inputs)
        )
        outputs = literals_pb2.LiteralMap(literals=execution.outputs)
        if self.signs_outputs:
            file = self.root / "store" / request.id.name / "outputs.pb"
            file.parent.mkdir(exist_ok=True)
            file.write_bytes(outputs.SerializeToString())
            answer.outputs.url = f"{self.web}/{request.id.name}/outputs.pb"
            answer.outputs.bytes = outputs.ByteSize()
        else:
            answer.full_outputs.CopyFrom(outputs)
        return answer

    def TerminateExecution(self, request: Any, context: Any) -> Any:
        execution = self._execution(request.id, context)
        if execution.message.closure.phase in ENDED:
            details = "Cannot abort an already terminated workflow execution"
            context.abort(grpc.StatusCode.FAILED_PRECONDITION, details)
        execution.aborted = True
        execution.message.closure.phase = WorkflowPhase.ABORTING
        execution.message.closure.abort_metadata.cause = request.cause
        for process in execution.processes:
            process.kill()
        return execution_pb2.ExecutionTerminateResponse()

    def ListNodeExecutions(self, request: Any, context: Any) -> Any:
        """Of a run that does not exist, flyteadmin lists none, and refuses nothing."""
        execution = self.executions.get(request.workflow_execution_id.name)
        is_here = execution is not None and _is_known(request.workflow_execution_id)
        nodes = list(execution.nodes.values()) if execution is not None and is_here else []
        page, token = _list_page(nodes, request, context)
        return node_execution_pb2.NodeExecutionList(node_executions=list(map(_cut, page)), token=token)

    def GetNodeExecution(self, request: Any, context: Any) -> Any:
        nodes = self._execution(request.id.execution_id, context).nodes
        if request.id.node_id not in nodes:
            context.abort(grpc.StatusCode.NOT_FOUND, f"missing entity of type node execution {request.id.node_id}")
        return nodes[request.id.node_id]

    def ListTaskExecutions(self, request: Any, context: Any) -> Any:
        place = request.node_execution_id
        execution = self.executions.get(place.execution_id.name)
        tasks = [] if execution is None else execution.tasks.get(place.node_id, [])
        page, token = _list_page(tasks, request, context)
        return task_execution_pb2.TaskExecutionList(task_executions=list(map(_cut, page)), token=token)

    def GetTaskExecution(self, request: Any, context: Any) -> Any:
        place = request.id.node_execution_id
        execution = self._execution(place.execution_id, context)
        found = [task for tasks in execution.tasks.values() for task in tasks]
        return next(task for task in found if task.id == request.id)

    def RecoverExecution(self, request: Any, context: Any) -> Any:
        """A new run of the same inputs, whatever the old one does. What succeeded there is taken over."""
        old = self._execution(request.id, context)
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
        """A URL is signed without a look at whether there is a file."""
        place = Path(request.native_url)
        if not place.is_relative_to(self.root / "store"):
            context.abort(grpc.StatusCode.INTERNAL, f"failed to create a signed url. Error: {request.native_url}")
        key = place.relative_to(self.root / "store").as_posix()
        return dataproxy_pb2.CreateDownloadLocationResponse(signed_url=f"{self.web}/{urllib.parse.quote(key)}")

    # What is stored

    def _create(self, kind: str, kept: dict[tuple[str, str], Any], request: Any, message: Any, context: Any) -> None:
        """Refuses an identifier that is taken: by an identical object, or by another one."""
        place, spec = request.id, request.spec.SerializeToString(deterministic=True)
        known = self._specs.setdefault((kind, place.name, place.version), spec)
        if (place.name, place.version) not in kept:
            kept[place.name, place.version] = message
        elif known == spec:
            context.abort(grpc.StatusCode.ALREADY_EXISTS, f"{kind} with identical structure already exists")
        else:
            details = f"{place.name} {kind} with different structure already exists. (Please register a new version"
            context.abort(grpc.StatusCode.INVALID_ARGUMENT, f"{details} of the {kind}):\n")

    def _find(self, kept: dict[tuple[str, str], Any], place: Any, context: Any) -> Any:
        if not _is_known(place) or (place.name, place.version) not in kept:
            context.abort(grpc.StatusCode.NOT_FOUND, f"missing entity of type {place.name}:{place.version}")
        return kept[place.name, place.version]

    def _execution(self, place: Any, context: Any) -> Execution:
        if not _is_known(place) or place.name not in self.executions:
            context.abort(grpc.StatusCode.NOT_FOUND, f"missing entity of type execution with identifier {place.name}")
        return self.executions[place.name]


def _is_known(place: Any) -> bool:
    """Whether an object is looked up in the project where all objects are."""
    return (place.project, place.domain) == (PROJECT, DOMAIN)


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


def _list_page(items: list[Any], request: Any, context: Any) -> tuple[list[Any], str]:
    """One page, and the token of the next one. Without `sort_by` the order is that of the database: none.

    A page that is full has a token, also where nothing follows.
    """
    if not request.limit:
        context.abort(grpc.StatusCode.INVALID_ARGUMENT, "invalid value for limit")
    begin = int(request.token or 0)
    page = items[::-1][begin : begin + request.limit]
    return page, str(begin + len(page)) if len(page) == request.limit else ""


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


def _get(message: Any, path: str) -> Any:
    for name in path.split("."):
        message = getattr(message, name)
    return message


if __name__ == "__main__":
    with preloaded() as start, Flyteadmin(Path(sys.argv[1])).serving() as admin:
        admin.propeller.start = start
        print(admin.address, admin.web, os.getpid(), flush=True)
        threading.Event().wait()
