"""DockerTarget: run an app's image on a Docker engine."""

from __future__ import annotations

import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import datetime, timezone
from pathlib import Path
from typing import Any, ClassVar
from urllib.error import HTTPError

import msgspec

from mlapp.deploy.docker import compose, logs
from mlapp.deploy.docker.containers import (
    Containers,
    Server,
    is_server_healthy,
    make_docker_container_name,
    make_docker_container_release,
)
from mlapp.deploy.docker.rollout import roll_out
from mlapp.deploy.docker.settings import DockerSettings
from mlapp.deploy.local_user import read_local_user
from mlapp.deploy.release_record import make_release_record
from mlapp.deploy.target import DeployError, LogLine, Release, Replica, Shipment, Status, Target, ignore_progress
from mlapp.errors import MissingExtraError
from mlapp.images.engine import EngineError, connect_image_engine, find_engine_address
from mlapp.reporting import Reporter
from mlapp.request_body import RequestBody


class DockerTarget(Target[DockerSettings]):
    """One server on a Docker engine, behind a proxy that publishes the port: see `mlapp.deploy.docker.tcp_proxy`."""

    name: ClassVar[str] = "docker"
    settings_type = DockerSettings
    needs_registry: ClassVar[bool] = False
    eject_formats: ClassVar[tuple[str, ...]] = ("compose",)

    def check(self) -> str:
        """The engine's version and location. Checks the variables first."""
        compose.make_compose_environment(self.settings)
        with connect_image_engine() as client:
            return f"engine {client.version()['Version']} at {client.api.base_url}"

    def render(self, shipment: Shipment) -> list[dict[str, Any]]:
        return [compose.make_compose_file(make_docker_container_name(self.app), shipment, self.settings, self.serve)]

    def apply(self, shipment: Shipment, *, progress: Reporter = ignore_progress, take_over: bool = False) -> Release:
        return self._apply_shipment(shipment, progress, None)

    def status(self) -> Status:
        with self._open_containers() as containers:
            live = containers.find_live_server()
            replicas = tuple(_make_docker_replica(server) for server in containers.list_servers() if server.is_running)
            return Status(
                app=self.app,
                target=self.name,
                release=make_docker_container_release(live, self.app, live, containers.url) if live else None,
                desired=1 if live else 0,
                ready=sum(replica.ready for replica in replicas),
                replicas=replicas,
                traffic={live.record.number: 100} if live else {},
                url=containers.url if live else None,
                problems=tuple(_find_docker_problems(containers, live)),
                place=f"Docker engine {find_engine_address()}",
            )

    def releases(self) -> list[Release]:
        with self._open_containers() as containers:
            live = containers.find_live_server()
            return [
                make_docker_container_release(server, self.app, live, containers.url)
                for server in containers.list_servers()
            ]

    def rollback(self, to: int | None = None, *, progress: Reporter = ignore_progress) -> Release:
        successful = [release for release in self.releases() if release.state in ("live", "superseded")]
        live = next((release for release in successful if release.state == "live"), None)
        earlier = [release for release in successful if live is None or release.number < live.number]
        chosen = [release for release in successful if release.number == to] if to is not None else earlier[-1:]
        if not chosen:
            number_list = ", ".join(str(release.number) for release in successful) or "none"
            raise DeployError(
                f"There is no release {to} of {self.app} to go back to." if to else "There is no earlier release.",
                f"Choose with --to: {number_list}."
                if to
                else "Deploy a second release first; see `mlapp releases --target docker`.",
            )
        return self._apply_shipment(chosen[0].shipment, progress, f"rollback to {chosen[0].number}")

    def delete(self, *, progress: Reporter = ignore_progress) -> list[str]:
        removed = []
        with self._open_containers() as containers:
            for container in [*containers.list_proxies(), *(server.container for server in containers.list_servers())]:
                progress(f"remove {container.name}")
                container.stop(timeout=compose.compute_stop_timeout(self.serve))
                container.remove(force=True)
                removed.append(str(container.name))
            return removed + containers.remove_network_and_volume()

    def logs(self, *, follow: bool = False, tail: int | None = None, since: float | None = None) -> Iterator[LogLine]:
        """Output of the server; with `follow`, also of later releases."""
        with self._open_containers() as containers:
            yield from logs.read_log_lines(containers, follow=follow, tail=tail, since=since)

    def predict(self, inputs: Any) -> dict[str, Any]:
        """The response to `POST /predict` at the published port."""
        url = self.settings.public_url(self.serve)
        body = RequestBody.of(inputs)
        headers = {"Content-Type": body.media_type}
        if self.serve.api_keys:
            headers["X-API-Key"] = self.serve.api_keys[0]
        request = urllib.request.Request(f"{url}/predict", body.content, headers)  # noqa: S310
        try:
            with urllib.request.urlopen(request, timeout=self.serve.timeout + 5) as response:  # noqa: S310
                predictions: dict[str, Any] = msgspec.json.decode(response.read())
        except HTTPError as error:
            raise DeployError(
                f"{url}/predict answers {error.code}: {error.read(500).decode(errors='replace')}",
                "Send inputs that match the model's schema.",
            ) from None
        except OSError as error:
            raise DeployError(
                f"{url} does not answer: {error}", "See `mlapp status --target docker`, or deploy it."
            ) from None
        return predictions

    def eject(self, shipment: Shipment, folder: Path, format: str) -> list[Path]:
        import yaml

        file = folder / compose.FILE
        if file.exists():
            raise DeployError(f"{file} already exists.", "Remove it, or choose another folder.")
        folder.mkdir(parents=True, exist_ok=True)
        file.write_text(yaml.safe_dump(self.render(shipment)[0], sort_keys=False), encoding="utf-8")
        return [file]

    def _apply_shipment(self, shipment: Shipment, progress: Reporter, note: str | None) -> Release:
        with self._open_containers() as containers:
            number = max((server.record.number for server in containers.list_servers()), default=0) + 1
            record = make_release_record(shipment, number, read_local_user(), note)
            server = roll_out(containers, record, progress)
            return make_docker_container_release(server, self.app, server, containers.url)

    @contextmanager
    def _open_containers(self) -> Iterator[Containers]:
        try:
            with connect_image_engine() as client:
                yield Containers(client, self.app, self.settings, self.serve)
        except MissingExtraError:
            raise MissingExtraError("The target docker", "docker") from None
        except EngineError as error:
            raise DeployError(error.what, error.todo) from error


def _make_docker_replica(server: Server) -> Replica:
    attrs = server.container.attrs
    health = (attrs["State"].get("Health") or {}).get("Status", "")
    started = attrs["State"]["StartedAt"]
    return Replica(
        name=server.name,
        ready=health == "healthy" or (health in ("", "starting") and is_server_healthy(server)),
        state=health or attrs["State"]["Status"],
        release=server.record.number,
        restarts=attrs["RestartCount"],
        node=attrs.get("Node", {}).get("Name"),
        started=datetime.fromisoformat(started[:19]).replace(tzinfo=timezone.utc),
    )


def _find_docker_problems(containers: Containers, live: Server | None) -> Iterator[str]:
    proxies = containers.list_proxies()
    if proxies and (len(proxies) > 1 or proxies[0].name != containers.name or live is None):
        yield f"the proxy {proxies[0].name} is left from an interrupted deploy: deploy again"
    elif proxies and proxies[0].status != "running":
        yield f"the proxy {proxies[0].name} is {proxies[0].status}: docker start {proxies[0].name}"
    if live is not None and not live.is_running:
        yield f"{live.name} is {live.container.status}; its last output: {logs.read_last_log_lines(live.container)}"
