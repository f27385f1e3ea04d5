"""Generated documents: the page of settings, the schema for editors, ejected files and the Role."""

from __future__ import annotations

import importlib.util
import json
from dataclasses import replace
from pathlib import Path

import jsonschema
import pytest
import yaml

from mlapp.config import Serve, decode_section
from mlapp.deploy import DeployError, Shipment
from mlapp.deploy.k8s import KubernetesSettings, KubernetesTarget
from mlapp.deploy.settings_schema import make_settings_schema
from mlapp.deploy.yaml_dump import dump_yaml_documents
from tests import tools

ROOT = Path(__file__).parents[4]
SHIPMENT = Shipment("digits", "registry.example/digits@sha256:" + "1" * 64, "3", "12e4567")
MONITORED = replace(SHIPMENT, monitor_schedule="2 * * * *", monitor_bucket=True)
READ_OTHERWISE = {
    "YES": "yes",
    "ANSWER": "y",
    "FLOAT": "1e3",
    "OCTAL": "0o17",
    "BIG": "1_000",
    "HEX": "0x1F",
    "NONE": "~",
}
FULL = {
    "namespace": {"name": "team-a", "create": True},
    "autoscaling": {},
    "ingress": {"host": "digits.example", "tls_secret": "digits-tls"},
    "gateway": {"name": "public", "hosts": ["digits.example"]},
    "monitoring": {"service_monitor": True},
    "env": {"COLOR": "blue", "BRACES": "{{ not a template }}", "LINES": "a: b\n# c", **READ_OTHERWISE},
    "secrets": {"DATABASE_URL": {"secret": "digits-db", "key": "url"}},
    "external_secret": {"store": "vault", "data": {"TOKEN": "ml/digits#token"}},
    "volumes": {"data": {"path": "/data", "size": "5Gi"}, "more": {"path": "/more"}},
    "model_pull": {
        "image": "amazon/aws-cli@sha256:" + "3" * 64,
        "command": ["aws", "s3", "sync", "s3://m", "/app/model"],
    },
}


def target(**settings):
    return KubernetesTarget("digits", decode_section(KubernetesSettings, settings, "targets.k8s"), Serve())


def comparable(text):
    """Objects by kind and name, less who manages them, their namespace, and the hash in the ConfigMap's name."""
    config = next(each for each in yaml.safe_load_all(text) if each["kind"] == "ConfigMap")["metadata"]["name"]
    documents = list(yaml.safe_load_all(text.replace(config, "digits-config")))
    for document in documents:
        document["metadata"].pop("namespace", None)
        document["metadata"]["labels"].pop("app.kubernetes.io/managed-by", None)
    return {(each["kind"], each["metadata"]["name"]): each for each in documents if each["kind"] != "Namespace"}


def ejected_as_yaml(folder, settings, shipment=SHIPMENT):
    files = target(**settings).eject(shipment, folder, "yaml")
    return comparable("---\n".join(file.read_text() for file in files))


def test_the_page_lists_every_setting():
    spec = importlib.util.spec_from_file_location("kubernetes_settings", ROOT / "scripts/kubernetes_settings.py")
    script = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(script)

    page = ROOT / "docs/reference/kubernetes-settings.md"
    assert page.read_text() == script.render_page(), "run python scripts/kubernetes_settings.py"


def test_an_editor_accepts_what_is_right_and_marks_what_is_not():
    checker = jsonschema.Draft202012Validator(make_settings_schema())
    right = {"targets": {"k8s": {"replicas": 2, "resources": {"cpu": 1}, "namespace": "a"}}}
    over = {"environments": {"staging": {"targets": {"k8s": {"replicas": 1}}}}}

    assert list(checker.iter_errors({**right, **over})) == []
    for wrong in ({"replcas": 2}, {"replicas": "two"}, {"resources": {"memory": "much"}}):
        assert list(checker.iter_errors({"targets": {"k8s": wrong}}))


def test_plain_yaml_is_what_is_applied_but_for_our_marks(tmp_path):
    written = target(**FULL).eject(SHIPMENT, tmp_path, "yaml")

    documents = [yaml.safe_load(path.read_text()) for path in written]
    assert {document["kind"] for document in documents} == {
        document["kind"] for document in target(**FULL).render(SHIPMENT)
    }
    assert "mlapp/app" not in "".join(path.read_text() for path in written)


def test_kubectl_reads_every_value_as_it_was_meant(tmp_path):
    """kubectl's YAML has more numbers than PyYAML's: a variable `1e3` or a commit 12e4567 must reach it in quotes."""
    documents = target(**FULL).render(SHIPMENT)
    (tmp_path / "all.yaml").write_text(dump_yaml_documents(documents))

    done = tools.run(
        "kubectl", "label", "--local", "--filename", tmp_path / "all.yaml", "read=yes", "-o", "jsonpath-as-json={}"
    )

    assert done.returncode == 0, done.stderr
    for document in documents:
        document["metadata"]["labels"]["read"] = "yes"
    assert [read for text in done.stdout.split("\n]\n")[:-1] for read in json.loads(text + "]")] == documents


