"""The base of targets on platforms that create pods from one object of ours and report its URL in the status."""

from __future__ import annotations

from typing import ClassVar

from mlapp.deploy.cluster import labels
from mlapp.deploy.cluster.app_status import find_status_revision
from mlapp.deploy.cluster.object_kinds import Kind
from mlapp.deploy.cluster.releases import ReleaseRecord
from mlapp.deploy.cluster.server_target import ServerTarget, V
from mlapp.reporting import Reporter


class RevisionTarget(ServerTarget[V]):
    """An app as one object of a platform that serves revisions, such as KServe or Knative."""

    service_kind: ClassVar[Kind]
    """The kind of the object."""

    def find_given_url(self, record: ReleaseRecord, progress: Reporter) -> str | None:
        """The URL that the platform assigned: `status.url`."""
        found = self.cluster.get_object(self.service_kind, self.names.base) or {}
        url = found.get("status", {}).get("url")
        return str(url) if url else None

    def select_release_pods(self, record: ReleaseRecord) -> str:
        """Select pods by their revision: both revisions of a canary can belong to one object."""
        return f"{labels.NAME}={self.names.base},{labels.REVISION}={find_status_revision(record.documents)}"
