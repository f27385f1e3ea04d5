"""Connect to the Docker engine, and translate its errors to the user's terms."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

from mlapp.errors import MissingExtraError, MlappError

if TYPE_CHECKING:
    from docker import DockerClient

TIMEOUT = 600
"""Timeout in seconds for one call to the engine."""


class ImageError(MlappError):
    """An image cannot be built, found or pushed."""


class EngineError(ImageError):
    """The Docker engine cannot be reached, or refused."""


class DiskFullError(EngineError):
    """The disk of the Docker engine is full."""


@contextmanager
def connect_image_engine() -> Iterator[DockerClient]:
    """A client for the engine in DOCKER_HOST or the current docker context. Closes it at the end.

    Raises:
        MissingExtraError: the docker SDK is not installed.
        EngineError: no engine answers, access is denied, or the engine failed inside the block.
    """
    try:
        import docker
    except ModuleNotFoundError:
        raise MissingExtraError("Building and running images", "docker") from None
    with translate_image_engine_errors():
        client = docker.DockerClient(**_find_engine_endpoint(), timeout=TIMEOUT, version="auto")
        try:
            yield client
        finally:
            client.close()


def find_engine_address() -> str:
    """The address of a connected engine, in the format of DOCKER_HOST."""
    from docker.constants import DEFAULT_UNIX_SOCKET

    return str(_find_engine_endpoint().get("base_url") or DEFAULT_UNIX_SOCKET.replace("http+unix", "unix"))


@contextmanager
def translate_image_engine_errors(activity: str = "Docker") -> Iterator[None]:
    """Turn engine failures inside the block into an EngineError."""
    import docker.errors
    import requests

    try:
        yield
    except (docker.errors.DockerException, requests.RequestException) as error:
        raise explain_image_engine_error(error, activity) from error


def explain_image_engine_error(error: BaseException, activity: str = "Docker") -> EngineError:
    """The EngineError that explains an error of the engine or of the connection to it."""
    detail = str(getattr(error, "explanation", None) or error)
    causes = list(_iterate_image_engine_causes(error))
    where = os.environ.get("DOCKER_HOST") or "unix:///var/run/docker.sock"
    if any(isinstance(cause, PermissionError) for cause in causes) or "Permission denied" in detail:
        return EngineError(
            f"You have no permission to use the Docker engine at {where}.",
            "Join its group: sudo usermod -aG docker $USER, then log in again.",
        )
    is_absent = any(isinstance(cause, (FileNotFoundError, ConnectionRefusedError)) for cause in causes)
    if is_absent or "Connection refused" in detail or "No such file" in detail or "Name or service" in detail:
        return EngineError(
            f"No Docker engine answers at {where}.",
            "Start one: Docker Desktop, or sudo systemctl start docker. Without one: mlapp build --bundle-only, "
            "then mlapp serve --bundle.",
        )
    if "no space left" in detail.lower():
        return DiskFullError(
            f"{activity}: the engine's disk is full.", "Free disk space: docker system df, docker system prune."
        )
    if any(isinstance(cause, (ConnectionResetError, BrokenPipeError)) for cause in causes):
        return EngineError(
            f"{activity}: the engine at {where} closed the connection.",
            "Check that it still runs (docker info), and retry.",
        )
    if "timed out" in detail.lower():
        return EngineError(f"{activity}: the engine at {where} did not answer in time.", "Check its load and its log.")
    return EngineError(f"{activity}: {_take_last_engine_line(detail)}", "Check the engine's log: journalctl -u docker.")


def check_image_engine_messages(stream: Iterator[dict[str, Any]], activity: str) -> Iterator[dict[str, Any]]:
    """The engine's messages of a build, load or push.

    Raises:
        EngineError: the engine reported an error.
    """
    for message in stream:
        if "error" in message or "errorDetail" in message:
            detail = (message.get("errorDetail") or {}).get("message") or message.get("error")
            raise explain_image_engine_error(RuntimeError(str(detail)), activity)
        yield message


def _find_engine_endpoint() -> dict[str, Any]:
    """Arguments of DockerClient, from DOCKER_HOST and related variables, or from the current docker context."""
    from docker.utils import kwargs_from_env

    arguments: dict[str, Any] = dict(kwargs_from_env())
    if "base_url" not in arguments:
        from docker.context import ContextAPI

        try:
            context = ContextAPI.get_current_context()
        except Exception:  # docker itself reports a broken context file; try the default socket
            return arguments
        if context is not None and context.Host:
            arguments["base_url"] = context.Host
            if context.TLSConfig:
                arguments["tls"] = context.TLSConfig
    return arguments


def _iterate_image_engine_causes(error: BaseException | None) -> Iterator[BaseException]:
    """The error with its arguments and causes: requests and urllib3 wrap the reason several times."""
    seen_causes: list[BaseException] = []
    pending = [error]
    while pending:
        cause = pending.pop()
        if isinstance(cause, BaseException) and cause not in seen_causes:
            seen_causes.append(cause)
            yield cause
            pending += [
                cause.__cause__,
                cause.__context__,
                *(arg for arg in cause.args if isinstance(arg, BaseException)),
            ]
            pending.append(
                getattr(cause, "reason", None) if not isinstance(getattr(cause, "reason", None), str) else None
            )


def _take_last_engine_line(text: str) -> str:
    lines = [line.strip() for line in text.splitlines() if line.strip()]
    return lines[-1][:500] if lines else "failed without a message"
