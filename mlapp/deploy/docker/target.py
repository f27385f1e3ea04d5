"""DockerTarget: run an app's image on a Docker engine."""

from __future__ import annotations

import getpass
import os
import time
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from datetime import datetime, timezone
from pathlib import Path
from queue import Empty, Queue
from threading import Thread
from typing import TYPE_CHECKING, Any, ClassVar
from urllib.error import HTTPError
from urllib.parse import urlsplit

import msgspec

from mlapp.deploy.docker import compose
from mlapp.deploy.docker.containers import FAILED, Containers, Record, Server, container_name, release
from mlapp.deploy.docker.settings import DockerSettings
from mlapp.deploy.target import DeployError, LogLine, Progress, Release, Replica, Shipment, Status, Target, silent
from mlapp.errors import MissingExtraError
from mlapp.images.engine import EngineError, address, connected

if TYPE_CHECKING:
    from docker.models.containers import Container

POLL = 0.2
LINES = 15
"""Lines of a failed container's log that are shown."""


class DockerTarget(Target[DockerSettings]):
    """One server on a Docker engine, behind a front that holds the port: see `mlapp.deploy.docker.front`."""

    name: ClassVar[str] = "docker"
    settings_type = DockerSettings
    needs_registry: ClassVar[bool] = False
    eject_formats: ClassVar[tuple[str, ...]] = ("compose",)

    def check(self) -> str:
        """The engine's version, and where it is."""
        with connected() as client:
            return f"engine {client.version()['Version']} at {client.api.base_url}"

    def render(self, shipment: Shipment) -> list[dict[str, Any]]:
        return [compose.project(container_name(self.app), shipment, self.settings, self.serve)]

    def apply(self, shipment: Shipment, *, progress: Progress = silent, take_over: bool = False) -> Release:
        return self._apply(shipment, progress, None)

    def status(self) -> Status:
        with self._containers() as containers:
            live = containers.live()
            url = self._url()
            replicas = tuple(_replica(server) for server in containers.servers() if server.is_running)
            return Status(
                app=self.app,
                target=self.name,
                release=release(live, self.app, live, url) if live else None,
                desired=1 if live else 0,
                ready=sum(replica.ready for replica in replicas),
                replicas=replicas,
                traffic={live.record.number: 100} if live else {},
                url=url if live else None,
                problems=tuple(_problems(containers, live)),
                place=f"Docker engine {address()}",
            )

    def releases(self) -> list[Release]:
        with self._containers() as containers:
            live = containers.live()
            return [release(server, self.app, live, self._url()) for server in containers.servers()]

    def rollback(self, to: int | None = None, *, progress: Progress = silent) -> Release:
        found = [each for each in self.releases() if each.state in ("live", "superseded")]
        live = next((each for each in found if each.state == "live"), None)
        before = [each for each in found if live is None or each.number < live.number]
        wanted = [each for each in found if each.number == to] if to is not None else before[-1:]
        if not wanted:
            listed = ", ".join(str(each.number) for each in found) or "none"
            raise DeployError(
                f"There is no release {to} of {self.app} to go back to." if to else "There is no release before this.",
                f"Kept: {listed}. See `mlapp releases --target docker`.",
            )
        return self._apply(wanted[0].shipment, progress, f"rollback to {wanted[0].number}")

    def delete(self, *, progress: Progress = silent) -> list[str]:
        removed = []
        with self._containers() as containers:
            front = containers.front()
            for container in [*([front] if front else []), *(server.container for server in containers.servers())]:
                progress(f"remove {container.name}")
                container.stop(timeout=compose.stop_seconds(self.serve))
                container.remove(force=True)
                removed.append(str(container.name))
            return removed + containers.remove_rest()

    def logs(self, *, follow: bool = False, tail: int | None = None, since: float | None = None) -> Iterator[LogLine]:
        """What the server prints; when followed, that of releases to come as well."""
        options: dict[str, Any] = {"tail": "all" if tail is None else tail}
        if since is not None:
            options["since"] = time.time() - since
        with self._containers() as containers:
            waiting = [server for server in containers.servers() if server.is_running]
            if not follow:
                for server in waiting:
                    yield from _lines(server, **options)
                return
            queue: Queue[LogLine] = Queue()
            seen: set[str] = set()
            while True:
                for server in containers.servers():
                    if server.is_running and server.name not in seen:
                        seen.add(server.name)
                        Thread(target=_follow, args=(server, queue, options), daemon=True).start()
                ends = time.monotonic() + 2
                while (left := ends - time.monotonic()) > 0:
                    with suppress(Empty):
                        yield queue.get(timeout=left)

    def predict(self, inputs: Any) -> dict[str, Any]:
        """The answer of `POST /predict`, asked at the published port."""
        body = msgspec.json.encode({"inputs": inputs})
        headers = {"Content-Type": "application/json"}
        if self.serve.api_keys:
            headers["X-API-Key"] = self.serve.api_keys[0]
        request = urllib.request.Request(f"{self._url()}/predict", body, headers)  # noqa: S310
        try:
            with urllib.request.urlopen(request, timeout=self.serve.timeout + 5) as answer:  # noqa: S310
                found: dict[str, Any] = msgspec.json.decode(answer.read())
        except HTTPError as error:
            raise DeployError(
                f"{self._url()}/predict answers {error.code}: {error.read(500).decode(errors='replace')}",
                "Send what the model's schema asks for.",
            ) from None
        except OSError as error:
            raise DeployError(
                f"{self._url()} does not answer: {error}", "See `mlapp status --target docker`, or deploy it."
            ) from None
        return found

    def eject(self, shipment: Shipment, folder: Path, format: str) -> list[Path]:
        import yaml

        file = folder / compose.FILE
        if file.exists():
            raise DeployError(f"{file} exists already.", "Remove it, or choose another folder.")
        folder.mkdir(parents=True, exist_ok=True)
        file.write_text(yaml.safe_dump(self.render(shipment)[0], sort_keys=False), encoding="utf-8")
        return [file]

    def _apply(self, shipment: Shipment, progress: Progress, note: str | None) -> Release:
        """Start the new beside the old, wait until it is ready, send connections to it, and only then end the old."""
        import docker.errors

        with self._containers() as containers:
            _require_image(containers, shipment.image, progress)
            before = containers.live()
            number = max((server.record.number for server in containers.servers()), default=0) + 1
            record = Record(
                number,
                datetime.now(timezone.utc),
                shipment.image,
                shipment.model_version,
                shipment.code_revision,
                list(shipment.example) if shipment.example is not None else None,
                getpass.getuser(),
                note,
            )
            try:
                server = containers.make_server(record)
            except docker.errors.APIError as error:
                if error.status_code == 409:
                    raise DeployError(
                        f"Another deploy of {self.app} is under way, or something else is called "
                        f"{containers.name}-{number}.",
                        "Wait for it; see `docker ps -a`.",
                    ) from error
                raise _refused(error, self.settings, shipment.image) from error
            try:
                progress(f"start {server.name}")
                server.container.start()
                self._await_ready(server)
                self._switch(containers, server, progress)
            except BaseException as error:
                self._switch_back(containers, before)
                _set_aside(server)
                if isinstance(error, docker.errors.APIError):
                    raise _refused(error, self.settings, server.name) from error
                raise
            if before is not None and before.is_running:
                progress(f"stop {before.name}")
                before.container.stop(timeout=compose.stop_seconds(self.serve))
            self._prune(containers, server)
            return release(server, self.app, server, self._url())

    def _await_ready(self, server: Server) -> None:
        """Run the image's own health check until it is content.

        Raises:
            DeployError: the container ended, or was not ready in time; with the end of its log.
        """
        ends = time.monotonic() + self.settings.ready_timeout
        command = _health_command(server)
        while True:
            server.container.reload()
            state = server.container.attrs["State"]
            if state["Status"] == "exited" or server.container.attrs["RestartCount"]:
                killed = " for want of memory: raise targets.docker.memory" if state.get("OOMKilled") else ""
                raise DeployError(
                    f"{server.name} ended with code {state['ExitCode']}{killed}; it said: {_tail(server.container)}",
                    "Mend what it names; the release before, if any, serves on.",
                )
            if state["Status"] == "running" and (
                command is None or server.container.exec_run(command, user="65532").exit_code == 0
            ):
                return
            if time.monotonic() > ends:
                said = _tail(server.container)
                raise DeployError(
                    f"{server.name} was not ready in {self.settings.ready_timeout:g} s; it said: {said}",
                    "Raise targets.docker.ready_timeout if it needs longer; the release before, if any, serves on.",
                )
            time.sleep(POLL)

    def _switch(self, containers: Containers, server: Server, progress: Progress) -> None:
        front = containers.front()
        if front is not None and containers.is_published(front):
            containers.point(front, server)
            if front.status != "running":
                front.start()
        else:
            progress(f"publish {self.settings.host}:{self.settings.port}")
            if front is not None:
                front.remove(force=True)
            containers.make_front(server.record.image, server)
        self._await_answer(containers, server)

    def _switch_back(self, containers: Containers, before: Server | None) -> None:
        """Let the front send connections to the release before again; a front without one goes."""
        front = containers.front()
        if front is not None and before is not None:
            containers.point(front, before)
        elif front is not None:
            front.remove(force=True)

    def _await_answer(self, containers: Containers, server: Server) -> None:
        ends = time.monotonic() + 15
        while True:
            try:
                with urllib.request.urlopen(f"{self._url()}/livez", timeout=5):  # noqa: S310
                    return
            except HTTPError:
                return
            except OSError as error:
                if time.monotonic() > ends:
                    front = containers.front()
                    if front is not None and (front.status != "running" or front.attrs["RestartCount"]):
                        raise DeployError(
                            f"The front {front.name}, which holds the port, does not run; it said: {_tail(front)}",
                            "The image needs a `python` on its PATH: 3.8 or newer.",
                        ) from error
                    raise DeployError(
                        f"{server.name} is ready, but {self._url()} does not answer: {error}",
                        "Check targets.docker.host and the machine's firewall.",
                    ) from error
                time.sleep(POLL / 2)

    def _prune(self, containers: Containers, live: Server) -> None:
        others = [server for server in containers.servers() if server.name != live.name]
        good = [server for server in others if not server.is_failed]
        kept = {server.name for server in good[-self.settings.keep :]} | {
            server.name for server in others if server.is_failed and server.record.number > live.record.number - 3
        }
        for server in others:
            if server.name not in kept:
                server.container.remove(force=True)

    def _url(self) -> str:
        """Where it answers, as seen from here: the engine may be another machine's."""
        engine = urlsplit(os.environ.get("DOCKER_HOST", "")).hostname
        host = self.settings.host if self.settings.host not in ("0.0.0.0", "") else engine or "127.0.0.1"  # noqa: S104
        scheme = "https" if self.serve.tls_cert else "http"
        return f"{scheme}://{host}:{self.settings.port}"

    @contextmanager
    def _containers(self) -> Iterator[Containers]:
        try:
            with connected() as client:
                yield Containers(client, self.app, self.settings, self.serve)
        except MissingExtraError:
            raise MissingExtraError("The target docker", "docker") from None
        except EngineError as error:
            raise DeployError(error.what, error.todo) from error


