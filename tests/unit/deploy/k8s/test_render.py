"""What is rendered: golden YAML for each option, which every supported version of Kubernetes accepts.

golden/base.yaml holds every object of an app with no settings. The other files hold those objects that an option
changes or adds. `UPDATE_GOLDEN=1 pytest tests/unit/deploy/k8s/test_render.py` writes them again: read the diff.
"""

from __future__ import annotations

import os
from dataclasses import replace
from pathlib import Path
from typing import Any

import jsonschema
import kubernetes_validate
import kubernetes_validate.utils
import pytest
import yaml

from mlapp.config import Serve, Settings, decode_section
from mlapp.deploy import Shipment, open_target
from mlapp.deploy.k8s import KubernetesSettings
from mlapp.deploy.k8s.networking import find_k8s_network_address
from mlapp.deploy.k8s.render import render_kubernetes_canary, render_kubernetes_release
from mlapp.deploy.k8s.render_context import RenderContext
from mlapp.deploy.yaml_dump import dump_yaml_documents
from mlapp.errors import ConfigError
from tests import tools

GOLDEN = Path(__file__).parent / "golden"
VERSIONS = list(dict.fromkeys(kubernetes_validate.utils.all_versions()))[-3:]  # it names each twice
SHIPMENT = Shipment("digits", "registry.example/digits@sha256:" + "1" * 64, "3", "c0ffee", example=[{"pixel": 1}])

EGRESS = [{"cidr": "10.1.0.0/16", "ports": [5432]}, {"namespace": "observability", "ports": [4317]}]
OPTIONS: dict[str, dict[str, Any]] = {
    "namespace": {"namespace": {"name": "team-a", "create": True}},
    "owner": {"owner": "team-a", "labels": {"cost": "42"}, "annotations": {"docs": "https://wiki.example/digits"}},
    "replicas": {"replicas": 3},
    "autoscaling": {"autoscaling": {"min": 2, "max": 5, "memory": 80}},
    "resources": {"resources": {"cpu": 2, "cpu_limit": None, "memory": "1Gi", "memory_limit": "2Gi", "tmp": "1Gi"}},
    "gpu": {"resources": {"gpu": 1}, "runtime_class": "nvidia", "tolerations": [{"key": "gpu", "operator": "Exists"}]},
    "service": {"service": {"type": "LoadBalancer", "port": 8080, "annotations": {"lb": "internal"}}},
    "ingress": {"ingress": {"host": "digits.example", "class_name": "nginx", "tls_secret": "digits-tls"}},
    "gateway": {"gateway": {"name": "public", "namespace": "infra", "section": "https", "hosts": ["digits.example"]}},
    "network": {"network_policy": {"allow_from": ["web"], "egress": EGRESS}},
    "no_network_policy": {"network_policy": {"enabled": False}},
    "monitoring": {"monitoring": {"service_monitor": True, "labels": {"release": "prometheus"}}},
    "env": {"env": {"COLOR": "blue", "LEVEL": 3, "FAST": True}},
    "secrets": {"secrets": {"DATABASE_URL": {"secret": "digits-db", "key": "url"}}},
    "external_secret": {"external_secret": {"store": "vault", "data": {"TOKEN": "ml/digits#token"}}},
    "volumes": {"volumes": {"data": {"path": "/data", "size": "5Gi"}, "shared": {"path": "/s", "claim": "shared"}}},
    "model_pull": {
        "model_pull": {
            "image": "amazon/aws-cli@sha256:" + "3" * 64,
            "command": ["aws", "s3", "sync", "s3://models/digits", "/app/model"],
            "secret": "s3",
            "cidrs": ["10.2.0.5/32"],
        }
    },
    "service_account": {"service_account": {"annotations": {"iam.example/role": "digits"}}},
    "existing_account": {"service_account": {"name": "robot"}},
    "placing": {
        "node_selector": {"disk": "ssd"},
        "topology_spread": [],
        "affinity": {"nodeAffinity": {}},
        "priority_class": "high",
        "image_pull_secrets": ["registry"],
        "user": 10001,
    },
    "rollout": {"rollout": {"leave": 0, "startup": 600, "timeout": 900}},
    "patches": {
        "patches": [
            {
                "kind": "Deployment",
                "merge": {
                    "spec": {
                        "template": {
                            "spec": {
                                "hostAliases": [{"ip": "10.0.0.9", "hostnames": ["legacy"]}],
                                "containers": [
                                    {"name": "server", "env": [{"name": "A", "value": "b"}], "lifecycle": None},
                                    {"name": "proxy", "image": "proxy@sha256:2"},
                                ],
                            }
                        }
                    }
                },
            },
            {"kind": "Service", "json": [{"op": "add", "path": "/spec/sessionAffinity", "value": "ClientIP"}]},
        ]
    },
}


