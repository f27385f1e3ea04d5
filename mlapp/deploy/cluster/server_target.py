"""Base classes of cluster targets whose pods run mlapp's server, and of those on a platform with revisions."""

from __future__ import annotations

from typing import ClassVar, TypeVar

from mlapp.deploy.cluster import labels
from mlapp.deploy.cluster.app_status import find_app_status_revision
from mlapp.deploy.cluster.cluster_target import ClusterTarget
from mlapp.deploy.cluster.object_kinds import Kind
from mlapp.deploy.cluster.releases import ReleaseRecord
from mlapp.deploy.cluster.server_environment import refuse_plain_server_secrets
from mlapp.deploy.cluster.settings import ServerSection
from mlapp.reporting import Reporter

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


class RevisionTarget(ServerTarget[V]):
    """An app as one object of a platform that creates pods from it and reports its URL, such as KServe or Knative."""

    service_kind: ClassVar[Kind]
    """The kind of the object."""

    def find_assigned_url(self, record: ReleaseRecord, progress: Reporter) -> str | None:
        """The URL that the platform assigned: `status.url`."""
        service = self.cluster.get_object(self.service_kind, self.names.base) or {}
        url = service.get("status", {}).get("url")
        return str(url) if url else None

    def select_release_pods(self, record: ReleaseRecord) -> str:
        """Select pods by their revision: both revisions of a canary can belong to one object."""
        return f"{labels.NAME}={self.names.base},{labels.REVISION}={find_app_status_revision(record.documents)}"
