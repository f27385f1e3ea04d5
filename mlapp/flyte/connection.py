"""The connection to Flyte, with flytekit's configuration, and its errors in the user's terms."""

from __future__ import annotations

import dataclasses
import os
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from functools import cached_property
from typing import Any

from mlapp.config import Flyte
from mlapp.errors import ConfigError, MlappError
from mlapp.flyte.errors import FlyteError, UnreachableError

CALL_TIMEOUT = 30.0
"""Timeout of one call in seconds."""

TOO_LARGE = ("larger than max", "exceeds platform configured threshold")
"""Messages of gRPC and flyteadmin about an exceeded size limit. Other exhausted resources become free again."""


def find_flyte_connection_config() -> str:
    """The path of flytekit's configuration file, as shown to the user."""
    return os.environ.get("FLYTECTL_CONFIG") or "~/.flyte/config.yaml"


class _ChannelOptions(list[tuple[str, Any]]):
    """Options of a gRPC channel that replace flytekit's options with the same names.

    flytekit appends them to its own options, and gRPC uses the first of two options with the same name.
    """

    def __radd__(self, flytekit_options: list[tuple[str, Any]]) -> list[tuple[str, Any]]:
        own_names = {name for name, _ in self}
        return [*((name, value) for name, value in flytekit_options if name not in own_names), *self]


