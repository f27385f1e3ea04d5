"""The engine that stands on flytekit."""

from __future__ import annotations

import hashlib
import tempfile
from collections.abc import Callable, Mapping, Sequence
from datetime import datetime
from functools import cached_property
from pathlib import Path
from typing import Any

import msgspec

from mlapp.flyte import fetch, files, image, register, runs, schedules, source, stages
from mlapp.flyte.connection import Connection
from mlapp.flyte.interface import Engine, Registration, Run, ScheduleState, Tell, Workflow
from mlapp.flyte.source import Source
from mlapp.flyte.workflow import predict_inputs, train_inputs
from mlapp.pipeline import bind
from mlapp.project import Project
from mlapp.store import ModelVersion


class FlytekitEngine(Engine):
    """Runs the app of a project on the Flyte that flytekit's configuration names."""

    def __init__(self, project: Project) -> None:
        self.project = project
        self.connection = Connection(project.settings.flyte)

    @cached_property
    def source(self) -> Source:
        return source.of_project(self.project)

    def build(self, tell: Tell) -> str:
        return image.build(self.project, tell)

    def register(self, image: str, tell: Tell) -> Registration:
        return register.register(self.connection, self.project, image, tell)

    def run(self, workflow: Workflow, parameters: Mapping[str, Any], registration: Registration, **given: Any) -> Run:
        own = train_inputs(self.source) if workflow == "train" else predict_inputs(self.source)
        bound = bind([input.parameter for input in own], parameters)
        values = {input.name: input.encode(bound[input.parameter.stage][input.parameter.name]) for input in own}
        kinds = {input.name: input.kind for input in own}
        plan = f"{self.source.app.name}.{workflow}"
        if workflow == "predict":
            values["model"] = self._uploaded(given["version"])
        run = runs.start(self.connection, plan, registration.version, values, kinds)
        return Run(run, plan, registration.version, "queued", self.connection.console(run))

    def watch(self, run: str, tell: Callable[[Run], None], say: Tell = lambda text: None) -> Run:
        return runs.watch(self.connection, run, tell, say=say)

    def fetch(self, run: str) -> ModelVersion:
        return fetch.fetch_model(self.connection, run, self.project.store, self.project.name)

    def fetch_scheduled(self, run: Run) -> ModelVersion:
        """As `fetch`, and promote the model if it is better by its schedule's `promote_if`."""
        schedule = self.source.app.schedules.get(run.schedule or "")
        promote_if = (schedule.promote_if if schedule else None) or ""
        return fetch.fetch_model(self.connection, run.id, self.project.store, self.project.name, promote_if)

    def logs(self, run: str) -> list[tuple[str, str]]:
        """Step and link of each log that Flyte links to."""
        return runs.logs(self.connection, run)

    def predictions(self, run: str) -> Any:
        """The predictions of a run of `<app>.predict`, as a DataFrame."""
        return fetch.fetch_predictions(self.connection, run)

    def runs(self, *, limit: int = 20, schedule: str | None = None) -> Sequence[Run]:
        return runs.recent(self.connection, self.project.name, limit=limit, schedule=schedule)

    def show(self, run: str) -> Run:
        return runs.show(self.connection, run)

    def abort(self, run: str, reason: str) -> None:
        runs.abort(self.connection, run, reason)

    def schedules(self) -> Sequence[ScheduleState]:
        return schedules.states(self.connection, self.source)

    def schedule(self, name: str, active: bool) -> ScheduleState:
        return schedules.switch(self.connection, self.source, name, active)

    def versions(self) -> list[tuple[str, datetime]]:
        """The registered versions and when each was registered, from old to new."""
        return schedules.registered(self.connection, f"{self.project.name}.train")

    def active_version(self) -> str | None:
        """The version that the active schedules run; None when none is active."""
        running = schedules.active(self.connection, self.project.name)
        return next((str(plan.id.version) for plan in running.values()), None)

    def activate(self, version: str, tell: Tell) -> list[str]:
        """Let the active schedules run another registered version; the names of those that do."""
        return schedules.move(self.connection, self.project.name, version, tell)

    def deactivate_all(self) -> list[str]:
        """Switch all schedules off; the names of those that were on."""
        return schedules.stop(self.connection, self.project.name)

    def _uploaded(self, version: ModelVersion) -> Any:
        """A version of the store as the input `model`: a folder in Flyte's object store."""
        from flytekit.models.core.types import BlobType
        from flytekit.models.literals import Blob, BlobMetadata, Literal, Scalar

        manifest = msgspec.json.encode(version.manifest)
        root = hashlib.sha256(manifest).hexdigest()[:32]
        with tempfile.TemporaryDirectory() as folder:
            file = Path(folder) / stages.MANIFEST
            file.write_bytes(manifest)
            url = files.upload(self.connection, file, stages.MANIFEST, root)
        for name in version.manifest.files:
            files.upload(self.connection, version.files / name, f"{stages.FILES}/{name}", root)
        kind = BlobType(format="", dimensionality=BlobType.BlobDimensionality.MULTIPART)
        return Literal(scalar=Scalar(blob=Blob(BlobMetadata(kind), url.removesuffix(f"/{stages.MANIFEST}"))))
