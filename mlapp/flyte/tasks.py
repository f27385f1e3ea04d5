"""A pipeline step as a Flyte task. The user's functions stay unchanged."""

from __future__ import annotations

import os
import re
from collections.abc import Callable
from contextlib import suppress
from datetime import timedelta
from pathlib import Path
from typing import Any

import flytekit
from flytekit.core.base_task import TaskResolverMixin
from flytekit.core.context_manager import FlyteContextManager
from flytekit.core.interface import Interface
from flytekit.core.python_function_task import PythonInstanceTask
from flytekit.exceptions.user import FlyteRecoverableException
from flytekit.models.security import Secret

from mlapp.errors import MlappError
from mlapp.flyte.app_source import Source
from mlapp.flyte.task_errors import find_task_user_error, shorten_task_paths
from mlapp.pipeline.stage_tasks import Resources, Task

Work = Callable[[dict[str, Any]], Any]
"""Maps a task's inputs by name to its outputs: one value, or an ordered tuple."""


class StageError(Exception):
    """A stage failed. Its text is two lines: what happened, and what to do."""


class RetriedStageError(FlyteRecoverableException):  # type: ignore[misc]
    """`StageError` for stages that declare retries: Flyte retries a task only after an error of this class.

    flytekit's entry point checks the class (`flytekit/bin/entrypoint.py`, `_dispatch_execute`).
    """

    def __str__(self) -> str:
        return str(self.args[0])  # without flytekit's wrapper text


class StageTask(PythonInstanceTask[None]):  # type: ignore[misc]
    """One or more steps. The app determines the interface; functions of `mlapp.flyte.task_bodies` do the work.

    Args:
        source: the app and its location.
        step: the task's name within the workflow, such as `train`; `name` is its full name.
        resolver: finds the task in a container.
        declared: resources, cache, retries, timeout and secrets.
        cache_version: the dependencies of the results besides the inputs.
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
        """The current step, as a fused task has several."""
        self._work = work
        self._retries = declared.retries
        self._secrets = [make_task_secret(text) for text in declared.secrets]
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
            **_make_flyte_task_resources(declared.resources),
        )

    @property
    def lhs(self) -> str:
        return self.step  # flytekit would look for a module variable

    def execute(self, **inputs: Any) -> Any:
        self._expose_secrets()
        try:
            return self._work(inputs)
        except MlappError as error:
            error_type = RetriedStageError if self._retries else StageError
            text = shorten_task_paths(f"{error.what}\n{error.todo}\nin task: {self.stage}")
            raise error_type(text).with_traceback(None) from find_task_user_error(error)

    def _expose_secrets(self) -> None:
        """Set the stage's secrets as environment variables, even if Flyte mounts them as files."""
        for secret in self._secrets:
            if secret.env_var and secret.env_var not in os.environ:
                with suppress(ValueError):  # missing in a local run: the function itself reports it
                    os.environ[secret.env_var] = flytekit.current_context().secrets.get(secret.group, secret.key)


def download_flyte_task_folder(flyte_folder: Any) -> Path:
    """The local copy of a folder that the task received."""
    return Path(flyte_folder.download())


def make_task_output_folder(name: str) -> Path:
    """A new folder for an output, in flytekit's folder for a task's files."""
    folder = Path(FlyteContextManager.current_context().file_access.get_random_local_directory()) / name
    folder.mkdir(parents=True)
    return folder


def make_task_secret(text: str) -> Secret:
    """Parse `database/password`, or `token` for key and secret of that name; exposed as `PASSWORD`, `TOKEN`."""
    group, _, key = text.rpartition("/")
    variable = re.sub(r"\W", "_", key).upper()
    return Secret(group=group or key, key=key, env_var=variable, mount_requirement=Secret.MountType.ENV_VAR)


def _make_flyte_task_resources(resources: Resources | None) -> dict[str, Any]:
    if resources is None:
        return {}
    task_resources = flytekit.Resources(
        cpu=None if resources.cpu is None else str(resources.cpu),
        mem=resources.memory,
        gpu=None if resources.gpu is None else str(resources.gpu),
        ephemeral_storage=resources.disk,
    )
    return {"requests": task_resources, "limits": task_resources}