def _require_image(containers: Containers, image: str, progress: Progress) -> None:
    import docker.errors

    try:
        containers.client.images.get(image)
    except docker.errors.ImageNotFound:
        if "/" not in image and "@" not in image:
            raise DeployError(f"The engine has no image {image}.", "Build it: mlapp build.") from None
        progress(f"pull {image}")
        try:
            containers.client.images.pull(image)
        except docker.errors.APIError as error:
            raise DeployError(
                f"The image {image} cannot be pulled: {error.explanation or error}",
                "Check its name, the network, and `docker login`.",
            ) from error


def _health_command(server: Server) -> list[str] | None:
    """The health check of the image, as a command; None when it has none."""
    check = (server.container.attrs["Config"].get("Healthcheck") or {}).get("Test") or ["NONE"]
    if check[0] == "CMD":
        return list(check[1:])
    return ["/bin/sh", "-c", check[1]] if check[0] == "CMD-SHELL" else None


def _set_aside(server: Server) -> None:
    """Stop a release that failed, and keep it to be looked at."""
    import docker.errors

    try:
        server.container.stop(timeout=2)
        server.container.rename(f"{server.name}{FAILED}")
    except docker.errors.APIError:
        server.container.remove(force=True)


def _refused(error: Any, settings: DockerSettings, what: str) -> DeployError:
    text = str(error.explanation or error)
    if "port is already allocated" in text or "address already in use" in text:
        return DeployError(
            f"Port {settings.port} of {settings.host} is taken.", "Choose another: targets.docker.port in mlapp.yaml."
        )
    return DeployError(f"The engine refuses {what}: {text}", "Mend what it names.")


