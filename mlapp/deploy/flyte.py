"""Flyte as a target: registers the app's workflows and schedules. There is no server."""

from __future__ import annotations

from functools import cached_property
from typing import TYPE_CHECKING, Any, ClassVar

from mlapp.config import Section
from mlapp.deploy.target import DeployError, Event, Release, Shipment, Status, Target, ignore_progress
from mlapp.engines import open_project_engine
from mlapp.project import Project
from mlapp.reporting import Reporter

if TYPE_CHECKING:
    from mlapp.flyte.interface import Engine


class FlyteSettings(Section, frozen=True):
    """`targets.flyte:` has no settings. `flyte:` has project, domain and image, because `--remote` uses them too."""


class FlyteTarget(Target[FlyteSettings]):
    """Registers the app. A release is a registered version of code, image and settings together.

    Flyte keeps all versions forever. The live one is the version that the schedules run, or the newest without any.
    """

    name: ClassVar[str] = "flyte"
    settings_type: ClassVar[type[Section]] = FlyteSettings
    needs_registry: ClassVar[bool] = False
    ships_image: ClassVar[bool] = False
    unsupported_options: ClassVar[frozenset[str]] = frozenset({"--force-conflicts", "--model"})

    project: Project | None = None

    @cached_property
    def engine(self) -> Engine:
        return open_project_engine(self.project or Project.find())

    def render(self, shipment: Shipment) -> list[dict[str, Any]]:
        return self.engine.render_documents(shipment.image)

    def apply(self, shipment: Shipment, *, progress: Reporter = ignore_progress, take_over: bool = False) -> Release:
        registration = self.engine.register_project(shipment.image or self.engine.build_image(progress), progress)
        summary = f"{len(registration.created)} new" if registration.created else "registered already"
        progress(f"version {registration.version}: {summary}")
        self.engine.deploy_schedules(registration, progress)
        release = next(candidate for candidate in self.releases() if candidate.note == registration.version)
        return Release(**{**vars(release), "shipment": shipment})

    def status(self) -> Status:
        releases = self.releases()
        live = next((release for release in releases if release.state == "live"), None)
        schedules = self.engine.deployed_schedules() if live else []
        events, problems = [], []
        for run in self.engine.list_runs(limit=10) if live else ():
            if run.started is not None:
                kind = "warning" if run.phase == "failed" else "normal"
                text = f"{run.workflow}{f' by {run.schedule}' if run.schedule else ''}"
                events.append(Event(run.started, kind, f"run/{run.id}", run.phase, text))  # type: ignore[arg-type]
        problems += [
            f"schedule {state.name} is not active"
            for state in schedules
            if not state.active
            and live
            and state.version == live.note  # a schedule of an older version is no longer declared
        ]
        return Status(
            app=self.app,
            target=self.name,
            release=live,
            events=tuple(reversed(events)),
            problems=tuple(problems),
            scaling=", ".join(f"{state.name}: {state.when}" for state in schedules if state.active) or None,
            place=self.engine.place,
        )

    def rollback(self, to: int | None = None, *, progress: Reporter = ignore_progress) -> Release:
        releases = self.releases()
        live = next((release for release in releases if release.state == "live"), None)
        earlier = [release for release in releases if live and release.number < live.number]
        goal = (
            next((release for release in releases if release.number == to), None)
            if to
            else earlier[-1]
            if earlier
            else None
        )
        if goal is None:
            number_list = ", ".join(str(release.number) for release in releases) or "none"
            raise DeployError(
                f"There is no release {to or 'before the live one'} of {self.app}.", f"It has: {number_list}."
            )
        if not self.engine.activate_version(goal.note or "", progress):
            raise DeployError(
                f"Release {goal.number} of {self.app} has no active schedule, so there is nothing to roll back.",
                "To run that code, check it out with git, then: mlapp train --remote.",
            )
        return Release(**{**vars(goal), "state": "live"})

    def delete(self, *, progress: Reporter = ignore_progress) -> list[str]:
        removed = self.engine.deactivate_schedules()
        progress("Flyte keeps the registered code, but no longer runs any of it on a schedule")
        return removed

    def releases(self) -> list[Release]:
        versions = self.engine.list_versions()
        active = self.engine.active_version() or (versions[-1][0] if versions else None)
        return [
            Release(
                number=number,
                app=self.app,
                target=self.name,
                shipment=Shipment(self.app, "", code_revision=None),
                created=created,
                state="live" if version == active else "superseded",
                note=version,
            )
            for number, (version, created) in enumerate(versions, 1)
        ]
