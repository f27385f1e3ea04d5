"""Explains why a run failed, in the user's terms, from what Flyte reports about its tasks."""

from __future__ import annotations

import re
import textwrap

from mlapp.flyte.errors import RunFailedError
from mlapp.flyte.interface import Run
from mlapp.flyte.run_pods import find_pod_pull_error

_STAGE_DECORATORS = {
    "read": "data_reader",
    "split": "data_splitter",
    "evaluate": "evaluator",
    "data": "data_reader",
    "batch": "predictor",
}
"""The decorator that declares a task's options, if it is not the trainer's."""
CAUSE_SEPARATOR = "The above exception was the direct cause of the following exception"
STAGE_LINE = re.compile(r"\n\s*in task: (\w+)\s*$")
"""The last line of a task's error. It names the failed step of a fused task."""
STAGE_ERROR = "StageError: "
"""Prefix of the message of an error that mlapp's task wrote."""
MORE_MEMORY = "resources=Resources(memory='16Gi')"
OUT_OF_MEMORY = "OOMKilled"
KILLED = re.compile(r"exit(ed with)? code:? \(?(137|247)|signal: killed")
TIMED_OUT = re.compile(r"timed? ?out|TIMED_OUT|deadline exceeded|DeadlineExceeded", re.IGNORECASE)
LOST_STORAGE = re.compile(
    r"(SlowDown|ServiceUnavailable|Could not connect to the endpoint|EndpointConnectionError|FlyteDownloadDataException"
    r"|FlyteUploadDataException|failed to (?:get|put|read|write) (?:data|object)|connection refused)",
    re.IGNORECASE,
)


def explain_failure(run: Run) -> RunFailedError:
    """The error of the first failed task, with the user's own traceback."""
    if run.phase == "aborted":
        return RunFailedError(f"Run {run.id} was aborted{f': {run.error}' if run.error else '.'}", f"See {run.url}")
    step = next((step for step in run.steps if step.phase == "failed"), None)
    text = (step.error if step else None) or run.error or ""
    stage = step.name if step else ""
    name = f"Task {stage}" if step else f"Run {run.id}"
    return (
        _explain_flyte_stage_failure(
            name, run, text
        )  # first, because the user's text can mention images, memory or storage
        or _explain_memory_failure(name, stage, text)
        or explain_flyte_pull_failure(name, text)
        or _explain_storage_failure(name, run, text)
        or _explain_traceback_failure(name, run, text)
        or _explain_timeout_failure(name, stage, text)
        or RunFailedError(f"{name} failed: {summarize_failure(text) or 'Flyte gives no reason'}", f"See {run.url}")
    )


def explain_flyte_pull_failure(name: str, text: str) -> RunFailedError | None:
    """The error for an image that the cluster cannot pull; None for any other text."""
    message = find_pod_pull_error(text)
    if message is None:
        return None
    return RunFailedError(
        f"{name}: the cluster cannot pull the image: {message}",
        "Check that it is pushed, and that the cluster has credentials for its registry.",
    )


def explain_option_declaration(stage: str, option: str) -> str:
    """The decorator that declares an option of a stage's task, such as `@app.data_reader(timeout=60)`."""
    decorator = _STAGE_DECORATORS.get(stage, "trainer")
    alternative = ", or @app.model if the app has no trainer" if decorator == "trainer" else ""
    return f"@app.{decorator}({option}){alternative}"


def find_failed_stage(text: str | None) -> str | None:
    """The failed step of a fused task, such as `train`; None if the error names none."""
    match = STAGE_LINE.search(text or "")
    return match.group(1) if match else None


def summarize_failure(text: str) -> str:
    """The last informative line of an error, without Flyte's wrapper."""
    lines = [line.strip() for line in STAGE_LINE.sub("", text).splitlines()]
    lines = [line for line in lines if re.search(r"\w", line)]
    return lines[-1] if lines else ""


def _explain_memory_failure(name: str, stage: str, text: str) -> RunFailedError | None:
    is_out_of_memory = OUT_OF_MEMORY in text
    if not is_out_of_memory and not KILLED.search(text):
        return None
    return RunFailedError(
        f"{name} ran out of memory."
        if is_out_of_memory
        else f"{name} was killed, probably because it ran out of memory.",
        f"Give it more: {explain_option_declaration(stage, MORE_MEMORY)}. Then run it again.",
    )


def _explain_flyte_stage_failure(name: str, run: Run, text: str) -> RunFailedError | None:
    """The error that mlapp's task wrote: the user's traceback and two lines."""
    return _explain_traceback_failure(name, run, text) if STAGE_ERROR in text else None


def _explain_traceback_failure(name: str, run: Run, text: str) -> RunFailedError | None:
    """An error with a traceback, for example of an app that cannot be imported in the task."""
    trace, message = split_failure_text(text)
    if STAGE_ERROR not in text and not trace:
        return None
    what, _, todo = message.partition("\n")
    return RunFailedError(f"{name} failed: {what or 'no reason given'}", todo or f"See {run.url}", trace)


def _explain_storage_failure(name: str, run: Run, text: str) -> RunFailedError | None:
    if not LOST_STORAGE.search(text):
        return None
    return RunFailedError(
        f"{name} could not reach Flyte's object storage: {summarize_failure(text)}",
        f"When the storage is reachable again, resume after the last task that succeeded: mlapp runs recover {run.id}",
    )


def _explain_timeout_failure(name: str, stage: str, text: str) -> RunFailedError | None:
    if not TIMED_OUT.search(text):
        return None
    return RunFailedError(
        f"{name} took longer than its timeout: {summarize_failure(text)}",
        f"Give it more time, in seconds: {explain_option_declaration(stage, 'timeout=3600')}. Or give it less data.",
    )


def split_failure_text(text: str) -> tuple[str, str]:
    """Split the error output of a failed task into the user's traceback and the message."""
    text = STAGE_LINE.sub("", text)
    match = re.search(r"Trace:\n\n(.*)\nMessage:\n\n(.*)", text, re.DOTALL)
    if match is None:
        return "", summarize_failure(text)
    trace = textwrap.dedent(match.group(1))
    if CAUSE_SEPARATOR in trace:  # split at the last separator, because the user's error can have causes, too
        trace = trace.rpartition(CAUSE_SEPARATOR)[0]
    trace = trace.strip()
    message = textwrap.dedent(match.group(2)).strip()
    if STAGE_ERROR not in message:
        return trace, message.splitlines()[0]
    message = message.partition(STAGE_ERROR)[2]
    return (trace if trace.startswith("Traceback") and "mlapp.flyte.tasks." not in trace else ""), message