def _replica(server: Server) -> Replica:
    attrs = server.container.attrs
    health = (attrs["State"].get("Health") or {}).get("Status", "")
    started = attrs["State"]["StartedAt"]
    return Replica(
        name=server.name,
        ready=health == "healthy" or (health == "starting" and _is_ready(server)),
        state=health or attrs["State"]["Status"],
        release=server.record.number,
        restarts=attrs["RestartCount"],
        node=attrs.get("Node", {}).get("Name"),
        started=datetime.fromisoformat(started[:19]).replace(tzinfo=timezone.utc),
    )


def _is_ready(server: Server) -> bool:
    command = _health_command(server)
    return command is None or server.container.exec_run(command).exit_code == 0


def _problems(containers: Containers, live: Server | None) -> Iterator[str]:
    front = containers.front()
    if front is not None and front.status != "running":
        yield f"the front {front.name} is {front.status}: docker start {front.name}"
    if live is not None and not live.is_running:
        yield f"{live.name} is {live.container.status}; it said: {_tail(live.container)}"


def _tail(container: Container) -> str:
    lines = container.logs(tail=LINES).decode(errors="replace").splitlines()
    return " | ".join(line.strip() for line in lines if line.strip()) or "nothing"


def _lines(server: Server, *, follow: bool = False, **options: Any) -> Iterator[LogLine]:
    # The SDK follows whatever is streamed, unless it is told not to.
    for raw in server.container.logs(stream=True, follow=follow, timestamps=True, **options):
        for text in raw.decode(errors="replace").splitlines():
            stamp, _, line = text.partition(" ")
            yield LogLine(server.name, line, datetime.fromisoformat(stamp[:19]).replace(tzinfo=timezone.utc))


def _follow(server: Server, queue: Queue[LogLine], options: dict[str, Any]) -> None:
    for line in _lines(server, follow=True, **options):
        queue.put(line)