def rendered(settings: dict[str, Any], serve: Serve | None = None) -> list[dict[str, Any]]:
    return render_kubernetes_release(
        SHIPMENT, decode_section(KubernetesSettings, settings, "targets.k8s"), serve or Serve()
    )


def of(documents: list[dict[str, Any]], kind: str) -> dict[str, Any]:
    return next(document for document in documents if document["kind"] == kind)


def pod(documents: list[dict[str, Any]]) -> dict[str, Any]:
    spec: dict[str, Any] = of(documents, "Deployment")["spec"]["template"]["spec"]
    return spec


def validate(documents: list[dict[str, Any]]) -> None:
    for document in documents:
        if document["kind"] not in ("HTTPRoute", "ServiceMonitor", "ExternalSecret"):  # not Kubernetes' own
            for version in VERSIONS:
                kubernetes_validate.validate(document, version, strict=True)
        elif document["kind"] == "HTTPRoute":
            jsonschema.validate(document["spec"], tools.http_route_schema())


def same_as_golden(name: str, documents: list[dict[str, Any]]) -> bool:
    file, text = GOLDEN / f"{name}.yaml", dump_yaml_documents(documents)
    if os.environ.get("UPDATE_GOLDEN"):
        file.write_text(text)
    return file.read_text() == text


def test_the_objects_of_an_app_without_settings():
    documents = rendered({})

    validate(documents)
    assert same_as_golden("base", documents)


@pytest.mark.parametrize("name", OPTIONS)
def test_an_option_changes_what_it_should(name):
    documents, base = rendered(OPTIONS[name]), rendered({})

    validate(documents)
    assert same_as_golden(name, [document for document in documents if document not in base])


@pytest.mark.parametrize(("user", "group"), [({}, 65532), ({"user": 10001}, 10001)])
def test_only_volumes_get_a_group_and_keep_the_owner_of_their_files(user, group):
    assert "fsGroup" not in pod(rendered(user))["securityContext"]
    security = pod(rendered({**user, **OPTIONS["volumes"]}))["securityContext"]
    assert (security["fsGroup"], security["fsGroupChangePolicy"]) == (group, "OnRootMismatch")


def test_a_cron_job_closes_monitorings_windows_as_hardened_as_the_server():
    monitored = replace(SHIPMENT, monitor_schedule="2 * * * *")
    documents = render_kubernetes_release(monitored, decode_section(KubernetesSettings, {}, "targets.k8s"), Serve())

    validate(documents)
    job = of(documents, "CronJob")["spec"]
    assert (job["schedule"], job["concurrencyPolicy"]) == ("2 * * * *", "Forbid")
    template = job["jobTemplate"]["spec"]["template"]
    server, runner = pod(documents), template["spec"]
    assert runner["securityContext"] == server["securityContext"]
    for name in ("image", "securityContext", "envFrom", "env"):
        assert runner["containers"][0][name] == server["containers"][0][name]
    assert runner["containers"][0]["command"][-5:] == ["mlapp", "monitor", "run", "--bundle", "/app"]
    selector = of(documents, "Service")["spec"]["selector"]
    assert not selector.items() <= template["metadata"]["labels"].items()
    assert of(documents, "ConfigMap")["data"]["MLAPP_MONITOR__RUN"] == "false"


