"""The address that the cluster assigns to a Service: a load balancer's, or a node port."""

from __future__ import annotations

from mlapp.deploy.cluster import labels
from mlapp.deploy.cluster.api_client import Cluster
from mlapp.deploy.cluster.naming import Names
from mlapp.deploy.cluster.object_kinds import INGRESS, POD, ROUTE, SERVICE
from mlapp.deploy.cluster.releases import ReleaseRecord

ASSIGNED_TYPES = ("LoadBalancer", "NodePort")


def is_address_assigned_by_cluster(record: ReleaseRecord) -> bool:
    """Whether the address is known only once the Service exists, because no rendered object names a host."""
    routes = [document for document in record.documents if document["kind"] in (INGRESS.kind, ROUTE.kind)]
    services = [document for document in record.documents if document["kind"] == SERVICE.kind]
    return not routes and any(document["spec"].get("type") in ASSIGNED_TYPES for document in services)


def find_service_url(cluster: Cluster, names: Names, record: ReleaseRecord) -> str | None:
    """The external URL of the release's Service; None if the cluster has assigned none yet."""
    scheme = (record.release.url or "http").partition(":")[0]
    service = cluster.get_object(SERVICE, names.base)
    if service is None:
        return None
    port = service["spec"]["ports"][0]
    if service["spec"].get("type") == "NodePort":
        pods = cluster.list_objects(POD, f"{labels.NAME}={names.base},{labels.INSTANCE}={names.base}")
        hosts = [pod["status"]["hostIP"] for pod in pods if pod.get("status", {}).get("hostIP")]
        return f"{scheme}://{_format_service_address_host(hosts[0])}:{port['nodePort']}" if hosts else None
    entries = (service.get("status", {}).get("loadBalancer") or {}).get("ingress") or []
    hosts = [entry.get("hostname") or entry.get("ip") for entry in entries]
    if not hosts or not hosts[0]:
        return None
    default_ports = {"http": 80, "https": 443}
    return f"{scheme}://{_format_service_address_host(hosts[0])}" + (
        "" if port["port"] == default_ports[scheme] else f":{port['port']}"
    )


def _format_service_address_host(address: str) -> str:
    return f"[{address}]" if ":" in address else address
