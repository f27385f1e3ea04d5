"""Connect to a cluster with a kubeconfig and the client library's logins, or with the pod's service account."""

from __future__ import annotations

import logging
import os
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from mlapp.config.yaml_text import parse_yaml
from mlapp.deploy.cluster.settings import ClusterSection
from mlapp.deploy.target import DeployError
from mlapp.errors import ConfigError, MissingExtraError, suggest_nearest

ACCOUNT_FOLDER = Path("/var/run/secrets/kubernetes.io/serviceaccount")
SIZE_SETTINGS = ("resources", "memory", "replicas", "min_replicas")
VALIDATOR_MODULE = "kubernetes_validate"
"""A module that the client library imports if it is installed. mlapp does not need it, and it imports for seconds."""
KUBECONFIG_ADVICE = "Get one from the cluster's operator, set KUBECONFIG, and test it with `kubectl version`."


@dataclass(frozen=True)
class Connection:
    """An authenticated client with its context and namespace.

    Args:
        section: the settings' key, for messages.
        size_settings: names of the settings that count against a quota, for messages.
    """

    client: Any
    namespace: str
    context: str
    section: str
    size_settings: tuple[str, ...]

    @property
    def place(self) -> str:
        """`context kind, namespace team-a`."""
        return f"{self.context}, namespace {self.namespace}"


def connect_cluster(settings: ClusterSection, section: str) -> Connection:
    """A client for the settings' cluster and namespace. Makes no request to the cluster.

    Raises:
        MissingExtraError: the kubernetes package is not installed.
        DeployError: there is no kubeconfig, the context is unknown, or the login command fails.
    """
    try:
        with _block_client_import(VALIDATOR_MODULE):
            from kubernetes import client, config
            from kubernetes.config.config_exception import ConfigException
    except ImportError:
        raise MissingExtraError("Deploying to Kubernetes", "k8s") from None
    file = settings.kubeconfig or os.environ.get("KUBECONFIG") or None
    in_cluster = not file and not settings.context and "KUBERNETES_SERVICE_HOST" in os.environ
    configuration = type.__call__(client.Configuration)
    try:
        if in_cluster and not Path("~/.kube/config").expanduser().exists():
            config.load_incluster_config(client_configuration=configuration)
            namespace, context = (ACCOUNT_FOLDER / "namespace").read_text().strip(), "this cluster"
        else:
            _check_kubeconfig(file)
            contexts, active = config.list_kube_config_contexts(config_file=file)
            chosen_context = _choose_kube_context(contexts, active, settings.context)
            with _collect_login_errors() as login_errors:
                config.load_kube_config(file, context=chosen_context["name"], client_configuration=configuration)
            if login_errors and not configuration.api_key and not configuration.cert_file:
                raise DeployError(
                    f"The login command of context {chosen_context['name']} failed: {'; '.join(login_errors)}",
                    "Install the command or log in again, and test the login with `kubectl get pods`.",
                )
            namespace = chosen_context["context"].get("namespace") or "default"
            context = f"context {chosen_context['name']}"
    except ConfigError as error:
        raise DeployError(f"The kubeconfig cannot be used: {error.what}", error.todo) from None
    except (ConfigException, OSError) as error:
        raise DeployError(f"The kubeconfig cannot be used: {error}", KUBECONFIG_ADVICE) from None
    except (TypeError, KeyError, AttributeError, ValueError) as error:
        detail = " ".join(str(error).split())
        raise DeployError(f"{file or '~/.kube/config'} is not a kubeconfig: {detail}", KUBECONFIG_ADVICE) from None
    if configuration.host == "http://localhost" or not configuration.host:
        raise DeployError("The kubeconfig names no cluster.", KUBECONFIG_ADVICE)
    configuration.retries = False
    # One connection per followed pod log: urllib3 warns about each connection beyond the pool's size.
    configuration.connection_pool_maxsize = 256
    sizes = tuple(name for name in SIZE_SETTINGS if name in settings.__struct_fields__)
    return Connection(client.ApiClient(configuration), settings.namespace_name or namespace, context, section, sizes)


@contextmanager
def _collect_login_errors() -> Iterator[list[str]]:
    """Collect logged errors: if the login command fails, the client library only logs it and continues."""
    errors: list[str] = []

    def collect_error(record: logging.LogRecord) -> bool:
        if record.levelno >= logging.ERROR:
            errors.append(record.getMessage())
        return record.levelno < logging.ERROR

    logging.getLogger().addFilter(collect_error)
    try:
        yield errors
    finally:
        logging.getLogger().removeFilter(collect_error)


@contextmanager
def _block_client_import(module: str) -> Iterator[None]:
    """Make an import of `module` fail in this context."""
    if module in sys.modules:
        yield
        return
    sys.modules[module] = None  # type: ignore[assignment]  # as the import system documents it
    try:
        yield
    finally:
        del sys.modules[module]


def _check_kubeconfig(file: str | None) -> None:
    """Refuse missing files and, like kubectl, duplicate keys: the client library uses the last one."""
    paths = [Path(path_text).expanduser() for path_text in (file or "~/.kube/config").split(os.pathsep) if path_text]
    if not any(path.is_file() for path in paths):
        raise DeployError(f"There is no kubeconfig: {', '.join(map(str, paths))} does not exist.", KUBECONFIG_ADVICE)
    for path in paths:
        if path.is_file():
            parse_yaml(path.read_text(encoding="utf-8"), path)


def _choose_kube_context(contexts: list[dict[str, Any]], active: dict[str, Any] | None, wanted: str | None) -> Any:
    names = [context["name"] for context in contexts]
    if wanted is None:
        if active is None:
            raise DeployError(
                "The kubeconfig has no current context.", f"Choose one with --context: {', '.join(names)}."
            )
        return active
    if wanted not in names:
        raise DeployError(
            f"The kubeconfig has no context '{wanted}'.{suggest_nearest(wanted, names)}",
            f"It has: {', '.join(names) or 'none'}. Change --context, or `context` of the target.",
        )
    return next(context for context in contexts if context["name"] == wanted)
