"""Replace one release with the next without losing a request."""

from __future__ import annotations

import time
import urllib.request
from datetime import datetime, timedelta, timezone
from typing import TYPE_CHECKING, Any
from urllib.error import HTTPError

from mlapp.deploy.docker import compose, logs
from mlapp.deploy.docker.containers import FAILED_SUFFIX, Containers, Server, is_server_healthy
from mlapp.deploy.release_record import ReleaseRecord
from mlapp.deploy.target import DeployError
from mlapp.reporting import Reporter

if TYPE_CHECKING:
    from docker.models.containers import Container

POLL_INTERVAL = 0.2
ANSWER_TIMEOUT = 15.0
"""Seconds within which the proxy must answer at the published port."""


def roll_out(containers: Containers, record: ReleaseRecord, progress: Reporter) -> Server:
    """Start the new server beside the old one, wait until it is ready, switch connections to it, then stop the old one.

    Raises:
        DeployError: the image is missing, the port is taken, another deploy is in progress, or the new server is not
            ready in time. The previous one keeps serving.
    """
    import docker.errors

    live = containers.find_live_server()
    _require_no_other_deploy(containers, live)
    _require_docker_rollout_image(containers, record.image, progress)
    try:
        server = containers.create_server_container(record)
    except docker.errors.APIError as error:
        if error.status_code == 409:
            raise _explain_concurrent_docker_deploy(containers, f"{containers.name}-{record.number}") from error
        raise _explain_docker_rollout_refusal(error, containers, record.image) from error
    earlier = [other for other in containers.list_servers() if other.name != server.name and not other.is_failed]
    try:
        containers.repair_proxy()
        progress(f"start {server.name}")
        containers.start_container(server.container)
        _wait_for_server_ready(containers, server)
        _switch_proxy_to(containers, server, progress)
    except BaseException as error:  # also on Ctrl-C: the old server must get the traffic back
        _switch_proxy_back(containers, live)
        kept_name = _set_server_aside(server)
        if isinstance(error, docker.errors.APIError):
            refusal = _explain_docker_rollout_refusal(error, containers, server.name)
            raise _add_remaining_state(refusal, live, kept_name) from error
        if isinstance(error, DeployError):
            raise _add_remaining_state(error, live, kept_name) from error
        raise
    for other in earlier:
        if live is not None and other.record.number > live.record.number:
            _set_server_aside(other)  # its deploy was interrupted before it was live
        elif other.container.status != "exited":
            progress(f"stop {other.name}")
            _retire_server(other, compose.compute_stop_timeout(containers.serve))
    _prune_servers(containers, server)
    return server


def _require_no_other_deploy(containers: Containers, live: Server | None) -> None:
    """Refuse to deploy if a server is newer than the live one and has not failed: its deploy is in progress.

    A killed deploy also leaves such a server. It is ignored if its process ran on this machine and has ended, and once
    it is older than a deploy can take.
    """
    max_duration = timedelta(seconds=containers.settings.ready_timeout + ANSWER_TIMEOUT)
    earliest = datetime.now(timezone.utc) - max_duration
    for server in containers.list_servers():
        is_newer = live is None or server.record.number > live.record.number
        is_starting = not server.is_failed and server.container.status != "exited"
        if is_newer and is_starting and server.record.created > earliest and not server.is_abandoned:
            raise _explain_concurrent_docker_deploy(containers, server.name)


def _explain_concurrent_docker_deploy(containers: Containers, name: str) -> DeployError:
    return DeployError(
        f"Another deploy of {containers.app} is in progress: it created the container {name}.",
        f"Wait until it ends. If it was killed on another machine: docker rm --force {name}.",
    )


def _require_docker_rollout_image(containers: Containers, image: str, progress: Reporter) -> None:
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


def _wait_for_server_ready(containers: Containers, server: Server) -> None:
    timeout = containers.settings.ready_timeout
    end = time.monotonic() + timeout
    while True:
        server.container.reload()
        state = server.container.attrs["State"]
        if state["Status"] == "exited" or server.container.attrs["RestartCount"]:
            reason = " because it ran out of memory: raise targets.docker.memory" if state.get("OOMKilled") else ""
            raise DeployError(
                f"{server.name} exited with code {state['ExitCode']}{reason}; its output: "
                f"{logs.read_last_log_lines(server.container)}",
                "Fix the error in its output.",
            )
        if state["Status"] == "running" and is_server_healthy(server):
            return
        if time.monotonic() > end:
            raise DeployError(
                f"{server.name} was not ready in {timeout:g} s; its output: "
                f"{logs.read_last_log_lines(server.container)}",
                "Raise targets.docker.ready_timeout if it needs longer.",
            )
        time.sleep(POLL_INTERVAL)


