"""flytepropeller's part of the small Flyte: it runs the nodes of a workflow, and each task as a pod."""

from __future__ import annotations

import hashlib
import math
import subprocess
import sys
import time
from collections.abc import Iterator, Mapping, Sequence
from concurrent import futures
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from flyteidl.admin import execution_pb2, node_execution_pb2, task_execution_pb2
from flyteidl.core import compiler_pb2, errors_pb2, identifier_pb2, literals_pb2
from flyteidl.core import execution_pb2 as core_execution_pb2

from tests.integration.flyte.nodes import Nodes, Pod, PodError, read_quantities
from tests.integration.flyte.preloaded import Process, Start

WorkflowPhase = core_execution_pb2.WorkflowExecution
NodePhase = core_execution_pb2.NodeExecution
TaskPhase = core_execution_pb2.TaskExecution
WAITING = (TaskPhase.UNDEFINED, TaskPhase.QUEUED, TaskPhase.INITIALIZING)
Literals = dict[str, literals_pb2.Literal]
SYSTEM_ATTEMPTS = 3
"""How often a task runs that the system ended (`max-node-retries-system-failures`)."""


class TaskError(Exception):
    """A task failed, after all of its attempts."""


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


@dataclass(frozen=True)
class _Attempt:
    """Where one attempt of a task is recorded: its name, and the run of an array that it is, if any."""

    name: str
    number: int
    index: int | None = None


def new_process(command: Sequence[str], cwd: Path, environment: Mapping[str, str], log: Path) -> Process:
    """A container, as far as a process with a folder and variables of its own is one."""
    with log.open("wb") as output:
        return subprocess.Popen(command, cwd=cwd, env=dict(environment), stdout=output, stderr=subprocess.STDOUT)


