"""A real cluster, named by the caller: MLAPP_TEST_KUBECONFIG, and a registry that its nodes can pull from,
MLAPP_TEST_REGISTRY. The images are made here by the local Docker engine, on MLAPP_TEST_BASE, any image with `python3`,
or on the base that scripts/ci/docker.sh makes.

Needs a standard cluster of one node: no LoadBalancer, Ingress controller, metrics-server or cluster DNS. Namespaces are
made for the tests and removed.
"""

from __future__ import annotations

import io
import json
import os
import subprocess
import tarfile
import time
import uuid
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

KUBECONFIG = os.environ.get("MLAPP_TEST_KUBECONFIG")
REGISTRY = os.environ.get("MLAPP_TEST_REGISTRY", "localhost:5000")
MADE = "mlapp-test/python:3.11"
STANDIN = Path(__file__).parent / "standin"
collect_ignore_glob = [] if KUBECONFIG else ["test_*.py"]
collect_ignore = [] if os.environ.get("MLAPP_TEST_FLYTE_CONFIG") else ["flyte"]
SCRIPT = Path(__file__).parents[2] / "scripts" / "ci" / "docker.sh"


@pytest.hookimpl(tryfirst=True)  # pytest-xdist reads the groups in this hook
def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    here = Path(__file__).parent
    for item in items:
        if item.path.is_relative_to(here):
            item.add_marker(pytest.mark.timeout(600))
            item.add_marker(pytest.mark.xdist_group("cluster"))


@pytest.fixture(scope="session")
def base() -> str:
    """The image that the others are made on."""
    import docker

    if "MLAPP_TEST_BASE" in os.environ:
        return os.environ["MLAPP_TEST_BASE"]
    try:
        docker.from_env().images.get(MADE)
    except docker.errors.DockerException:
        subprocess.run([SCRIPT], check=True)
    return MADE


def build(base: str, name: str, **variables: str) -> str:
    """An image of the stand-in server, pushed; its reference by digest."""
    import docker

    lines = [f"FROM {base}", *(f"ENV {key}={value}" for key, value in variables.items())]
    lines += ["COPY server.py load.py /app/", "USER 10001:10001", 'ENTRYPOINT ["python3", "-u", "/app/server.py"]']
    context = io.BytesIO()
    with tarfile.open(fileobj=context, mode="w") as archive:
        for file, data in {
            "Dockerfile": "\n".join(lines).encode(),
            **{path.name: path.read_bytes() for path in STANDIN.glob("*.py")},
        }.items():
            entry = tarfile.TarInfo(file)
            entry.size = len(data)
            archive.addfile(entry, io.BytesIO(data))
    context.seek(0)
    client = docker.from_env()
    repository = f"{REGISTRY}/mlapp-test/standin"
    client.images.build(fileobj=context, custom_context=True, tag=f"{repository}:{name}", rm=True)
    for line in client.api.push(repository, tag=name, stream=True, decode=True):
        if "error" in line:
            raise RuntimeError(line["error"])
        if digest := line.get("aux", {}).get("Digest"):
            found = digest
    return f"{repository}@{found}"


@pytest.fixture(scope="session")
def place(base) -> tuple[str, str, str]:
    """kubeconfig, registry, and base of the images."""
    return KUBECONFIG or "", REGISTRY, base


@pytest.fixture(scope="session")
def image(base) -> Callable[..., str]:
    """Makes an image once: `image("1")`, `image("2", fault="crash")`."""
    images: dict[str, str] = {}

    def get(version: str, fault: str = "") -> str:
        name = f"{version}-{fault or 'good'}"
        if name not in images:
            images[name] = build(base, name, VERSION=version, **({"FAULT": fault} if fault else {}))
        return images[name]

    return get


@pytest.fixture(scope="session")
def api() -> Any:
    """The cluster's API as an administrator."""
    from mlapp.deploy.cluster.api_client import Cluster
    from mlapp.deploy.cluster.connection import connect_cluster
    from mlapp.deploy.k8s.settings import KubernetesSettings

    return Cluster(connect_cluster(KubernetesSettings(kubeconfig=KUBECONFIG, namespace="default"), "targets.k8s"))


@pytest.fixture
def namespace(api) -> Iterator[str]:
    """A namespace that enforces Pod Security `restricted`, for one test."""
    from mlapp.deploy.cluster.api_errors import ApiError
    from mlapp.deploy.cluster.object_kinds import NAMESPACE
    from mlapp.deploy.cluster.transport import ApiRequest

    name = f"mlapp-test-{uuid.uuid4().hex[:8]}"
    labels = {"pod-security.kubernetes.io/enforce": "restricted"}
    document = {"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": name, "labels": labels}}
    api.create_object(document)
    account = f"/api/v1/namespaces/{name}/serviceaccounts/default"
    for _ in range(100):  # pods are refused until the controller has made it
        try:
            api.transport.send_json(ApiRequest("GET", account, verb="get", object="default account"))
            break
        except ApiError:
            time.sleep(0.2)
    yield name
    api.delete_object(api.get_object(NAMESPACE, name))