def test_nothing_is_overwritten(tmp_path):
    target().eject(SHIPMENT, tmp_path, "yaml")

    with pytest.raises(DeployError, match="already exists"):
        target().eject(SHIPMENT, tmp_path, "yaml")


def test_kustomize_builds_the_same_objects(tmp_path):
    target(**FULL).eject(SHIPMENT, tmp_path, "kustomize")

    built = tools.run("kubectl", "kustomize", tmp_path)

    assert built.returncode == 0, built.stderr
    assert comparable(built.stdout) == ejected_as_yaml(tmp_path / "plain", FULL)


@pytest.mark.parametrize("settings", [{}, FULL, {"replicas": 3, "resources": {"cpu": 2, "gpu": 1, "cpu_limit": None}}])
def test_helm_renders_the_same_objects(settings, tmp_path):
    target(**settings).eject(SHIPMENT, tmp_path / "chart", "helm")

    linted = tools.run("helm", "lint", "--strict", tmp_path / "chart")
    show = tools.run("helm", "template", "digits", tmp_path / "chart", "--namespace", "team-a")

    assert linted.returncode == 0, linted.stdout
    assert show.returncode == 0, show.stderr
    assert comparable(show.stdout) == ejected_as_yaml(tmp_path / "plain", settings)


def test_helm_takes_other_values(tmp_path):
    target(**FULL).eject(SHIPMENT, tmp_path, "helm")
    values = {
        "image": {"digest": "sha256:" + "2" * 64},
        "env": {"COLOR": "red"},
        "resources": {"requests": {"cpu": 3}},
        "autoscaling": {"maxReplicas": 9},
        "service": {"port": 8080},
        "ingress": {"host": "other.example"},
    }
    (tmp_path / "mine.yaml").write_text(yaml.safe_dump(values))

    def show(*more):
        done = tools.run("helm", "template", "digits", tmp_path, *more)
        assert done.returncode == 0, done.stderr
        return {(each["kind"], each["metadata"]["name"]): each for each in yaml.safe_load_all(done.stdout)}

    before, after = show(), show("--values", tmp_path / "mine.yaml")
    config = next(name for kind, name in after if kind == "ConfigMap")
    container = after["Deployment", "digits"]["spec"]["template"]["spec"]["containers"][0]
    ingress = after["Ingress", "digits"]["spec"]
    assert container["image"] == "registry.example/digits@sha256:" + "2" * 64
    assert container["resources"]["requests"] == {"cpu": 3, "memory": "1Gi"}
    assert container["envFrom"][0] == {"configMapRef": {"name": config}}
    assert ("ConfigMap", config) not in before, "pods roll when a variable changes"
    assert after["ConfigMap", config]["data"]["COLOR"] == "red"
    assert after["HorizontalPodAutoscaler", "digits"]["spec"]["maxReplicas"] == 9
    assert after["Service", "digits"]["spec"]["ports"][0]["port"] == 8080
    assert (ingress["rules"][0]["host"], ingress["tls"][0]["hosts"]) == ("other.example", ["other.example"])
    assert after["HTTPRoute", "digits"]["spec"]["rules"][0]["backendRefs"] == [{"name": "digits", "port": 8080}]


@pytest.mark.parametrize(
    ("wrong", "names"),
    [
        ("--set=replica=3", "replica"),
        ("--set=image.digest=latest", "digest"),
        ("--set=image.tag=1", "tag"),
        ("--set=env.COLOR=1", "COLOR"),
        ("--set=resources.requests.cpu=two", "cpu"),
        ("--set=resources.request.cpu=2", "request"),
        ("--set=service.port=http", "port"),
        ("--set=service.type=Public", "type"),
        ("--set=autoscaling.minReplicas=0", "minReplicas"),
        ("--set=ingress.host=", "host"),
        ("--set=ingress=null", "ingress"),
    ],
)
def test_helm_refuses_a_wrong_value(wrong, names, tmp_path):
    target(**FULL).eject(SHIPMENT, tmp_path, "helm")
    right = [
        "--set-string=env.COLOR=1",
        "--set=resources.limits.cpu=null,global.a=1,service.type=NodePort,enabled=true",
    ]

    shown = tools.run("helm", "template", "digits", tmp_path, *right)
    assert shown.returncode == 0, shown.stderr
    refused = tools.run("helm", "template", "digits", tmp_path, wrong)
    assert refused.returncode != 0
    assert "values don't meet the specifications of the schema" in refused.stderr
    assert names in refused.stderr


def test_every_value_of_a_chart_has_a_schema(tmp_path):
    target(**FULL).eject(SHIPMENT, tmp_path, "helm")
    schema = json.loads((tmp_path / "values.schema.json").read_text())
    values = yaml.safe_load((tmp_path / "values.yaml").read_text())
    jsonschema.Draft7Validator.check_schema(schema)
    jsonschema.validate(values, schema)
    assert set(values) == set(schema["required"])


