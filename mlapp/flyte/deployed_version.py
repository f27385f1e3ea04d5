"""The version of a schedule that was deployed last. Flyte only keeps creation times of launch plans, and deploying a
version again does not create it again. So each deploy writes the version to the launch plan's description.
"""

from __future__ import annotations

from typing import Any

from flyteidl.admin import common_pb2
from flytekit.models.common import NamedEntityIdentifier
from flytekit.models.core.identifier import ResourceType
from flytekit.models.named_entity import NamedEntityMetadata, NamedEntityState

from mlapp.flyte.connection import Connection
from mlapp.flyte.errors import FlyteError

MARK = "Deployed by mlapp: "


def record_deployed_version(connection: Connection, plan: str, version: str) -> None:
    """Record that `version` of the launch plan `plan` was deployed last."""
    metadata = NamedEntityMetadata(f"{MARK}{version}", NamedEntityState.ACTIVE)
    connection.call_client(
        connection.client.update_named_entity,
        ResourceType.LAUNCH_PLAN,
        _identify_deployed_plan(connection, plan),
        metadata,
    )


def read_deployed_version(connection: Connection, plan: str) -> str | None:
    """The version that was deployed last; empty if none is recorded, None if the plan does not exist."""
    request = common_pb2.NamedEntityGetRequest(
        resource_type=ResourceType.LAUNCH_PLAN, id=_identify_deployed_plan(connection, plan).to_flyte_idl()
    )
    client: Any = connection.client
    try:  # flytekit's client has no method for this call
        entity: Any = connection.call_client(client._stub.GetNamedEntity, request, metadata=client._metadata)
    except FlyteError as error:
        if "NOT_FOUND" in error.what:
            return None
        raise
    description = entity.metadata.description
    return description.removeprefix(MARK) if description.startswith(MARK) else ""


def _identify_deployed_plan(connection: Connection, plan: str) -> NamedEntityIdentifier:
    return NamedEntityIdentifier(connection.settings.project, connection.settings.domain, plan)
