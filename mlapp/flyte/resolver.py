"""How a container finds its task: from the app's place and the task's name, which are its arguments."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from flytekit.core.base_task import TaskResolverMixin


class AppTaskResolver(TaskResolverMixin):  # type: ignore[misc]
    """Writes `app app.py task train` behind the container's `--`, and reads it there.

    The code is in the working directory: fast registration unpacks it there, and an image of ours has it there.
    """

    location = "mlapp.flyte.resolver.app_tasks"

    def name(self) -> str:
        return "mlapp"

    def load_task(self, loader_args: list[str]) -> Any:
        from mlapp.flyte import source, workflow

        given = dict(zip(loader_args[::2], loader_args[1::2], strict=True))
        return workflow.task(source.load(Path.cwd(), given["app"]), given["task"])

    def loader_args(self, settings: Any, task: Any) -> list[str]:
        return ["app", task.source.place, "task", task.step]

    def get_all_tasks(self) -> list[Any]:
        return []


app_tasks = AppTaskResolver()
