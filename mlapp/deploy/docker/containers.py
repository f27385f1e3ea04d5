"""Finds, creates and starts the containers of an app on an engine, and checks whether they are ready."""

from __future__ import annotations

import contextlib
import io
import re
import tarfile
import time
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import msgspec

from mlapp.config import Serve
from mlapp.deploy.docker import compose, tcp_proxy
from mlapp.deploy.docker.settings import DockerSettings
from mlapp.deploy.release_record import ReleaseRecord
from mlapp.deploy.target import DeployError, Release, State
from mlapp.process_identity import has_process_ended, read_process_identity

if TYPE_CHECKING:
    from docker import DockerClient
    from docker.models.containers import Container
    from docker.models.networks import Network


APP = "mlapp.app"
ROLE = "mlapp.role"
RELEASE = "mlapp.release"
DEPLOYER = "mlapp.deployer"
"""The label with the identity of the deploying process."""
FAILED_SUFFIX = "-failed"
MAX_START_ATTEMPTS = 20
"""Maximum attempts to start a container while the engine has two networks of the app's name."""
PROXY_PROGRAM = Path(tcp_proxy.__file__)


@dataclass(frozen=True)
class Server:
    """A container that serves, or served, a release."""

    container: Container
    record: ReleaseRecord

    @property
    def name(self) -> str:
        return str(self.container.name)

    @property
    def is_failed(self) -> bool:
        return self.name.endswith(FAILED_SUFFIX)

    @property
    def is_abandoned(self) -> bool:
        """Whether the process that deployed it has certainly ended."""
        return has_process_ended(self.container.labels.get(DEPLOYER, ""))

    @property
    def is_running(self) -> bool:
        return bool(self.container.status == "running")


