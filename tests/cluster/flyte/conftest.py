"""A real Flyte, named by the caller:

MLAPP_TEST_FLYTE_CONFIG   a flytekit configuration
MLAPP_TEST_FLYTE_IMAGE    an image with mlapp-kit[flyte,sklearn] in it; or MLAPP_TEST_REGISTRY, to have one built
MLAPP_TEST_FLYTE_PROJECT  and _DOMAIN, where they are not flytesnacks and development
MLAPP_TEST_KUBECONFIG     for the tests that read pods

Each test has an app with a name of its own. What it leaves is stopped, switched off and archived, as Flyte deletes
nothing.
"""

from __future__ import annotations

import os
import threading
import uuid
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from mlapp.errors import MlappError
from mlapp.flyte.engine import FlytekitEngine
from mlapp.flyte.interface import Registration, Run
from mlapp.project import Project

LONGEST_RUN = 420.0
"""Seconds that one run may take: a slow cluster fails a test with the run's URL, and not by the timeout of pytest."""


class Cluster:
    """Makes engines of projects, and cleans up what they registered and started."""

    def __init__(self, write: Callable[..., Path]) -> None:
        self._write = write
        self._engines: list[FlytekitEngine] = []
        self.name = f"mlapp-test-{uuid.uuid4().hex[:8]}"

    def open_project(self, text: str, **files: str) -> FlytekitEngine:
        """The engine of a project with this app; `NAME` in its text is a name that no other test has."""
        root = self._write(text.replace("NAME", self.name), requirements__txt="scikit-learn\n", **files)
        self._engines.append(FlytekitEngine(Project.find(root)))
        return self._engines[-1]

    def clean_up(self) -> None:
        for engine in self._engines:
            for run in engine.list_runs(limit=50):
                if not run.is_over:
                    engine.abort_run(run.id, "the test is over")
            engine.deactivate_schedules()
            archive_entities(engine)


def archive_entities(engine: FlytekitEngine) -> None:
    """Hide the app's tasks, workflows and launch plans in Flyte's console."""
    from flytekit.models.common import NamedEntityIdentifier
    from flytekit.models.core.identifier import ResourceType
    from flytekit.models.named_entity import NamedEntityMetadata, NamedEntityState

    kinds = {"task": ResourceType.TASK, "workflow": ResourceType.WORKFLOW, "launch plan": ResourceType.LAUNCH_PLAN}
    connection, settings = engine.connection, engine.connection.settings
    for document in engine.render_documents("unused:0"):
        place = NamedEntityIdentifier(settings.project, settings.domain, document["id"]["name"])
        metadata = NamedEntityMetadata("made by a test", NamedEntityState.ARCHIVED)
        try:
            connection.call_client(connection.client.update_named_entity, kinds[document["kind"]], place, metadata)
        except MlappError as error:
            if "NOT_FOUND" not in error.what:  # a test that registers nothing, or not all
                raise


@pytest.fixture
def cluster(project: Callable[..., Path], monkeypatch: pytest.MonkeyPatch) -> Iterator[Cluster]:
    monkeypatch.setenv("FLYTECTL_CONFIG", os.environ["MLAPP_TEST_FLYTE_CONFIG"])
    if "MLAPP_TEST_FLYTE_IMAGE" in os.environ:
        monkeypatch.setenv("MLAPP_FLYTE__IMAGE", os.environ["MLAPP_TEST_FLYTE_IMAGE"])
    else:
        monkeypatch.setenv("MLAPP_IMAGE__NAME", f"{os.environ['MLAPP_TEST_REGISTRY']}/mlapp-test/tasks")
    monkeypatch.setenv("MLAPP_FLYTE__PROJECT", os.environ.get("MLAPP_TEST_FLYTE_PROJECT", "flytesnacks"))
    monkeypatch.setenv("MLAPP_FLYTE__DOMAIN", os.environ.get("MLAPP_TEST_FLYTE_DOMAIN", "development"))
    if "MLAPP_TEST_KUBECONFIG" in os.environ:
        monkeypatch.setenv("KUBECONFIG", os.environ["MLAPP_TEST_KUBECONFIG"])
    cluster = Cluster(project)
    yield cluster
    cluster.clean_up()


def register(engine: FlytekitEngine) -> Registration:
    return engine.register_project(engine.build_image(print), print)


def follow(engine: FlytekitEngine, run: str, tell: Callable[[Run], Any] = lambda run: None) -> Run:
    """Follow a run to its end. What it says goes into the test's output, and a run that hangs is aborted."""

    def say(run: Run) -> None:
        print(f"{run.url}: {run.phase}", *(f"{step.name} {step.phase} {step.waits_for or ''}" for step in run.steps))
        tell(run)

    late = threading.Timer(LONGEST_RUN, engine.abort_run, (run, f"it took more than {LONGEST_RUN:g} s"))
    late.start()
    try:
        return engine.follow_run(run, say, print)
    finally:
        late.cancel()
