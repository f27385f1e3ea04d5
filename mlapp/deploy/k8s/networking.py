"""Incoming and outgoing connections: Service, NetworkPolicy, Ingress and HTTPRoute."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

from mlapp.deploy.cluster import labels
from mlapp.deploy.cluster.labels import PORT
from mlapp.deploy.cluster.object_kinds import INGRESS, NETWORK_POLICY, ROUTE, SERVICE
from mlapp.deploy.k8s.render_context import RenderContext
from mlapp.deploy.k8s.settings import Dns, Gateway
from mlapp.deploy.k8s.workload import GRPC_PORT_NAME
from mlapp.monitoring.run_schedule import find_url_port

NAMESPACE_NAME = "kubernetes.io/metadata.name"


def make_service(context: RenderContext, both_tracks: bool = False) -> dict[str, Any]:
    """The Service. With `both_tracks` it also selects the canary's pods, so the pod counts split the traffic."""
    settings = context.settings.service
    ports = [{"name": "http", "port": settings.port, "targetPort": "http", "protocol": "TCP"}]
    if context.serve.grpc_port:
        grpc = context.serve.grpc_port
        ports.append({"name": GRPC_PORT_NAME, "port": grpc, "targetPort": GRPC_PORT_NAME, "protocol": "TCP"})
    selector = {labels.NAME: context.names.base} if both_tracks else context.selector
    document = context.make_document(
        SERVICE, context.instance, spec={"type": settings.type, "selector": selector, "ports": ports}
    )
    if settings.annotations:
        document["metadata"].setdefault("annotations", {}).update(settings.annotations)
    return document


def make_network_policies(context: RenderContext) -> list[dict[str, Any]]:
    """The NetworkPolicies of the servers and of the monitoring job, unless the settings turn them off."""
    if not context.settings.network_policy.enabled:
        return []
    servers = _make_server_network_policy(context)
    return [servers, _make_monitor_network_policy(context)] if context.has_monitoring_job else [servers]


def _make_server_network_policy(context: RenderContext) -> dict[str, Any]:
    """In: the serving port. Out: DNS, the object stores of model and monitoring, and the `egress` entries."""
    settings = context.settings.network_policy
    ports = [{"port": PORT, "protocol": "TCP"}]
    if context.serve.grpc_port:
        ports.append({"port": context.serve.grpc_port, "protocol": "TCP"})
    incoming: dict[str, Any] = {"ports": ports}
    if settings.allow_from:
        incoming["from"] = [_render_network_peer(namespace) for namespace in settings.allow_from]
    outgoing: list[dict[str, Any]] = []
    pull = context.settings.model_pull
    if pull is not None:
        store = _allow_network_ports([pull.port])
        if pull.cidrs:
            store["to"] = [{"ipBlock": {"cidr": cidr}} for cidr in pull.cidrs]
        outgoing.append(store)
    return context.make_document(
        NETWORK_POLICY,
        context.names.base,
        spec={
            # Only by name, so that the policy includes a canary's pods.
            "podSelector": {"matchLabels": {labels.NAME: context.names.base}},
            "policyTypes": ["Ingress", "Egress"],
            "ingress": [incoming],
            "egress": _list_egress_rules(context, outgoing, sends_alarms=not context.has_monitoring_job),
        },
    )


def _make_monitor_network_policy(context: RenderContext) -> dict[str, Any]:
    """In: nothing. Out: as for the servers, and the webhooks."""
    return context.make_document(
        NETWORK_POLICY,
        f"{context.names.base}-monitor",
        spec={
            "podSelector": {"matchLabels": labels.make_monitor_selector_labels(context.names)},
            "policyTypes": ["Ingress", "Egress"],
            "egress": _list_egress_rules(context, [], sends_alarms=True),
        },
    )


def _list_egress_rules(
    context: RenderContext, own_rules: list[dict[str, Any]], *, sends_alarms: bool
) -> list[dict[str, Any]]:
    """The rules for DNS, `own_rules`, the ports of monitoring, and the `egress` entries.

    The addresses of object stores and webhooks are unknown and change, so only their ports are restricted.
    """
    settings, shipment = context.settings.network_policy, context.shipment
    ports = set(shipment.alert_ports) if sends_alarms else set()
    if shipment.monitor_bucket:
        ports.add(find_url_port(str(context.settings.env.get("AWS_ENDPOINT_URL", ""))))
    rules = [_render_network_dns_rule(settings.dns), *own_rules]
    if ports:
        rules.append(_allow_network_ports(sorted(ports)))
    for entry in settings.egress:
        peer = {"ipBlock": {"cidr": entry.cidr}} if entry.cidr else _render_network_peer(entry.namespace)
        rules.append({"to": [peer], **(_allow_network_ports(entry.ports) if entry.ports else {})})
    return rules


