"""Replace one release with the next without losing a request."""

from __future__ import annotations

import time
import urllib.request
from datetime import datetime, timedelta, timezone
from typing import TYPE_CHECKING, Any
from urllib.error import HTTPError

from mlapp.deploy.docker import compose, logs
from mlapp.deploy.docker.containers import FAILED, Containers, Server, is_server_healthy
from mlapp.deploy.release_record import ReleaseRecord
from mlapp.deploy.target import DeployError
from mlapp.reporting import Reporter

if TYPE_CHECKING:
    from docker.models.containers import Container

POLL = 0.2
ANSWER = 15.0
"""Seconds within which the front must answer at the published port."""


def roll_out(containers: Containers, record: ReleaseRecord, progress: Reporter) -> Server:
    """Start the new server beside the old one, wait until it is ready, switch connections to it, then stop the old one.

    Raises:
        DeployError: the image is missing, the port is taken, another deploy is in progress, or the new server is not
            ready in time. The previous one keeps serving.
    """
    import docker.errors

    before = containers.find_live_server()
    _require_no_other_deploy(containers, before)
    _require_docker_rollout_image(containers, record.image, progress)
    try:
        server = containers.make_server(record)
    except docker.errors.APIError as error:
        if error.status_code == 409:
            raise _concurrent_deploy_error(containers, f"{containers.name}-{record.number}") from error
        raise _explain_docker_rollout_refusal(error, containers, record.image) from error
    try:
        progress(f"start {server.name}")
        containers.start_container(server.container)
        _wait_until_ready(containers, server)
        _switch_proxy_to(containers, server, progress)
    except BaseException as error:  # also Ctrl-C: the old server must get the traffic back
        _switch_proxy_back(containers, before)
        _set_server_aside(server)
        if isinstance(error, docker.errors.APIError):
            raise _explain_docker_rollout_refusal(error, containers, server.name) from error
        raise
    if before is not None and before.is_running:
        progress(f"stop {before.name}")
        _retire_server(before, compose.compute_stop_timeout(containers.serve))
    _prune_servers(containers, server)
    return server


def _require_no_other_deploy(containers: Containers, live: Server | None) -> None:
    """Refuse to deploy if a server is newer than the live one and has not failed: its deploy is in progress.

    A killed deploy also leaves such a server, so it is ignored once it is older than a deploy can take.
    """
    longest = timedelta(seconds=containers.settings.ready_timeout + ANSWER)
    since = datetime.now(timezone.utc) - longest
    for server in containers.list_servers():
        is_newer = live is None or server.record.number > live.record.number
        is_begun = not server.is_failed and server.container.status != "exited"
        if is_newer and is_begun and server.record.created > since:
            raise _concurrent_deploy_error(containers, server.name)