@dataclass(frozen=True)
class Connection:
    """A Flyte instance, with project and domain."""

    settings: Flyte

    @cached_property
    def config(self) -> Any:
        """flytekit's configuration: FLYTECTL_CONFIG, ~/.flyte/config.yaml, FLYTE_*.

        Raises:
            ConfigError: there is no configuration.
        """
        from flytekit.configuration import Config
        from flytekit.configuration.file import get_config_file

        try:
            get_config_file.cache_clear()  # flytekit caches the result at import
            file = get_config_file(None)
            config = Config.auto(file)
        except Exception as error:  # a YAML error, a missing certificate, …: there is no common base class
            raise ConfigError(
                f"Flyte's configuration cannot be read: {error}", f"Correct {find_flyte_connection_config()}."
            ) from error
        if file is None and not os.environ.get("FLYTE_PLATFORM_URL"):
            raise ConfigError(
                "There is no configuration for Flyte.",
                "Write ~/.flyte/config.yaml (flytectl config init --host=YOUR.FLYTE), or set FLYTECTL_CONFIG.",
            )
        # flytekit would retry each failed call three times at once. mlapp retries with delay, and only if it can help.
        return config.with_params(platform=dataclasses.replace(config.platform, rpc_retries=0))

    @property
    def endpoint(self) -> str:
        return str(self.config.platform.endpoint)

    @cached_property
    def client(self) -> Any:
        """flytekit's client. Connects on the first call."""
        from flytekit.clients.friendly import SynchronousFlyteClient

        # Without calls, such as during an image build, flytekit pings every 30 s, and flyteadmin responds with GOAWAY.
        options = {"grpc.keepalive_permit_without_calls": 0, "grpc.keepalive_time_ms": 300_000}
        return SynchronousFlyteClient(self.config.platform, options=_ChannelOptions(options.items()))

    def console_url(self, run: str) -> str:
        """The URL of the run in Flyte's console."""
        platform = self.config.platform
        base = platform.console_endpoint or f"{'http' if platform.insecure else 'https'}://{platform.endpoint}"
        return f"{base}/console/projects/{self.settings.project}/domains/{self.settings.domain}/executions/{run}"

    def call_client(self, function: Callable[..., Any], *args: Any, **named: Any) -> Any:
        """Call a method of the client.

        Raises:
            FlyteError: Flyte refused. UnreachableError: it does not answer.
        """
        from flytekit.clients.grpc_utils.deadline_interceptor import scoped_grpc_deadline

        with self.translate_errors(), scoped_grpc_deadline(CALL_TIMEOUT):
            return function(*args, **named)

    @contextmanager
    def translate_errors(self) -> Iterator[None]:
        """Translate errors of flytekit, gRPC and HTTP to the user's terms."""
        try:
            yield
        except MlappError:
            raise
        except Exception as error:  # a known error can be any cause in the chain; others are raised unchanged
            translation = self._translate_connection_error(error)
            if translation is None:
                raise
            raise translation from error

    def check_project(self) -> None:
        """Check that the project and domain exist: for an unknown project, Flyte returns empty lists instead of errors.

        Raises:
            FlyteError: Flyte has no such project, or the project has no such domain.
        """
        from flyteidl.admin import project_pb2
        from flytekit.clients.raw import RawSynchronousFlyteClient

        request = project_pb2.ProjectListRequest(limit=1, filters=f"eq(identifier,{self.settings.project})")
        response: Any = self.call_client(RawSynchronousFlyteClient.list_projects, self.client, request)
        domains = response.projects[0].domains if response.projects else ()
        if self.settings.domain not in {domain.id for domain in domains}:
            raise self.missing_project_error()

    def missing_project_error(self) -> FlyteError:
        """The error for a project or domain in the settings that does not exist in Flyte."""
        project, domain = self.settings.project, self.settings.domain
        return FlyteError(
            f"Flyte at {self.endpoint} has no project '{project}' with a domain '{domain}'.",
            "Set `flyte: {project: …, domain: …}` in mlapp.yaml, or create it: flytectl create project.",
        )

    def _translate_connection_error(self, error: BaseException) -> MlappError | None:
        import grpc
        import requests
        from flytekit.exceptions import user
        from flytekit.exceptions.system import FlyteSystemException

        chain = list(_iterate_connection_causes(error))
        rpc = next((cause for cause in chain if isinstance(cause, grpc.RpcError) and hasattr(cause, "code")), None)
        code = rpc.code() if rpc is not None else None
        details = (rpc.details() or "") if rpc is not None else ""
        project_messages = (
            "are registered",
            "is unrecognized by system",
        )  # flyteadmin's messages for a project, a domain
        if any(text in details for text in project_messages) or ("project" in details and "not found" in details):
            return self.missing_project_error()
        status = grpc.StatusCode
        if code in (status.UNAUTHENTICATED, status.PERMISSION_DENIED) or any(
            _is_connection_login_error(cause) for cause in chain
        ):
            return FlyteError(
                f"Flyte at {self.endpoint} rejects the login: {details or 'the login has expired'}.",
                "Log in again (flytectl get projects opens the browser), or renew the client secret or token command.",
            )
        if code == status.RESOURCE_EXHAUSTED and any(text in details for text in TOO_LARGE):
            return FlyteError(
                f"Flyte at {self.endpoint} rejects a message that is too large: {details}",
                "All parameters and trials are sent in one message: make them shorter, and pass data by its path or "
                "URL.",
            )
        unavailable_codes = (status.UNAVAILABLE, status.DEADLINE_EXCEEDED, status.RESOURCE_EXHAUSTED)
        reset_messages = ("RST_STREAM", "Stream removed", "GOAWAY")  # messages after a proxy drops a connection
        if (
            code in unavailable_codes
            or any(text in details for text in reset_messages)
            or any(
                isinstance(cause, (user.FlyteTimeout, requests.ConnectionError, requests.Timeout)) for cause in chain
            )
        ):
            return UnreachableError(
                f"Flyte at {self.endpoint} does not answer{f': {details}' if details else '.'}",
                f"Check the endpoint in {find_flyte_connection_config()}, `insecure: true` if it has no TLS, and the "
                "network.",
            )
        if code is None and any(isinstance(cause, FlyteSystemException) for cause in chain):
            return FlyteError(  # the error is not from Flyte: getting a token failed
                f"Flyte at {self.endpoint} rejects the login, and logging in again failed: {chain[-1]}",
                "Log in again (flytectl get projects opens the browser), or renew the client secret or token command.",
            )
        if code is not None:
            return FlyteError(
                f"Flyte at {self.endpoint} refused: {code.name}: {details}", "Fix the cause named above, and try again."
            )
        return None


def _iterate_connection_causes(error: BaseException | None) -> Iterator[BaseException]:
    while error is not None:
        yield error
        error = error.__cause__ or error.__context__


def _is_connection_login_error(error: BaseException) -> bool:
    return type(error).__name__ in (
        "FlyteAuthenticationException",
        "AccessTokenNotFoundError",
        "AuthenticationError",
        "AuthenticationPending",
    )