def _allow_network_ports(ports: Iterable[int]) -> dict[str, Any]:
    return {"ports": [{"port": port, "protocol": "TCP"} for port in ports]}


def _render_network_dns_rule(settings: Dns) -> dict[str, Any]:
    """Allow only the cluster's own DNS, because port 53 of arbitrary addresses could be used to exfiltrate data."""
    pods = _render_network_peer(settings.namespace)
    if settings.labels:
        pods["podSelector"] = {"matchLabels": dict(settings.labels)}
    return {
        "to": [pods, *({"ipBlock": {"cidr": cidr}} for cidr in settings.cidrs)],
        "ports": [{"port": port, "protocol": protocol} for port in settings.ports for protocol in ("UDP", "TCP")],
    }


def _render_network_peer(name: str | None) -> dict[str, Any]:
    return {"namespaceSelector": {"matchLabels": {NAMESPACE_NAME: name}}}


def make_ingress(context: RenderContext) -> dict[str, Any] | None:
    """The Ingress, if configured."""
    settings = context.settings.ingress
    if settings is None:
        return None
    backend = {"service": {"name": context.names.base, "port": {"name": "http"}}}
    path = {"path": settings.path, "pathType": "Prefix", "backend": backend}
    spec: dict[str, Any] = {"rules": [{"host": settings.host, "http": {"paths": [path]}}]}
    if settings.class_name:
        spec["ingressClassName"] = settings.class_name
    if settings.tls_secret:
        spec["tls"] = [{"hosts": [settings.host], "secretName": settings.tls_secret}]
    document = context.make_document(INGRESS, context.names.base, spec=spec)
    if settings.annotations:
        document["metadata"].setdefault("annotations", {}).update(settings.annotations)
    return document


def make_k8s_network_route(context: RenderContext, canary_percent: int | None = None) -> dict[str, Any] | None:
    """The HTTPRoute, if configured; during a canary it splits the traffic by weight."""
    settings = context.settings.gateway
    if settings is None:
        return None
    port = context.settings.service.port
    backends: list[dict[str, Any]] = [{"name": context.names.base, "port": port}]
    if canary_percent is not None:
        backends[0]["weight"] = 100 - canary_percent
        backends.append({"name": context.names.canary, "port": port, "weight": canary_percent})
    rule: dict[str, Any] = {
        "matches": [{"path": {"type": "PathPrefix", "value": settings.path}}],
        "backendRefs": backends,
    }
    if settings.path != "/":
        prefix_removal = {"type": "ReplacePrefixMatch", "replacePrefixMatch": "/"}
        rule["filters"] = [{"type": "URLRewrite", "urlRewrite": {"path": prefix_removal}}]
    spec: dict[str, Any] = {"parentRefs": [_make_route_parent(settings)], "rules": [rule]}
    if settings.hosts:
        spec["hostnames"] = list(settings.hosts)
    return context.make_document(ROUTE, context.names.base, spec=spec)


def _make_route_parent(settings: Gateway) -> dict[str, str]:
    parent = {"name": settings.name}
    if settings.namespace:
        parent["namespace"] = settings.namespace
    if settings.section:
        parent["sectionName"] = settings.section
    return parent


def find_k8s_network_address(context: RenderContext, namespace: str) -> str:
    """The URL of the app: the external one if there is one, otherwise the one inside the cluster."""
    gateway, ingress = context.settings.gateway, context.settings.ingress
    if ingress is not None:
        scheme = "https" if ingress.tls_secret else "http"
        return f"{scheme}://{ingress.host}{ingress.path}".rstrip("/")
    if gateway is not None and gateway.hosts:
        is_secure = gateway.section != "http" if gateway.tls is None else gateway.tls
        scheme = "https" if is_secure else "http"
        return f"{scheme}://{gateway.hosts[0]}{gateway.path}".rstrip("/")
    scheme, default_port = ("https", 443) if context.serve.tls_cert else ("http", 80)
    port = "" if context.settings.service.port == default_port else f":{context.settings.service.port}"
    return f"{scheme}://{context.names.base}.{namespace}.svc{port}"