class Containers:
    """The containers of one app."""

    def __init__(self, client: DockerClient, app: str, settings: DockerSettings, serve: Serve) -> None:
        self.client = client
        self.app = app
        self.name = make_docker_container_name(app)
        self.settings = settings
        self.serve = serve
        self.port = serve.port or 8000
        self.url = settings.public_url(serve)

    def list_servers(self) -> list[Server]:
        """The servers of all kept releases, oldest first."""
        containers = self.client.containers.list(all=True, filters={"label": [f"{APP}={self.app}", f"{ROLE}=server"]})
        servers = [
            Server(container, msgspec.json.decode(container.labels[RELEASE], type=ReleaseRecord))
            for container in containers
        ]
        return sorted(servers, key=lambda server: server.record.number)

    def list_proxies(self) -> list[Container]:
        """The proxies, the one in use first. There are two while the port changes, or after that was interrupted."""
        containers = self.client.containers.list(all=True, filters={"label": [f"{APP}={self.app}", f"{ROLE}=front"]})
        return sorted(containers, key=lambda proxy: (proxy.status != "running", proxy.name != self.name))

    def find_proxy(self) -> Container | None:
        """The proxy's container, or None."""
        return next(iter(self.list_proxies()), None)

    def read_proxy_backend(self, proxy: Container) -> str | None:
        """The name of the container to which the proxy sends connections. None if it was never set."""
        import docker.errors

        try:
            stream, _ = proxy.get_archive(f"{tcp_proxy.STATE}/{tcp_proxy.BACKEND}")
        except docker.errors.NotFound:
            return None
        with tarfile.open(fileobj=io.BytesIO(b"".join(stream))) as archive:
            file = archive.extractfile(tcp_proxy.BACKEND)
            return file.read().decode().partition(":")[0] if file else None

    def find_live_server(self) -> Server | None:
        """The server to which the proxy sends connections."""
        proxy = self.find_proxy()
        name = self.read_proxy_backend(proxy) if proxy is not None else None
        return next((server for server in self.list_servers() if server.name == name), None)

    def repair_proxy(self) -> None:
        """Remove what an interrupted deploy left of a proxy: one without a backend, or a second one.

        Must not run beside another deploy.
        """
        proxies = self.list_proxies()
        if len(proxies) > 1 and proxies[0].status != "running":
            proxies.reverse()  # the new one was never started: keep the one before
        for proxy in proxies[1:]:
            proxy.remove(force=True)
        for proxy in proxies[:1]:
            if self.read_proxy_backend(proxy) is None:
                proxy.remove(force=True)
            elif proxy.name != self.name:
                proxy.rename(self.name)

    def create_server_container(self, record: ReleaseRecord) -> Server:
        """Create the container of a release without starting it."""
        settings = self.settings
        limits: dict[str, Any] = {}
        if settings.cpu is not None:
            limits["nano_cpus"] = int(settings.cpu * 1e9)
        if settings.memory is not None:
            limits["mem_limit"] = settings.memory
        container = self.client.containers.create(
            record.image,
            name=f"{self.name}-{record.number}",
            environment=compose.make_compose_environment(settings),
            labels={
                **self._make_container_labels("server"),
                RELEASE: msgspec.json.encode(record).decode(),
                DEPLOYER: read_process_identity() or "",
            },
            network=self._ensure_container_network(),
            tmpfs={"/tmp": f"size={settings.tmp},mode=1777"},  # noqa: S108
            stop_signal="SIGTERM",
            **self._make_container_hardening_options(),
            **limits,
        )
        return Server(container, record)

    def start_container(self, container: Container) -> None:
        """Start a container. Two simultaneous deploys may briefly create two networks of the app."""
        import docker.errors

        for remaining_attempts in reversed(range(MAX_START_ATTEMPTS)):
            try:
                container.start()
                return
            except docker.errors.APIError as error:
                if not remaining_attempts or "is ambiguous" not in str(error):
                    raise
                time.sleep(0.1)

    def start_proxy(self, image: str, server: Server) -> Container:
        """Create and start the proxy, which publishes the port and sends connections to a server.

        Its program is copied from this installation, because the image can have an older mlapp. It needs only Python.
        """
        proxy = self.client.containers.create(
            image,
            name=self.name,
            entrypoint=["python", "-I", f"{tcp_proxy.STATE}/{PROXY_PROGRAM.name}", str(self.port)],
            command=[],
            labels=self._make_container_labels("front"),
            network=self._ensure_container_network(),
            ports={f"{self.port}/tcp": (self.settings.host, self.settings.port)},
            volumes={f"{self.name}-state": {"bind": tcp_proxy.STATE, "mode": "rw"}},
            healthcheck={"test": ["NONE"]},
            mem_limit="128m",
            **self._make_container_hardening_options(),
        )
        try:
            self._copy_into_container(proxy, PROXY_PROGRAM.name, PROXY_PROGRAM.read_bytes())
            self.point_proxy(proxy, server)
            self.start_container(proxy)
        except BaseException:  # also on Ctrl-C: an unfinished proxy must not keep the port
            proxy.remove(force=True)
            raise
        return proxy

    def point_proxy(self, proxy: Container, server: Server) -> None:
        """Make the proxy send new connections to a server."""
        self._copy_into_container(proxy, tcp_proxy.BACKEND, f"{server.name}:{self.port}".encode())
        proxy.reload()
        if proxy.status == "running":
            # The signal comes from inside the container. After a signal through the engine, the engine would consider
            # the container stopped by hand, and `restart: unless-stopped` would not start it after a reboot.
            code, output = proxy.exec_run(["python", "-ISc", "import os, signal; os.kill(1, signal.SIGHUP)"])
            if code:
                assert isinstance(output, bytes)
                reason = output.decode(errors="replace").strip()
                raise DeployError(
                    f"The proxy {proxy.name} cannot be switched to {server.name}: {reason}",
                    "Deploy again.",
                )

    def is_port_published(self, proxy: Container) -> bool:
        """Whether the proxy publishes the port in the settings."""
        bindings = (proxy.attrs["HostConfig"].get("PortBindings") or {}).get(f"{self.port}/tcp") or []
        return bindings == [{"HostIp": self.settings.host, "HostPort": str(self.settings.port)}]

    def remove_network_and_volume(self) -> list[str]:
        """Remove the network and the proxy's volume; returns the names of those that existed."""
        import docker.errors

        removed = []
        for network in self._list_container_networks():
            network.remove()
            removed.append(self._network_name)
        with contextlib.suppress(docker.errors.NotFound):
            self.client.volumes.get(f"{self.name}-state").remove()
            removed.append(f"{self.name}-state")
        return removed

    def _copy_into_container(self, container: Container, name: str, content: bytes) -> None:
        archive_bytes = io.BytesIO()
        with tarfile.open(fileobj=archive_bytes, mode="w") as archive:
            entry = tarfile.TarInfo(name)
            entry.size, entry.mode = len(content), 0o644
            archive.addfile(entry, io.BytesIO(content))
        container.put_archive(tcp_proxy.STATE, archive_bytes.getvalue())

    @property
    def _network_name(self) -> str:
        return f"{self.name}-mlapp"

    def _ensure_container_network(self) -> str:
        """The ID of the app's network, which is created if missing."""
        import docker.errors

        if not self._list_container_networks():
            with contextlib.suppress(docker.errors.APIError):  # another deploy was faster
                self.client.networks.create(self._network_name, check_duplicate=True, labels={APP: self.app})
        first, *others = self._list_container_networks()
        for network in others:  # concurrent deploys can create networks of the same name
            with contextlib.suppress(docker.errors.APIError):
                network.remove()
        return str(first.id)

    def _list_container_networks(self) -> list[Network]:
        """The app's networks, oldest first."""
        networks = self.client.networks.list(names=[f"^{self._network_name}$"])
        return sorted(networks, key=lambda network: (network.attrs["Created"], str(network.id)))

    def _make_container_labels(self, role: str) -> dict[str, str]:
        return {APP: self.app, ROLE: role}

    def _make_container_hardening_options(self) -> dict[str, Any]:
        return {
            "read_only": True,
            "cap_drop": ["ALL"],
            "security_opt": ["no-new-privileges:true"],
            "pids_limit": self.settings.processes,
            "restart_policy": {"Name": self.settings.restart},
        }


def make_docker_container_name(app: str) -> str:
    """The app's name in the form that docker and compose allow."""
    return re.sub(r"[^a-z0-9]+", "-", app.lower()).strip("-") or "app"


def make_docker_container_release(server: Server, app: str, live: Server | None, url: str | None) -> Release:
    """The release that a server runs. It is `pending` while it is deployed, and after that was interrupted."""
    is_live = live is not None and live.name == server.name
    is_newer = live.record.number < server.record.number if live is not None else server.container.status != "exited"
    state: State = "failed" if server.is_failed else "live" if is_live else "pending" if is_newer else "superseded"
    return server.record.make_release(app, "docker", state, url if is_live else None)


def is_server_healthy(server: Server) -> bool:
    """Run the health check in the container. Without one, a server is ready as soon as its container runs."""
    import docker.errors

    command = _find_health_command(server)
    try:
        return command is None or bool(server.container.exec_run(command).exit_code == 0)
    except docker.errors.APIError as error:
        if error.status_code == 409:  # the container ended in the meantime
            return False
        raise


def _find_health_command(server: Server) -> list[str] | None:
    check = (server.container.attrs["Config"].get("Healthcheck") or {}).get("Test") or ["NONE"]
    if check[0] == "CMD":
        return list(check[1:])
    return ["/bin/sh", "-c", check[1]] if check[0] == "CMD-SHELL" else None
