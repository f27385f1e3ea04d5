"""The containers of an app on an engine: how they are found, made and told apart."""

from __future__ import annotations

import contextlib
import io
import re
import tarfile
import time
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any

import msgspec

from mlapp.config import Serve
from mlapp.deploy.docker import compose, front
from mlapp.deploy.docker.settings import DockerSettings
from mlapp.deploy.target import Release, Shipment, State

if TYPE_CHECKING:
    from docker import DockerClient
    from docker.models.containers import Container
    from docker.models.networks import Network

APP = "mlapp.app"
ROLE = "mlapp.role"
RELEASE = "mlapp.release"
FAILED = "-failed"
AMBIGUOUS = 20
"""Times that a start is tried while the engine has two networks of the app's name."""
PROGRAM = Path(front.__file__)


class Record(msgspec.Struct, frozen=True, omit_defaults=True):
    """What a container's label keeps of its release."""

    number: int
    created: datetime
    image: str
    model_version: str | None = None
    code_revision: str | None = None
    example: list[Any] | None = None
    by: str | None = None
    note: str | None = None


@dataclass(frozen=True)
class Server:
    """A container that serves, or served, a release."""

    container: Container
    record: Record

    @property
    def name(self) -> str:
        return str(self.container.name)

    @property
    def is_failed(self) -> bool:
        return self.name.endswith(FAILED)

    @property
    def is_running(self) -> bool:
        return bool(self.container.status == "running")


