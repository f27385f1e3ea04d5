"""What users read and take with them: the page of settings, the schema for editors, ejected files, the Role."""

from __future__ import annotations

import functools
import hashlib
import importlib.util
import json
import re
import shutil
import subprocess
from pathlib import Path

import jsonschema
import pytest
import yaml

from mlapp.config import Serve, section
from mlapp.deploy import DeployError, Shipment
from mlapp.deploy.k8s import KubernetesSettings, KubernetesTarget
from mlapp.deploy.schema import schema

ROOT = Path(__file__).parents[4]
SHIPMENT = Shipment("digits", "registry.example/digits@sha256:" + "1" * 64, "3", "c0ffee")
FULL = {
    "namespace": {"name": "team-a", "create": True},
    "autoscaling": {},
    "ingress": {"host": "digits.example", "tls_secret": "digits-tls"},
    "env": {"COLOR": "blue", "BRACES": "{{ not a template }}"},
}


def target(**settings):
    return KubernetesTarget("digits", section(KubernetesSettings, settings, "targets.k8s"), Serve())


def test_the_page_lists_every_setting():
    spec = importlib.util.spec_from_file_location("kubernetes_settings", ROOT / "scripts/kubernetes_settings.py")
    script = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(script)

    assert (ROOT / "docs/kubernetes.md").read_text() == script.document(), "run python scripts/kubernetes_settings.py"


def test_an_editor_accepts_what_is_right_and_marks_what_is_not():
    checker = jsonschema.Draft202012Validator(schema())
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


def test_nothing_is_overwritten(tmp_path):
    target().eject(SHIPMENT, tmp_path, "yaml")

    with pytest.raises(DeployError, match="is there already"):
        target().eject(SHIPMENT, tmp_path, "yaml")


@pytest.mark.skipif(not shutil.which("kubectl"), reason="kustomize comes with kubectl, which is not here")
def test_kustomize_builds_the_same_objects(tmp_path):
    target(**FULL).eject(SHIPMENT, tmp_path, "kustomize")

    built = subprocess.run(["kubectl", "kustomize", str(tmp_path)], capture_output=True, text=True)

    assert built.returncode == 0, built.stderr
    documents = {document["kind"]: document for document in yaml.safe_load_all(built.stdout)}
    container = documents["Deployment"]["spec"]["template"]["spec"]["containers"][0]
    config = documents["ConfigMap"]
    assert container["image"] == SHIPMENT.image
    assert container["envFrom"] == [{"configMapRef": {"name": config["metadata"]["name"]}}]
    assert config["data"]["COLOR"] == "blue"
    assert len(documents) == len(target(**FULL).render(SHIPMENT))


@pytest.mark.skipif(not shutil.which("helm"), reason="helm is not here")
def test_helm_accepts_the_chart(tmp_path):
    target(**FULL).eject(SHIPMENT, tmp_path, "helm")
    subprocess.run(["helm", "lint", "--strict", str(tmp_path)], check=True)

    shown = ["helm", "template", "digits", str(tmp_path), "--namespace", "team-a", "--set", "env.COLOR=red"]
    built = subprocess.run(shown, capture_output=True, text=True, check=True).stdout

    documents = {document["kind"]: document for document in yaml.safe_load_all(built)}
    container = documents["Deployment"]["spec"]["template"]["spec"]["containers"][0]
    assert container["image"] == SHIPMENT.image
    assert container["envFrom"] == [{"configMapRef": {"name": documents["ConfigMap"]["metadata"]["name"]}}]
    assert documents["ConfigMap"]["data"]["COLOR"] == "red"


def test_a_chart_keeps_what_people_change_in_its_values(tmp_path):
    target(replicas=3).eject(SHIPMENT, tmp_path, "helm")

    values = yaml.safe_load((tmp_path / "values.yaml").read_text())
    assert values["image"]["digest"] == "sha256:" + "1" * 64
    assert values["replicas"] == 3
    template = (tmp_path / "templates/deployment.yaml").read_text()
    assert 'image: "{{ .Values.image.repository }}@{{ .Values.image.digest }}"' in template
    assert "replicas: {{ .Values.replicas }}" in template


def test_a_chart_with_its_own_values_is_what_is_applied(tmp_path):
    """Filled in here as helm fills in the few actions that a chart of ours has."""
    target(**FULL, replicas=2).eject(SHIPMENT, tmp_path, "helm")
    values = yaml.safe_load((tmp_path / "values.yaml").read_text())

    def filled(action):
        words = action[1].strip()
        if words == '"{{"':
            return "{{"
        if words.startswith(".Release."):
            return {"Namespace": "team-a", "Service": "Helm"}[words.removeprefix(".Release.")]
        place = re.search(r"\.Values((?:\.\w+)+)", words)[1].strip(".").split(".")
        value = functools.reduce(lambda inner, key: inner[key], place, values)
        if "sha256sum" in words:
            return hashlib.sha256(json.dumps(value, separators=(",", ":")).encode()).hexdigest()[:8]
        if "nindent" in words:
            depth = " " * int(words.rpartition(" ")[2])
            return "\n" + "".join(f"{depth}{line}\n" for line in yaml.safe_dump(value).splitlines())
        return str(value)

    made = {}
    for file in (tmp_path / "templates").iterdir():
        document = yaml.safe_load(re.sub(r"\{\{(.*?)\}\}", filled, file.read_text()))
        made[document["kind"]] = document

    for wanted in target(**FULL, replicas=2).render(SHIPMENT):
        if wanted["kind"] not in ("Namespace", "ConfigMap", "Deployment"):
            assert made[wanted["kind"]].get("spec") == wanted.get("spec")
    container = made["Deployment"]["spec"]["template"]["spec"]["containers"][0]
    assert container["image"] == SHIPMENT.image
    assert container["resources"]["requests"] == {"cpu": "500m", "memory": "512Mi"}
    assert container["envFrom"] == [{"configMapRef": {"name": made["ConfigMap"]["metadata"]["name"]}}]
    assert made["ConfigMap"]["data"]["BRACES"] == "{{ not a template }}"


def test_the_role_holds_no_secrets_and_no_other_namespace():
    documents = target(namespace="team-a", replicas=2).rbac(SHIPMENT)

    rules = next(document for document in documents if document["kind"] == "Role")["rules"]
    assert {document["kind"] for document in documents} == {"ServiceAccount", "Role", "RoleBinding"}
    assert "secrets" not in str(rules)
    assert "*" not in str(rules)
