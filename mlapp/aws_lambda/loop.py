"""The loop of a function: open the model, then answer events one by one."""

from __future__ import annotations

import dataclasses
import logging
import os
from pathlib import Path

import msgspec

from mlapp import bundle as bundles
from mlapp.aws_lambda import limits
from mlapp.aws_lambda.model_function import InvocationError, ModelFunction
from mlapp.aws_lambda.runtime_api import Invocation, RuntimeApi, RuntimeApiError
from mlapp.aws_lambda.settings import LambdaSettings
from mlapp.config import Monitor, decode_section
from mlapp.embed.host import ModelHost
from mlapp.errors import MlappError
from mlapp.project import Project

log = logging.getLogger("mlapp.lambda")

ADDRESS_VARIABLE = "AWS_LAMBDA_RUNTIME_API"
TRACE_VARIABLE = "_X_AMZN_TRACE_ID"


def open_model_function(bundle: Path | None) -> ModelFunction:
    """The loaded and warmed-up model of a bundle, or of the current folder's project.

    Raises:
        MlappError: the model cannot be loaded, or cannot predict its own example.
    """
    if bundle is None:
        project = Project.find()
        version: str | int = project.settings.serve.model or "latest"
    else:
        model_bundle = bundles.open(bundle)
        project, version = model_bundle.served_project, model_bundle.settings.serve.model
    project = _disable_monitoring(project)
    settings = decode_section(LambdaSettings, project.settings.targets.get("lambda") or {}, "targets.lambda")
    host = ModelHost(project.app, version, project.settings.serve, project.store)
    host.open_endpoint()
    return ModelFunction(host, settings)


def _disable_monitoring(project: Project) -> Project:
    """The project with monitoring off, because Lambda freezes the process, including a recorder, between events."""
    settings = msgspec.structs.replace(project.settings, monitor=Monitor(log="off", drift=False))
    return dataclasses.replace(project, settings=settings)


def run_lambda_loop(api: RuntimeApi, bundle: Path | None) -> None:
    """Answer events forever. If the model cannot be loaded, report that to Lambda and end the process.

    Raises:
        MlappError: the model cannot be loaded. OSError: Lambda closed the connection.
    """
    try:
        function = open_model_function(bundle)
    except MlappError as error:
        api.send_init_error(type(error).__name__, f"{error.what} {error.todo}")
        raise
    except BaseException as error:  # including sys.exit() in app.py: Lambda shows no other reason
        api.send_init_error(type(error).__name__, str(error))
        raise
    watch = limits.DeadlineWatch()
    has_warned = limits.warn_of_lambda_memory()
    while True:
        invocation = api.wait_for_invocation()
        os.environ[TRACE_VARIABLE] = invocation.trace
        watch.begin(invocation.remaining)
        try:
            answer_lambda_invocation(api, function, invocation)
        finally:
            watch.end()
        has_warned = has_warned or limits.warn_of_lambda_memory()


def answer_lambda_invocation(api: RuntimeApi, function: ModelFunction, invocation: Invocation) -> None:
    """Answer one event. An error is returned to the caller, and the function continues.

    Raises:
        OSError: Lambda closed the connection.
    """
    try:
        answer = function.answer_event(invocation.body, invocation.remaining)
        if isinstance(answer, bytes):
            api.send_answer(invocation, answer)
        else:
            api.send_stream(invocation, answer.media, answer.parts)
    except InvocationError as error:
        api.send_error(invocation, error.kind, str(error))
    except RuntimeApiError as error:
        log.error("%s", error)
        if error.status == 413:
            api.send_error(invocation, "AnswerTooLarge", str(error))
    except OSError as error:
        if isinstance(error, ConnectionError):
            raise
        _send_unexpected_error(api, invocation, error)
    except MlappError as error:
        log.error("%s %s", error.what, error.todo)
        api.send_error(invocation, type(error).__name__, f"{error.what} {error.todo}")
    except MemoryError:
        text = (
            f"The function ran out of its {limits.read_lambda_memory_mb()} MB of memory. Raise targets.lambda.memory."
        )
        log.error("%s", text)
        api.send_error(invocation, "OutOfMemory", text)
    except msgspec.DecodeError as error:
        api.send_error(invocation, "InvalidRequest", f"The event is not JSON: {error}")
    except Exception as error:  # from the app's code: the next invocation must still be answered
        _send_unexpected_error(api, invocation, error)


def _send_unexpected_error(api: RuntimeApi, invocation: Invocation, error: Exception) -> None:
    log.exception("request %s", invocation.identity)
    api.send_error(invocation, type(error).__name__, str(error) or type(error).__name__)