MONITORED = replace(SHIPMENT, monitor_schedule="2 * * * *", monitor_bucket=True, alert_ports=(443, 9093))


def policies(documents: list[dict[str, Any]]) -> dict[str, dict[str, Any]]:
    return {each["metadata"]["name"]: each["spec"] for each in documents if each["kind"] == "NetworkPolicy"}


def test_monitoring_reaches_its_bucket_and_only_its_job_reaches_the_webhooks():
    settings = {"network_policy": {"egress": EGRESS}}
    documents = render_kubernetes_release(
        MONITORED, decode_section(KubernetesSettings, settings, "targets.k8s"), Serve()
    )

    validate(documents)
    plain = policies(rendered(settings))["digits"]["egress"]
    server, job = policies(documents)["digits"], policies(documents)["digits-monitor"]
    assert server["egress"] == [plain[0], {"ports": [{"port": 443, "protocol": "TCP"}]}, *plain[1:]]
    webhooks = {"ports": [{"port": 443, "protocol": "TCP"}, {"port": 9093, "protocol": "TCP"}]}
    assert job["egress"] == [plain[0], webhooks, *plain[1:]]
    assert (job["policyTypes"], job.get("ingress")) == (["Ingress", "Egress"], None)
    template = of(documents, "CronJob")["spec"]["jobTemplate"]["spec"]["template"]["metadata"]["labels"]
    assert job["podSelector"]["matchLabels"].items() <= template.items()
    assert not server["podSelector"]["matchLabels"].items() <= template.items()


def test_monitoring_reaches_a_bucket_of_another_service():
    settings = {"env": {"AWS_ENDPOINT_URL": "http://storage.example:9000"}}
    documents = render_kubernetes_release(
        MONITORED, decode_section(KubernetesSettings, settings, "targets.k8s"), Serve()
    )

    assert policies(documents)["digits"]["egress"][1] == {"ports": [{"port": 9000, "protocol": "TCP"}]}


def test_servers_close_windows_if_no_cron_job_does():
    """A job has no init container that fetches the model."""
    settings = OPTIONS["model_pull"]
    documents = render_kubernetes_release(
        MONITORED, decode_section(KubernetesSettings, settings, "targets.k8s"), Serve()
    )

    assert "CronJob" not in {document["kind"] for document in documents}
    assert "MLAPP_MONITOR__RUN" not in of(documents, "ConfigMap")["data"]
    assert policies(documents)["digits"]["egress"][2]["ports"][1]["port"] == 9093


def test_a_cron_job_that_can_train_delays_no_alarm():
    monitored = replace(SHIPMENT, monitor_schedule="2 * * * *", monitor_trains=True)
    documents = render_kubernetes_release(monitored, decode_section(KubernetesSettings, {}, "targets.k8s"), Serve())

    validate(documents)
    job = of(documents, "CronJob")["spec"]
    assert (job["concurrencyPolicy"], job["jobTemplate"]["spec"]["activeDeadlineSeconds"]) == ("Allow", 6 * 3600)


def test_settings_of_the_server_reach_it():
    documents = rendered({}, Serve(workers=2, grace=3, drain=20, grpc_port=9000, cors=["a", "b"]))

    data = of(documents, "ConfigMap")["data"]
    assert data["MLAPP_SERVE__WORKERS"] == "2"
    assert data["MLAPP_SERVE__CORS"] == "a,b"
    assert pod(documents)["terminationGracePeriodSeconds"] == 5 + 3 + 20 + 5
    assert [port["name"] for port in of(documents, "Service")["spec"]["ports"]] == ["http", "grpc"]
    validate(documents)