def test_a_chart_says_how_to_reach_the_server(tmp_path):
    target(**FULL).eject(SHIPMENT, tmp_path, "helm")

    done = tools.run("helm", "install", "digits", tmp_path, "--dry-run=client", "--namespace", "team-a")
    notes = done.stdout.partition("NOTES:")[2]
    assert "digits with version 3 of the model is in the namespace team-a." in notes
    assert "kubectl --namespace team-a rollout status deployment/digits" in notes
    assert "kubectl --namespace team-a port-forward service/digits 8000:80" in notes
    assert "From outside, it answers at the host digits.example." in notes


def test_the_monitoring_job_keeps_its_configuration_and_image(tmp_path):
    target().eject(MONITORED, tmp_path / "kustomization", "kustomize")
    target().eject(MONITORED, tmp_path / "chart", "helm")
    plain = ejected_as_yaml(tmp_path / "plain", {}, MONITORED)

    built = tools.run("kubectl", "kustomize", tmp_path / "kustomization")
    assert comparable(built.stdout) == plain
    shown = tools.run("helm", "template", "digits", tmp_path / "chart", "--namespace", "team-a")
    assert comparable(shown.stdout) == plain
    other = "--set=image.digest=sha256:" + "2" * 64
    shown = tools.run("helm", "template", "digits", tmp_path / "chart", other)
    assert "1" * 64 not in shown.stdout
    assert "mlapp/app" not in built.stdout


def test_the_monitoring_job_of_a_chart_has_the_memory_of_its_values(tmp_path):
    target(resources={"gpu": 1}).eject(MONITORED, tmp_path, "helm")

    def show_resources(*values):
        shown = tools.run("helm", "template", "digits", tmp_path, *values)
        assert shown.returncode == 0, shown.stderr
        job = next(each for each in yaml.safe_load_all(shown.stdout) if each["kind"] == "CronJob")
        (container,) = job["spec"]["jobTemplate"]["spec"]["template"]["spec"]["containers"]
        return container["resources"]

    assert show_resources() == {"requests": {"cpu": "500m", "memory": "1Gi"}, "limits": {"memory": "1Gi"}}
    assert show_resources("--set=resources.limits.memory=3Gi")["limits"] == {"memory": "3Gi"}
    assert show_resources("--set=resources.limits=null") == {
        "requests": {"cpu": "500m", "memory": "1Gi"},
        "limits": {},
    }


def test_a_chart_has_the_version_of_the_model(tmp_path):
    target().eject(SHIPMENT, tmp_path, "helm")
    file = tmp_path / "Chart.yaml"

    assert yaml.safe_load(file.read_text())["appVersion"] == SHIPMENT.model_version
    file.write_text(file.read_text().replace("appVersion: '3'", "appVersion: '4'"))
    shown = tools.run("helm", "template", "digits", tmp_path)
    deployment = next(each for each in yaml.safe_load_all(shown.stdout) if each["kind"] == "Deployment")
    for metadata in (deployment["metadata"], deployment["spec"]["template"]["metadata"]):
        assert metadata["labels"]["app.kubernetes.io/version"] == "4"


def test_a_chart_keeps_what_people_change_in_its_values(tmp_path):
    target(replicas=3).eject(SHIPMENT, tmp_path, "helm")

    values = yaml.safe_load((tmp_path / "values.yaml").read_text())
    assert values["image"]["digest"] == "sha256:" + "1" * 64
    assert values["replicas"] == 3
    template = (tmp_path / "templates/deployment.yaml").read_text()
    assert 'image: "{{ .Values.image.repository }}@{{ .Values.image.digest }}"' in template
    assert "replicas: {{ .Values.replicas }}" in template


def test_the_role_holds_no_secrets_and_no_other_namespace():
    documents = target(namespace="team-a", replicas=2).rbac(SHIPMENT)

    rules = next(document for document in documents if document["kind"] == "Role")["rules"]
    assert {document["kind"] for document in documents} == {"ServiceAccount", "Role", "RoleBinding"}
    assert "secrets" not in str(rules)
    assert "*" not in str(rules)


def test_the_role_of_a_project_with_monitoring_makes_its_cron_job(project, mlapp, monkeypatch, tmp_path):
    monkeypatch.setenv("KUBECONFIG", str(tmp_path / "none"))
    project("from mlapp import App\napp = App('digits')\n", mlapp__yaml="monitor: {url: 's3://bucket/monitor'}\n")

    ran = mlapp("eject", "rbac", "--namespace", "team-a")

    role = next(each for each in yaml.safe_load_all(ran.out) if each["kind"] == "Role")
    (verbs,) = (rule["verbs"] for rule in role["rules"] if "cronjobs" in rule["resources"])
    assert verbs == ["get", "list", "create", "patch", "delete"]