@pytest.fixture
def target(namespace) -> Callable[..., Any]:
    """The target in the test's namespace; keywords are settings of `targets.k8s`."""
    from mlapp.config import Serve, Settings
    from mlapp.deploy import open_target

    def make_target(app: str = "digits", **settings: Any) -> Any:
        resources = {"cpu": "20m", "cpu_limit": None, "memory": "64Mi", **settings.pop("resources", {})}
        rollout = {"timeout": 180, **settings.pop("rollout", {})}
        defaults = {"kubeconfig": KUBECONFIG, "namespace": namespace}
        raw = {**defaults, "resources": resources, "rollout": rollout, **settings}
        return open_target("k8s", app, Settings(targets={"k8s": raw}, serve=Serve(drain=5)))

    return make_target


@pytest.fixture
def ship(image) -> Callable[..., Any]:
    """A shipment of the stand-in."""
    from mlapp.deploy import Shipment

    def make_shipment(version: str = "1", fault: str = "", reference: str | None = None) -> Shipment:
        return Shipment("digits", reference or image(version, fault), version, f"commit{version}", example=[{"x": 1}])

    return make_shipment


class Load:
    """Requests against a Service from a pod of the cluster, by its IP: it needs neither DNS nor a way in from here.

    They go on until `stop`, however long a deploy takes on a busy cluster.
    """

    def __init__(self, cluster: Any, image: str, rate: float, service: str) -> None:
        from mlapp.deploy.cluster.object_kinds import POD, SERVICE

        self._cluster, self._pod = cluster, POD
        address = cluster.get_object(SERVICE, service)["spec"]["clusterIP"]
        if address == "None":
            pytest.skip(f"the Service {service} is headless, so that only DNS leads to its pods")
        self.name = f"load-{uuid.uuid4().hex[:6]}"
        container = {
            "name": "load",
            "image": image,
            "command": ["python3", "/app/load.py", address, "80", str(rate)],
            "securityContext": {"allowPrivilegeEscalation": False, "capabilities": {"drop": ["ALL"]}},
        }
        security = {"runAsNonRoot": True, "seccompProfile": {"type": "RuntimeDefault"}}
        spec = {
            "restartPolicy": "Never",
            "terminationGracePeriodSeconds": 90,  # requests that are under way end first
            "containers": [container],
            "securityContext": security,
        }
        cluster.create_object({"apiVersion": "v1", "kind": "Pod", "metadata": {"name": self.name}, "spec": spec})
        phase = self._wait_for_phase("Running", seconds=60)
        assert phase == "Running", self._read_output()

    def stop(self) -> dict[str, Any]:
        """Stop the load once no pod leaves any more; what came of the requests."""
        end = time.monotonic() + 120
        while any("deletionTimestamp" in pod["metadata"] for pod in self._cluster.list_objects(self._pod)):
            assert time.monotonic() < end, "a pod does not go"
            time.sleep(0.5)
        # The deadline ends the container with SIGTERM, and unlike a deletion keeps the pod and its log.
        self._cluster.patch_object(self._pod, self.name, {"spec": {"activeDeadlineSeconds": 1}})
        self._wait_for_phase(seconds=120)
        output = self._read_output()
        status = self._cluster.get_object(self._pod, self.name)["status"]
        assert output, f"the load ended without a result: {status}"
        outcome: dict[str, Any] = json.loads(output[-1])
        return outcome

    def _wait_for_phase(self, *phases: str, seconds: float) -> str:
        end = time.monotonic() + seconds
        while time.monotonic() < end:
            phase = self._cluster.get_object(self._pod, self.name)["status"]["phase"]
            if phase in (*phases, "Succeeded", "Failed"):
                return str(phase)
            time.sleep(0.5)
        raise AssertionError(f"{self.name} is not {phases} after {seconds} s")

    def _read_output(self) -> list[str]:
        from mlapp.deploy.cluster.transport import read_transport_lines

        return [line.decode() for line in read_transport_lines(self._cluster.read_pod_log(self.name))]


@pytest.fixture
def load(image, target) -> Callable[..., Load]:
    """Starts constant load, in requests a second, on the app's Service, as soon as it is there."""
    return lambda rate=300, service="digits": Load(target().cluster, image("1"), rate, service)