def test_a_server_that_speaks_tls_is_probed_scraped_and_named_so():
    serve = Serve(tls_cert="/tls/tls.crt", tls_key="/tls/tls.key")
    documents = rendered({"service": {"port": 443}, "monitoring": {"service_monitor": True}}, serve)

    server = pod(documents)["containers"][0]
    assert {server[f"{kind}Probe"]["httpGet"]["scheme"] for kind in ("startup", "readiness", "liveness")} == {"HTTPS"}
    assert of(documents, "ServiceMonitor")["spec"]["endpoints"][0]["scheme"] == "https"
    settings = decode_section(KubernetesSettings, {"service": {"port": 443}}, "")
    assert find_k8s_network_address(RenderContext(SHIPMENT, settings, serve), "team-a") == "https://digits.team-a.svc"
    validate(documents)


def test_keys_in_plain_text_are_refused():
    with pytest.raises(ConfigError, match="plain text"):
        rendered({}, Serve(api_keys=["secret"]))

    secret = {"secrets": {"MLAPP_SERVE__API_KEYS": {"secret": "keys", "key": "all"}}}
    assert "secret" not in str(of(rendered(secret, Serve(api_keys=["secret"])), "ConfigMap")["data"])


@pytest.mark.parametrize(
    ("name", "value"),
    [("DB_PASSWORD", "hunter2"), ("DATABASE_URL", "postgresql://me:hunter2@db/x"), ("aws_secret_access_key", "abc")],
)
def test_a_secret_in_the_variables_is_refused_and_not_shown(name, value):
    with pytest.raises(ConfigError, match=f"targets.k8s.env.{name} looks like a secret") as refused:
        rendered({"env": {name: value}})
    assert f"{{{name}: {{secret: NAME, key: KEY}}}}" in refused.value.todo
    assert "hunter2" not in refused.value.what
    with pytest.raises(ConfigError, match=f"targets.k8s.env.{name} looks like a secret"):
        open_target("k8s", "digits", Settings(targets={"k8s": {"env": {name: value}}})).check()


def test_variables_that_only_sound_like_secrets_are_shipped():
    env = {
        "PASSWORD_FILE": "x",
        "TOKEN_LIMIT": "5",
        "MAX_TOKEN": "512",
        "DB_PASSWORD": "/run/secrets/db",
        "DB": "db://h/x",
    }
    assert env.items() <= of(rendered({"env": env}), "ConfigMap")["data"].items()


def test_dns_of_another_distribution():
    dns = {"namespace": "openshift-dns", "labels": {}, "ports": [5353], "cidrs": ["169.254.20.10/32"]}
    documents = rendered({"network_policy": {"dns": dns}})
    validate(documents)
    (rule,) = of(documents, "NetworkPolicy")["spec"]["egress"]
    assert rule["to"] == [
        {"namespaceSelector": {"matchLabels": {"kubernetes.io/metadata.name": "openshift-dns"}}},
        {"ipBlock": {"cidr": "169.254.20.10/32"}},
    ]
    assert {port["port"] for port in rule["ports"]} == {5353}


@pytest.mark.parametrize(
    ("listener", "url"),
    [
        ({}, "https://digits.example"),
        ({"section": "http"}, "http://digits.example"),
        ({"section": "http", "tls": True}, "https://digits.example"),
        ({"tls": False, "path": "/v1"}, "http://digits.example/v1"),
    ],
)
def test_the_url_of_a_gateway_is_as_its_listener_speaks(listener, url):
    settings = decode_section(
        KubernetesSettings, {"gateway": {"name": "public", "hosts": ["digits.example"], **listener}}, ""
    )

    assert find_k8s_network_address(RenderContext(SHIPMENT, settings, Serve()), "team-a") == url


def test_a_route_strips_its_path_because_the_server_knows_none():
    documents = rendered({"gateway": {"name": "public", "path": "/digits"}})

    rewrite = of(documents, "HTTPRoute")["spec"]["rules"][0]["filters"][0]["urlRewrite"]
    assert rewrite == {"path": {"type": "ReplacePrefixMatch", "replacePrefixMatch": "/"}}
    validate(documents)