def _switch_proxy_to(containers: Containers, server: Server, progress: Reporter) -> None:
    proxy = containers.find_proxy()
    if proxy is not None and containers.is_port_published(proxy):
        containers.point_proxy(proxy, server)
        if proxy.status != "running":
            proxy.start()
    else:
        progress(f"publish {containers.settings.host}:{containers.settings.port}")
        _publish_proxy_port(containers, proxy, server)
    _wait_for_proxy_answer(containers, server)


def _publish_proxy_port(containers: Containers, old_proxy: Container | None, server: Server) -> None:
    """Create a proxy, replacing one with a different port. If the new port is taken, the old proxy is restored."""
    if old_proxy is not None:
        old_proxy.stop(timeout=0)
        old_proxy.rename(f"{containers.name}-before")
    try:
        containers.start_proxy(server.record.image, server)
    except BaseException:  # also on Ctrl-C: the old proxy must get its name back
        if old_proxy is not None:
            old_proxy.rename(containers.name)
        raise
    if old_proxy is not None:
        old_proxy.remove(force=True)


def _switch_proxy_back(containers: Containers, live: Server | None) -> None:
    """Make the proxy send connections to the previous release again. Without one, remove the proxy."""
    proxy = containers.find_proxy()
    if proxy is not None and live is not None:
        containers.point_proxy(proxy, live)
        if proxy.status != "running":
            proxy.start()
    elif proxy is not None:
        proxy.remove(force=True)


def _wait_for_proxy_answer(containers: Containers, server: Server) -> None:
    end = time.monotonic() + ANSWER_TIMEOUT
    while True:
        try:
            with urllib.request.urlopen(f"{containers.url}/livez", timeout=5):  # noqa: S310
                return
        except HTTPError:
            return
        except OSError as error:
            if time.monotonic() > end:
                proxy = containers.find_proxy()
                if proxy is not None and (proxy.status != "running" or proxy.attrs["RestartCount"]):
                    raise DeployError(
                        f"The proxy {proxy.name}, which listens on the port, is not running; its output: "
                        f"{logs.read_last_log_lines(proxy)}",
                        "The image needs a `python` on its PATH: 3.8 or newer.",
                    ) from error
                raise DeployError(
                    f"{server.name} is ready, but {containers.url} does not answer: {error}",
                    "Check targets.docker.host and the machine's firewall.",
                ) from error
            time.sleep(POLL_INTERVAL / 2)


def _retire_server(server: Server, timeout: float) -> None:
    """Stop a container, and prevent its restart: the policy `always` would start it again after a reboot."""
    never: Any = {"Name": "no"}  # missing in the SDK's types
    server.container.update(restart_policy=never)
    server.container.stop(timeout=timeout)


def _set_server_aside(server: Server) -> str | None:
    """Stop a failed release, and keep its container for inspection. Returns its name; None if it had to be removed."""
    import docker.errors

    name = f"{server.name}{FAILED_SUFFIX}"
    try:
        _retire_server(server, timeout=2)
        server.container.rename(name)
    except docker.errors.APIError:
        server.container.remove(force=True)
        return None
    return name


def _add_remaining_state(error: DeployError, live: Server | None, kept_name: str | None) -> DeployError:
    """The error with what exists after it: the live release, and the container that is kept for inspection."""
    live_text = "No release is live" if live is None else f"Release {live.record.number} stays live"
    kept_text = "" if kept_name is None else f"; the container {kept_name} is kept: docker logs {kept_name}"
    return DeployError(error.what, f"{error.todo} {live_text}{kept_text}.")


def _prune_servers(containers: Containers, live: Server) -> None:
    others = [server for server in containers.list_servers() if server.name != live.name]
    successful = [server for server in others if not server.is_failed]
    kept_names = {server.name for server in successful[-containers.settings.keep :]} | {
        server.name for server in others if server.is_failed and server.record.number > live.record.number - 3
    }
    for server in others:
        if server.name not in kept_names:
            server.container.remove(force=True)


def _explain_docker_rollout_refusal(error: Any, containers: Containers, subject: str) -> DeployError:
    text = str(error.explanation or error)
    settings = containers.settings
    if "port is already allocated" in text or "address already in use" in text:
        return DeployError(
            f"Port {settings.port} of {settings.host} is taken.", "Choose another: targets.docker.port in mlapp.yaml."
        )
    if "no space left" in text.lower():
        return DeployError("The engine's disk is full.", "Free disk space: docker system df, docker system prune.")
    return DeployError(f"The engine refused {subject}: {text}", "Fix the error named above.")
