"""The base of targets in a cluster whose pods run mlapp's server."""

from __future__ import annotations

from typing import TypeVar

from mlapp.deploy.cluster.cluster_target import ClusterTarget
from mlapp.deploy.cluster.server_environment import refuse_plain_server_secrets
from mlapp.deploy.cluster.settings import ServerSection

V = TypeVar("V", bound=ServerSection)


class ServerTarget(ClusterTarget[V]):
    """An app whose pods run mlapp's server, with the variables of `env` and `secrets`."""

    def check(self) -> str:
        """The cluster's version, context and namespace. Checks the server's variables first.

        Raises:
            ConfigError: a variable of the server is a secret in plain text.
            DeployError: see `ClusterTarget.check`.
        """
        refuse_plain_server_secrets(self.serve, self.settings.env, self.settings.secrets, f"targets.{self.name}")
        return super().check()