class Propeller:
    """Runs executions. What is registered comes from flyteadmin's tables.

    Attributes:
        start: starts the process of a container.
        environment: variables that every container has. secrets: group/key → value.
    """

    def __init__(self, root: Path) -> None:
        self.root = root
        self.nodes = Nodes()
        self.tasks: dict[tuple[str, str], compiler_pb2.CompiledTask] = {}
        self.cache: dict[str, Literals] = {}
        self.environment: dict[str, str] = {}
        self.secrets: dict[str, str] = {}
        self.start: Start = new_process

    def run(self, execution: Execution, spec: Any) -> None:
        """Run the workflow of a launch plan to its end."""
        closure = execution.message.closure
        if not execution.aborted:
            closure.phase = WorkflowPhase.RUNNING
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
                inner = next(workflow for workflow in spec.sub_workflows if workflow.id.name == reference.name)
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
        """A map task: the same inputs for each of its runs, and its index in the environment.

        flyteadmin knows one task execution of it, without a reason. Its runs are external resources of that one
        (flytepropeller/pkg/controller/nodes/array/event_recorder.go).
        """
        size = next(len(given[key].collection.literals) for key in given if key not in array.bound_inputs)
        place = array.node.task_node.reference_id
        whole = self._new_task_execution(execution, place, name, 0)
        whole.closure.phase = TaskPhase.RUNNING

        def run(at: int) -> Literals | TaskError:
            try:
                return self._run_task(execution, place, given, name, closure, at)
            except TaskError as error:
                return error

        with futures.ThreadPoolExecutor(execution.message.spec.max_parallelism or size) as pool:
            results = list(pool.map(run, range(size)))
        errors = {at: result for at, result in enumerate(results) if isinstance(result, TaskError)}
        if size - len(errors) < math.ceil(size * (array.min_success_ratio or 1)):
            whole.closure.phase = TaskPhase.FAILED
            whole.closure.error.message = _summarize(errors)
            raise TaskError(_summarize(errors))
        whole.closure.phase = TaskPhase.SUCCEEDED
        interface = self.tasks[place.name, place.version].template.interface
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
        template = self.tasks[place.name, place.version].template
        key = _cache_key(template, given)
        if template.metadata.discoverable and key in self.cache:
            closure.task_node_metadata.cache_status = 2  # CACHE_HIT
            return self.cache[key]
        own, most = template.metadata.retries.retries + 1, SYSTEM_ATTEMPTS
        used = failed_by_system = 0
        while True:
            number = used + failed_by_system
            execution.attempts[name if index is None else f"{name}-n{index}"] = number + 1
            attempt = _Attempt(name, number, index)
            task = self._new_task_execution(execution, place, name, number) if index is None else None
            try:
                outputs = self._run_pod(execution, template, given, attempt, task)
                break
            except PodError as error:
                used, failed_by_system = used + (not error.is_system), failed_by_system + error.is_system
                at, of = (failed_by_system, most) if error.is_system else (used, own)
                self._record(execution, attempt, task, TaskPhase.FAILED, "")
                text = str(error)
                if task is not None:
                    task.closure.error.message, task.closure.error.code = text, error.code
                if error.is_final or execution.aborted:
                    raise TaskError(text) from None
                if at >= of:
                    kind = "SYSTEM" if error.is_system else "USER"
                    raise TaskError(f"[{at}/{of}] currentAttempt done. Last Error: {kind}::{text}") from None
        self._record(execution, attempt, task, TaskPhase.SUCCEEDED, "")
        if template.metadata.discoverable:
            self.cache[key] = outputs
        return outputs

    def _new_task_execution(self, execution: Execution, place: Any, name: str, number: int) -> Any:
        node = identifier_pb2.NodeExecutionIdentifier(node_id=name, execution_id=execution.message.id)
        task = task_execution_pb2.TaskExecution()
        task.id.node_execution_id.CopyFrom(node)
        task.id.task_id.CopyFrom(place)
        task.id.retry_attempt = number
        task.closure.phase = TaskPhase.QUEUED
        execution.tasks.setdefault(name, []).append(task)
        return task

    def _record(self, execution: Execution, attempt: _Attempt, task: Any, phase: Any, reason: str) -> None:
        """The event of an attempt. A reason stays until there is another; links appear when the pod runs."""
        log = core_execution_pb2.TaskLog(name="logs", uri=f"{execution.message.id.name}/{attempt.name}")
        if task is not None:
            task.closure.phase = phase
            task.closure.reason = reason or task.closure.reason
            if phase not in WAITING and not task.closure.logs:
                task.closure.logs.append(log)
            return
        resources = execution.tasks[attempt.name][0].closure.metadata.external_resources
        own = next(
            (one for one in resources if (one.index, one.retry_attempt) == (attempt.index, attempt.number)), None
        )
        if own is None:
            own = resources.add(index=attempt.index, retry_attempt=attempt.number)
        own.phase = phase
        if phase not in WAITING and not own.logs:
            log.name, log.uri = f"{log.name}-{attempt.index}", f"{log.uri}/{attempt.index}"
            own.logs.append(log)

    def _run_pod(self, execution: Execution, template: Any, given: Literals, attempt: _Attempt, task: Any) -> Literals:
        container, place = template.container, execution.message.id
        node = attempt.name if attempt.index is None else f"{attempt.name}-n{attempt.index}"
        folder = self.root / "store" / "runs" / place.name / node / str(attempt.number)
        work, raw = self.root / "work" / place.name / node / str(attempt.number), folder / "raw"
        temporary = folder / "tmp"
        for path in (folder, work, raw, temporary):
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
        environment = {
            "PATH": f"{Path(sys.executable).parent}:/usr/bin:/bin",
            "HOME": str(work),
            "TMPDIR": str(temporary),  # a pod has a /tmp of its own
            "FLYTE_INTERNAL_EXECUTION_ID": place.name,
            "FLYTE_INTERNAL_EXECUTION_PROJECT": place.project,
            "FLYTE_INTERNAL_EXECUTION_DOMAIN": place.domain,
            **{pair.key: pair.value for pair in container.env},
            **self._secret_variables(template),
            **self.environment,
        }
        if attempt.index is not None:
            environment |= {"BATCH_JOB_ARRAY_INDEX_VAR_NAME": "FLYTE_INDEX", "FLYTE_INDEX": str(attempt.index)}
        pod = Pod(
            f"{place.name}-{node}-{attempt.number}",
            f"{place.project}-{place.domain}",
            {"execution-id": place.name, "node-id": node},
            container.image,
            read_quantities(container.resources.requests),
            folder / "log",
            template.metadata.timeout.seconds,
        )

        def start() -> Process:
            process = self.start(command, work, environment, folder / "log")
            execution.processes.append(process)
            return process

        code = self.nodes.run(
            pod,
            attempt.name,
            start,
            lambda phase, reason: self._record(execution, attempt, task, phase, reason),
            lambda: execution.aborted,
        )
        if (folder / "error.pb").is_file():
            error = errors_pb2.ErrorDocument.FromString((folder / "error.pb").read_bytes()).error
            raise PodError(error.code, error.message, is_final=error.kind != errors_pb2.ContainerError.RECOVERABLE)
        if not (folder / "outputs.pb").is_file():
            raise PodError("Error", f"exit code {code}: {(folder / 'log').read_text()[-4000:]}", is_final=True)
        return dict(literals_pb2.LiteralMap.FromString((folder / "outputs.pb").read_bytes()).literals)

    def _secret_variables(self, template: Any) -> dict[str, str]:
        """As flytepropeller's webhook adds them (pkg/webhook/k8s_secrets.go). One that is not there is left out."""
        variables = {}
        for secret in template.security_context.secrets:
            value = self.secrets.get(f"{secret.group}/{secret.key}")
            if value is not None:
                variables[f"_FSEC_{secret.group}_{secret.key}".upper()] = value
                if secret.env_var:
                    variables[secret.env_var] = value
        return {**variables, "FLYTE_SECRETS_ENV_PREFIX": "_FSEC_"}


def _summarize(errors: Mapping[int, TaskError]) -> str:
    """The errors of an array node, as flytepropeller's errorcollector joins them."""
    places: dict[str, list[int]] = {}
    for at, error in errors.items():
        places.setdefault(str(error), []).append(at)
    ranges = {
        text: f"[{indexes[0]}]" if len(indexes) == 1 else f"[{indexes[0]}-{indexes[-1]}]"
        for text, indexes in places.items()
    }
    return "".join(f"{ranges[text]}: {text}\n" for text in sorted(ranges))


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
