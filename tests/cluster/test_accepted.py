"""The API server accepts every object that unit tests hold as golden YAML: `kubectl apply --dry-run=server`."""

from __future__ import annotations

import os
import subprocess
from pathlib import Path

import pytest
import yaml

from tests.cluster.conftest import KUBECONFIG

GOLDEN = sorted(Path(__file__).parents[1].glob("unit/deploy/k8s/golden/*.yaml"))
EXTENSIONS = ("gateway.networking.k8s.io/v1", "monitoring.coreos.com/v1", "external-secrets.io/v1")


def kubectl(*arguments: str, given: str = "") -> subprocess.CompletedProcess[str]:
    environment = {**os.environ, "KUBECONFIG": KUBECONFIG or ""}
    return subprocess.run(["kubectl", *arguments], input=given, capture_output=True, text=True, env=environment)


def documents(namespace: str) -> list[dict]:
    """Every golden object, placed in a namespace that enforces Pod Security `restricted`."""
    found = [document for file in GOLDEN for document in yaml.safe_load_all(file.read_text()) if document]
    for document in found:
        if document["kind"] == "Namespace":
            document["metadata"]["name"] = f"{namespace}-b"  # the cluster may have one of the golden name
        else:
            document["metadata"]["namespace"] = namespace
    return found


def refused(objects: list[dict]) -> str:
    done = kubectl("apply", "--dry-run=server", "-f", "-", given=yaml.safe_dump_all(objects))
    # The container `proxy` is the user's own, in the golden YAML of patches: the server's warning of it is right.
    own = ("version difference", 'container "proxy"')
    lines = [line for line in done.stderr.splitlines() if not any(text in line for text in own)]
    if done.returncode == 0 and len(done.stdout.splitlines()) != len(objects):
        lines.append(f"{len(objects)} objects were given:\n{done.stdout}")
    return "\n".join(lines)


def test_every_object_of_kubernetes_itself(namespace):
    objects = [document for document in documents(namespace) if document["apiVersion"] not in EXTENSIONS]

    assert len(objects) > 40
    assert refused(objects) == ""


@pytest.mark.parametrize("version", EXTENSIONS)
def test_every_object_of_an_extension(version, namespace):
    if kubectl("get", "--raw", f"/apis/{version}").returncode:
        pytest.skip(f"the cluster has no {version}")
    objects = [document for document in documents(namespace) if document["apiVersion"] == version]

    assert objects
    assert refused(objects) == ""