class Containers:
    """The containers of one app."""

    def __init__(self, client: DockerClient, app: str, settings: DockerSettings, serve: Serve) -> None:
        self.client = client
        self.app = app
        self.name = container_name(app)
        self.settings = settings
        self.serve = serve
        self.port = serve.port or 8000
        self.url = settings.url(serve)

    def servers(self) -> list[Server]:
        """Those of all releases that are kept, the oldest first."""
        found = self.client.containers.list(all=True, filters={"label": [f"{APP}={self.app}", f"{ROLE}=server"]})
        servers = [Server(each, msgspec.json.decode(each.labels[RELEASE], type=Record)) for each in found]
        return sorted(servers, key=lambda server: server.record.number)

    def front(self) -> Container | None:
        """The front, if there is one."""
        found = self.client.containers.list(all=True, filters={"label": [f"{APP}={self.app}", f"{ROLE}=front"]})
        return found[0] if found else None

    def live(self) -> Server | None:
        """The server that the front sends connections to."""
        holder = self.front()
        if holder is None:
            return None
        stream, _ = holder.get_archive(f"{front.STATE}/{front.BACKEND}")
        with tarfile.open(fileobj=io.BytesIO(b"".join(stream))) as archive:
            file = archive.extractfile(front.BACKEND)
            name = file.read().decode().partition(":")[0] if file else ""
        return next((server for server in self.servers() if server.name == name), None)

    def make_server(self, record: Record) -> Server:
        """Create the container of a release; it is not started."""
        settings = self.settings
        limits: dict[str, Any] = {}
        if settings.cpu is not None:
            limits["nano_cpus"] = int(settings.cpu * 1e9)
        if settings.memory is not None:
            limits["mem_limit"] = settings.memory
        container = self.client.containers.create(
            record.image,
            name=f"{self.name}-{record.number}",
            environment=compose.environment(settings),
            labels={**self._labels("server"), RELEASE: msgspec.json.encode(record).decode()},
            network=self._network(),
            tmpfs={"/tmp": f"size={settings.tmp},mode=1777"},  # noqa: S108
            stop_signal="SIGTERM",
            **self._hardened(),
            **limits,
        )
        return Server(container, record)

    def start(self, container: Container) -> None:
        """Start a container. While two deploys make the app's network at once there may be two for a moment."""
        import docker.errors

        for left in reversed(range(AMBIGUOUS)):
            try:
                container.start()
                return
            except docker.errors.APIError as error:
                if not left or "is ambiguous" not in str(error):
                    raise
                time.sleep(0.1)

    def make_front(self, image: str, to: Server) -> Container:
        """Create and start the front, which sends connections to a server.

        Its program comes from here and not from the image, whose mlapp may be older, and needs Python alone.
        """
        made = self.client.containers.create(
            image,
            name=self.name,
            entrypoint=["python", "-I", f"{front.STATE}/{PROGRAM.name}", str(self.port)],
            command=[],
            labels=self._labels("front"),
            network=self._network(),
            ports={f"{self.port}/tcp": (self.settings.host, self.settings.port)},
            volumes={f"{self.name}-state": {"bind": front.STATE, "mode": "rw"}},
            healthcheck={"test": ["NONE"]},
            mem_limit="128m",
            **self._hardened(),
        )
        try:
            self._put(made, PROGRAM.name, PROGRAM.read_bytes())
            self.point(made, to)
            self.start(made)
        except BaseException:
            made.remove(force=True)
            raise
        return made

    def point(self, holder: Container, to: Server) -> None:
        """Let the front send new connections to a server."""
        self._put(holder, front.BACKEND, f"{to.name}:{self.port}".encode())
        holder.reload()
        if holder.status == "running":
            holder.kill("SIGHUP")

    def is_published(self, holder: Container) -> bool:
        """Whether the front holds the port of the settings."""
        bindings = (holder.attrs["HostConfig"].get("PortBindings") or {}).get(f"{self.port}/tcp") or []
        return bindings == [{"HostIp": self.settings.host, "HostPort": str(self.settings.port)}]

    def remove_rest(self) -> list[str]:
        """Remove the network and the front's volume; the names of what was there."""
        import docker.errors

        removed = []
        for network in self._networks():
            network.remove()
            removed.append(self._network_name)
        with contextlib.suppress(docker.errors.NotFound):
            self.client.volumes.get(f"{self.name}-state").remove()
            removed.append(f"{self.name}-state")
        return removed

    def _put(self, holder: Container, name: str, content: bytes) -> None:
        packed = io.BytesIO()
        with tarfile.open(fileobj=packed, mode="w") as archive:
            entry = tarfile.TarInfo(name)
            entry.size, entry.mode = len(content), 0o644
            archive.addfile(entry, io.BytesIO(content))
        holder.put_archive(front.STATE, packed.getvalue())

    @property
    def _network_name(self) -> str:
        return f"{self.name}-mlapp"

    def _network(self) -> str:
        """The id of the app's network, which is made if there is none."""
        import docker.errors

        if not self._networks():
            with contextlib.suppress(docker.errors.APIError):  # another deploy was quicker
                self.client.networks.create(self._network_name, check_duplicate=True, labels={APP: self.app})
        first, *others = self._networks()
        for network in others:  # an engine lets two deploys make networks of one name at once
            with contextlib.suppress(docker.errors.APIError):
                network.remove()
        return str(first.id)

    def _networks(self) -> list[Network]:
        """The app's networks, the oldest first."""
        found = self.client.networks.list(names=[f"^{self._network_name}$"])
        return sorted(found, key=lambda network: (network.attrs["Created"], str(network.id)))

    def _labels(self, role: str) -> dict[str, str]:
        return {APP: self.app, ROLE: role}

    def _hardened(self) -> dict[str, Any]:
        return {
            "read_only": True,
            "cap_drop": ["ALL"],
            "security_opt": ["no-new-privileges:true"],
            "pids_limit": self.settings.processes,
            "restart_policy": {"Name": self.settings.restart},
        }


def container_name(app: str) -> str:
    """The app's name as docker and compose allow it."""
    return re.sub(r"[^a-z0-9]+", "-", app.lower()).strip("-") or "app"


def release(server: Server, app: str, live: Server | None, url: str | None) -> Release:
    """The release of a server."""
    record = server.record
    is_live = live is not None and live.name == server.name
    state: State = "failed" if server.is_failed else "live" if is_live else "superseded"
    shipment = Shipment(
        app,
        record.image,
        model_version=record.model_version,
        code_revision=record.code_revision,
        example=record.example,
    )
    shown = url if is_live else None
    return Release(record.number, app, "docker", shipment, record.created, state, record.by, record.note, shown)
