"""A step of the pipeline as a task of Flyte. The user's functions stay what they are."""

from __future__ import annotations

import os
import re
from collections.abc import Callable
from contextlib import suppress
from datetime import timedelta
from pathlib import Path
from types import TracebackType
from typing import Any

import flytekit
from flytekit.core.base_task import TaskResolverMixin
from flytekit.core.context_manager import FlyteContextManager
from flytekit.core.interface import Interface
from flytekit.core.python_function_task import PythonInstanceTask
from flytekit.exceptions.user import FlyteRecoverableException
from flytekit.models.security import Secret

import mlapp
from mlapp.errors import MlappError, UserCodeError
from mlapp.flyte.app_source import Source
from mlapp.pipeline.resources import Resources, Task

Work = Callable[[dict[str, Any]], Any]
"""From a task's inputs by name to its outputs: one value, or a tuple of them in order."""


class StageError(Exception):
    """A stage failed. Its text is two lines: what happened, and what to do."""


class RetriedStageError(FlyteRecoverableException):  # type: ignore[misc]
    """The same where the stage declares retries: Flyte runs a task again only for an error of this kind.

    flytekit's entry point decides by this class (`flytekit/bin/entrypoint.py`, `_dispatch_execute`).
    """

    def __str__(self) -> str:
        return str(self.args[0])  # without flytekit's own words around it


class StageTask(PythonInstanceTask[None]):  # type: ignore[misc]
    """One step: its interface is made from the app, its work is one function of `mlapp.flyte.task_bodies`.

    Args:
        source: the app and its place.
        step: the task's own name within the workflow, as `train`; `name` is its full one.
        resolver: how a container finds the task.
        declared: resources, cache, retries, timeout and secrets.
        cache_version: what the results depend on beside the inputs.
    """

    def __init__(
        self,
        source: Source,
        step: str,
        work: Work,
        *,
        name: str,
        inputs: dict[str, Any],
        outputs: dict[str, Any],
        resolver: TaskResolverMixin,
        declared: Task,
        cache_version: str = "",
        shows_deck: bool = False,
    ) -> None:
        self.source = source
        self.step = step
        self.stage = step
        """The step that runs now: a fused task has several."""
        self._work = work
        self._retries = declared.retries
        self._secrets = [make_secret(text) for text in declared.secrets]
        super().__init__(
            name=name,
            task_config=None,
            task_resolver=resolver,
            interface=Interface(inputs=inputs, outputs=outputs),
            metadata=flytekit.TaskMetadata(
                cache=declared.cache,
                cache_version=cache_version if declared.cache else "",
                retries=declared.retries,
                timeout=timedelta(seconds=declared.timeout) if declared.timeout else None,
            ),
            secret_requests=self._secrets,
            enable_deck=shows_deck,
            deck_fields=(),
            **_make_resources(declared.resources),
        )

    @property
    def lhs(self) -> str:
        return self.step  # flytekit looks for a module's variable, and there is none

    def execute(self, **inputs: Any) -> Any:
        self._expose_secrets()
        try:
            return self._work(inputs)
        except MlappError as error:
            kind = RetriedStageError if self._retries else StageError
            cause = error.__cause__ if isinstance(error, UserCodeError) else None
            if cause is not None:
                cause = cause.with_traceback(_strip_own_frames(cause.__traceback__))
            # The user's own traceback comes first, and none of ours after it.
            here = f"{Path.cwd()}/"  # the user has the code in another folder
            text = f"{error.what}\n{error.todo}\nin task: {self.stage}".replace(here, "")
            raise kind(text).with_traceback(None) from cause

    def _expose_secrets(self) -> None:
        """Give the stage its secrets as environment variables, also where Flyte mounts them as files."""
        for secret in self._secrets:
            if secret.env_var and secret.env_var not in os.environ:
                with suppress(ValueError):  # not there in a local run: the function says what it misses
                    os.environ[secret.env_var] = flytekit.current_context().secrets.get(secret.group, secret.key)


def new_output_folder(name: str) -> Path:
    """A new folder for an output, where flytekit keeps a task's files."""
    made = Path(FlyteContextManager.current_context().file_access.get_random_local_directory()) / name
    made.mkdir(parents=True)
    return made


def make_secret(text: str) -> Secret:
    """`database/password`, or `token` for the key of that name in the secret of that name; as `PASSWORD`, `TOKEN`."""
    group, _, key = text.rpartition("/")
    variable = re.sub(r"\W", "_", key).upper()
    return Secret(group=group or key, key=key, env_var=variable, mount_requirement=Secret.MountType.ENV_VAR)


def _make_resources(resources: Resources | None) -> dict[str, Any]:
    if resources is None:
        return {}
    wanted = flytekit.Resources(
        cpu=None if resources.cpu is None else str(resources.cpu),
        mem=resources.memory,
        gpu=None if resources.gpu is None else str(resources.gpu),
        ephemeral_storage=resources.disk,
    )
    return {"requests": wanted, "limits": wanted}


def _strip_own_frames(trace: TracebackType | None) -> TracebackType | None:
    """The traceback from the first frame that is not mlapp's own."""
    own = str(Path(mlapp.__file__).parent)
    while trace is not None and trace.tb_next is not None and trace.tb_frame.f_code.co_filename.startswith(own):
        trace = trace.tb_next
    return trace