def _concurrent_deploy_error(containers: Containers, name: str) -> DeployError:
    return DeployError(
        f"Another deploy of {containers.app} is in progress: it created the container {name}.",
        f"Wait until it ends. If it was killed: docker rm --force {name}.",
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


def _wait_until_ready(containers: Containers, server: Server) -> None:
    timeout = containers.settings.ready_timeout
    ends = time.monotonic() + timeout
    while True:
        server.container.reload()
        state = server.container.attrs["State"]
        if state["Status"] == "exited" or server.container.attrs["RestartCount"]:
            killed = " because it ran out of memory: raise targets.docker.memory" if state.get("OOMKilled") else ""
            raise DeployError(
                f"{server.name} exited with code {state['ExitCode']}{killed}; its output: "
                f"{logs.read_last_log_lines(server.container)}",
                "Fix the error in its output. The previous release, if any, keeps serving.",
            )
        if state["Status"] == "running" and is_server_healthy(server):
            return
        if time.monotonic() > ends:
            raise DeployError(
                f"{server.name} was not ready in {timeout:g} s; its output: "
                f"{logs.read_last_log_lines(server.container)}",
                "Raise targets.docker.ready_timeout if it needs longer; the previous release, if any, keeps serving.",
            )
        time.sleep(POLL)


def _switch_proxy_to(containers: Containers, server: Server, progress: Reporter) -> None:
    front = containers.find_proxy()
    if front is not None and containers.is_port_published(front):
        containers.point_proxy(front, server)
        if front.status != "running":
            front.start()
    else:
        progress(f"publish {containers.settings.host}:{containers.settings.port}")
        _publish_proxy_port(containers, front, server)
    _wait_for_proxy_answer(containers, server)


def _publish_proxy_port(containers: Containers, before: Container | None, server: Server) -> None:
    """Create a front, replacing one with a different port. If the new port is taken, the old front is restored."""
    if before is not None:
        before.stop(timeout=0)
        before.rename(f"{containers.name}-before")
    try:
        containers.start_proxy(server.record.image, server)
    except BaseException:  # also Ctrl-C: the old proxy must get its name back
        if before is not None:
            before.rename(containers.name)
        raise
    if before is not None:
        before.remove(force=True)


def _switch_proxy_back(containers: Containers, before: Server | None) -> None:
    """Make the front send connections to the previous release again; without one, remove the front."""
    front = containers.find_proxy()
    if front is not None and before is not None:
        containers.point_proxy(front, before)
        if front.status != "running":
            front.start()
    elif front is not None:
        front.remove(force=True)


def _wait_for_proxy_answer(containers: Containers, server: Server) -> None:
    ends = time.monotonic() + ANSWER
    while True:
        try:
            with urllib.request.urlopen(f"{containers.url}/livez", timeout=5):  # noqa: S310
                return
        except HTTPError:
            return
        except OSError as error:
            if time.monotonic() > ends:
                front = containers.find_proxy()
                if front is not None and (front.status != "running" or front.attrs["RestartCount"]):
                    raise DeployError(
                        f"The proxy {front.name}, which listens on the port, is not running; its output: "
                        f"{logs.read_last_log_lines(front)}",
                        "The image needs a `python` on its PATH: 3.8 or newer.",
                    ) from error
                raise DeployError(
                    f"{server.name} is ready, but {containers.url} does not answer: {error}",
                    "Check targets.docker.host and the machine's firewall.",
                ) from error
            time.sleep(POLL / 2)


def _retire_server(server: Server, timeout: float) -> None:
    """Stop and remove a container; with `restart: always`, the engine would restart it after a reboot."""
    never: Any = {"Name": "no"}  # missing in the SDK's types
    server.container.update(restart_policy=never)
    server.container.stop(timeout=timeout)


def _set_server_aside(server: Server) -> None:
    """Stop a failed release, and keep its container for inspection."""
    import docker.errors

    try:
        _retire_server(server, timeout=2)
        server.container.rename(f"{server.name}{FAILED}")
    except docker.errors.APIError:
        server.container.remove(force=True)


def _prune_servers(containers: Containers, live: Server) -> None:
    others = [server for server in containers.list_servers() if server.name != live.name]
    good = [server for server in others if not server.is_failed]
    kept = {server.name for server in good[-containers.settings.keep :]} | {
        server.name for server in others if server.is_failed and server.record.number > live.record.number - 3
    }
    for server in others:
        if server.name not in kept:
            server.container.remove(force=True)


def _explain_docker_rollout_refusal(error: Any, containers: Containers, what: str) -> DeployError:
    text = str(error.explanation or error)
    settings = containers.settings
    if "port is already allocated" in text or "address already in use" in text:
        return DeployError(
            f"Port {settings.port} of {settings.host} is taken.", "Choose another: targets.docker.port in mlapp.yaml."
        )
    if "no space left" in text.lower():
        return DeployError("The engine's disk is full.", "Free disk space: docker system df, docker system prune.")
    return DeployError(f"The engine refused {what}: {text}", "Fix the error named above.")