@pytest.mark.parametrize("percent", [1, 50])
def test_a_canary_by_weight_has_a_service_of_its_own(percent):
    settings = decode_section(KubernetesSettings, OPTIONS["gateway"], "")

    documents = render_kubernetes_canary(SHIPMENT, settings, Serve(), replicas=1, percent=percent)

    weights = of(documents, "HTTPRoute")["spec"]["rules"][0]["backendRefs"]
    assert [backend["weight"] for backend in weights] == [100 - percent, percent]
    assert of(documents, "Service")["metadata"]["name"] == "digits-canary"
    validate(documents)


def test_a_canary_by_replicas_shares_the_service():
    documents = render_kubernetes_canary(SHIPMENT, KubernetesSettings(), Serve(), replicas=2, percent=10)

    chosen = of(documents, "Service")["spec"]["selector"].items()
    labels = of(documents, "Deployment")["spec"]["template"]["metadata"]["labels"]
    live = of(rendered({}), "Deployment")["spec"]["template"]["metadata"]["labels"]
    assert chosen <= labels.items()
    assert chosen <= live.items()
    assert not of(rendered({}), "Deployment")["spec"]["selector"]["matchLabels"].items() <= labels.items()


def test_a_canary_is_under_the_patches_of_what_it_stands_in_for():
    def labelled(kind, name):
        return {"kind": kind, "name": name, "merge": {"metadata": {"labels": {"patched": "yes"}}}}

    patches = [labelled("Deployment", "digits"), labelled("Service", None), labelled("Ingress", "digits")]
    settings = decode_section(KubernetesSettings, {**OPTIONS["gateway"], "patches": patches}, "")

    documents = render_kubernetes_canary(SHIPMENT, settings, Serve(), replicas=1, percent=10)

    patched = {document["metadata"]["name"] for document in documents if "patched" in document["metadata"]["labels"]}
    assert patched == {"digits-canary"}


def test_a_change_of_variables_changes_the_pods():
    red, blue = (of(rendered({"env": {"COLOR": color}}), "Deployment") for color in ("red", "blue"))

    assert red["spec"]["template"] != blue["spec"]["template"]
    assert red["spec"]["selector"] == blue["spec"]["selector"]


def test_a_new_commit_of_the_same_image_does_not_roll_the_pods():
    other = Shipment("digits", SHIPMENT.image, "3", "beef")
    one, two = (
        of(render_kubernetes_release(each, KubernetesSettings(), Serve()), "Deployment") for each in (SHIPMENT, other)
    )

    assert one["spec"] == two["spec"]
    assert one != two


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"autoscaling": {"min": 5, "max": 2}}, "min 5 is more than max 2"),
        ({"autoscaling": {"cpu": None}}, "has no metric to scale by"),
        ({"model_pull": {}}, "model_pull.*missing required field `image`"),
        ({"network_policy": {"egress": [{"ports": [5432]}]}}, r"egress\[0\] needs one of `cidr` and `namespace`"),
        ({"env": {"A": "1"}, "secrets": {"A": {"secret": "s", "key": "k"}}}, "A is in both"),
        ({"resources": {"memory": "much"}}, r"targets\.k8s\.resources\.memory"),
        ({"replcas": 2}, "Did you mean 'replicas'"),
        ({"patches": [{"kind": "Deployment"}]}, r"patches\[0\] needs one of"),
        ({"patches": [{"kind": "Deploymnt", "merge": {}}]}, "Did you mean 'Deployment'"),
        ({"patches": [{"kind": "Service", "json": [{"op": "remove", "path": "/spec/no"}]}]}, "cannot be applied"),
        (
            {"patches": [{"kind": "Service", "merge": {"metadata": {"name": "x"}}}]},
            "changes the kind, name or selector",
        ),
    ],
)
def test_settings_that_make_no_sense_are_refused_by_their_name(settings, message):
    with pytest.raises(ConfigError, match=message):
        rendered(settings)


def test_what_is_dumped_is_what_was_rendered():
    documents = rendered({"env": {"YES": "yes", "NUMBER": "1e3", "TEXT": "a: b\n# c"}})

    assert list(yaml.safe_load_all(dump_yaml_documents(documents))) == documents
