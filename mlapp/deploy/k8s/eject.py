"""Write the rendered objects as files to edit and keep: plain YAML, a kustomization, or a Helm chart."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from mlapp.deploy.cluster import labels
from mlapp.deploy.cluster.document_files import find_pod_template, group_documents_by_file, strip_owner_labels
from mlapp.deploy.cluster.naming import Names
from mlapp.deploy.cluster.object_kinds import CONFIG_MAP, CRON_JOB, DEPLOYMENT, INGRESS, ROUTE, SERVICE
from mlapp.deploy.k8s.chart_documents import make_chart_notes, make_values_schema
from mlapp.deploy.target import DeployError
from mlapp.deploy.yaml_dump import dump_yaml
from mlapp.errors import UsageError, suggest_nearest

FORMATS = ("yaml", "kustomize", "helm")


def eject_documents(names: Names, documents: list[dict[str, Any]], folder: Path, format: str) -> list[Path]:
    """Write the files for the user to keep. Nothing is overwritten.

    Raises:
        UsageError: the format is unknown.
        DeployError: a file already exists.
    """
    if format not in FORMATS:
        raise UsageError(
            f"There is no format '{format}'.{suggest_nearest(format, FORMATS)}", f"Formats: {', '.join(FORMATS)}."
        )
    documents = [strip_owner_labels(document) for document in documents]
    make_files = {"yaml": _eject_plain_yaml, "kustomize": _eject_kustomization, "helm": _eject_helm_chart}[format]
    files = make_files(names, documents)
    for name in files:
        if (folder / name).exists():
            raise DeployError(f"{folder / name} already exists.", "Remove it, or give another folder with --to.")
    paths = []
    for name, text in files.items():
        path = folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text, encoding="utf-8")
        paths.append(path)
    return paths


def _eject_plain_yaml(names: Names, documents: list[dict[str, Any]]) -> dict[str, str]:
    return {name: dump_yaml(document) for name, document in group_documents_by_file(documents).items()}


def _eject_kustomization(names: Names, documents: list[dict[str, Any]]) -> dict[str, str]:
    """Files with a generator instead of the ConfigMap. It also names the ConfigMap by its content."""
    config = next(document for document in documents if document["kind"] == CONFIG_MAP.kind)
    others = [document for document in documents if document is not config]
    plain_name = f"{names.base}-config"
    namespace = config["metadata"].get("namespace")
    files = group_documents_by_file(others)
    image = ""
    for document in files.values():
        document["metadata"].pop("namespace", None)
        if document["kind"] == DEPLOYMENT.kind:
            image = find_pod_template(document)["spec"]["containers"][0]["image"]
        _rename_config_map(document, config["metadata"]["name"], plain_name)
    repository, _, digest = image.partition("@")
    kustomization: dict[str, Any] = {
        "apiVersion": "kustomize.config.k8s.io/v1beta1",
        "kind": "Kustomization",
        **({"namespace": namespace} if namespace else {}),
        "resources": list(files),
        "configMapGenerator": [
            {
                "name": plain_name,
                "literals": [f"{key}={value}" for key, value in config["data"].items()],
                "options": {"labels": config["metadata"]["labels"], "immutable": True},
            }
        ],
    }
    if digest:
        kustomization["images"] = [{"name": repository, "digest": digest}]
    return {"kustomization.yaml": dump_yaml(kustomization), **{name: dump_yaml(text) for name, text in files.items()}}


def _rename_config_map(document: dict[str, Any], old: str, new: str) -> None:
    """Replace the name of a ConfigMap in the object's containers, if it has any."""
    pod = find_pod_template(document).get("spec", {})
    for container in (*pod.get("containers", []), *pod.get("initContainers", [])):
        for source in container.get("envFrom", []):
            if source.get("configMapRef", {}).get("name") == old:
                source["configMapRef"]["name"] = new


def _eject_helm_chart(names: Names, documents: list[dict[str, Any]]) -> dict[str, str]:
    """A chart with values for what users change: image, replicas, resources, variables, addresses."""
    values: dict[str, Any] = {}
    templates: dict[str, str] = {}
    model_version: str | None = None
    old_config = next(document for document in documents if document["kind"] == CONFIG_MAP.kind)["metadata"]["name"]
    config = f"{names.base}-config-{{{{ .Values.env | toJson | sha256sum | trunc 8 }}}}"
    for name, document in group_documents_by_file(documents).items():
        if document["kind"] == "Namespace":
            continue  # helm creates it: --create-namespace
        marks = _Marks()
        metadata = document["metadata"]
        metadata["namespace"] = marks.put_mark("{{ .Release.Namespace }}")
        metadata["labels"][labels.MANAGED_BY] = marks.put_mark("{{ .Release.Service }}")
        if document["kind"] == CONFIG_MAP.kind:
            metadata["name"] = marks.put_mark(config)
            values["env"] = document["data"]
            document["data"] = marks.put_mark("{{ toYaml .Values.env | nindent 2 }}", block=True)
        elif document["kind"] == DEPLOYMENT.kind:
            _rename_config_map(document, old_config, marks.put_mark(config))
            _extract_ejected_values(document, values, marks)
            model_version = _extract_model_version(document, marks)
        elif document["kind"] == CRON_JOB.kind:
            _rename_config_map(document, old_config, marks.put_mark(config))
            _extract_image(document, marks)
            _refer_to_server_resources(document, marks)
        else:
            _extract_network_values(document, values, marks)
        templates[f"templates/{name}"] = marks.fill_marks(dump_yaml(document))
    chart = {
        "apiVersion": "v2",
        "name": names.base,
        "description": f"The model server of {names.app}.",
        "type": "application",
        "version": "0.1.0",
        **({"appVersion": model_version} if model_version else {}),
    }
    return {
        "Chart.yaml": dump_yaml(chart),
        "values.yaml": dump_yaml(values),
        "values.schema.json": make_values_schema(values),
        "templates/NOTES.txt": make_chart_notes(documents),
        **templates,
    }


def _extract_network_values(document: dict[str, Any], values: dict[str, Any], marks: _Marks) -> None:
    """Replace what users change in a Service, a route, an autoscaler or an Ingress by values of the chart."""
    spec = document.get("spec", {})
    if document["kind"] == SERVICE.kind:
        values["service"] = {"type": spec["type"], "port": spec["ports"][0]["port"]}
        spec["type"] = marks.put_mark("{{ .Values.service.type }}")
        spec["ports"][0]["port"] = marks.put_mark("{{ .Values.service.port }}", number=True)
    elif document["kind"] == ROUTE.kind:
        for backend in spec["rules"][0]["backendRefs"]:
            backend["port"] = marks.put_mark("{{ .Values.service.port }}", number=True)
    elif document["kind"] == "HorizontalPodAutoscaler":
        values["autoscaling"] = {"minReplicas": spec["minReplicas"], "maxReplicas": spec["maxReplicas"]}
        spec["minReplicas"] = marks.put_mark("{{ .Values.autoscaling.minReplicas }}", number=True)
        spec["maxReplicas"] = marks.put_mark("{{ .Values.autoscaling.maxReplicas }}", number=True)
    elif document["kind"] == INGRESS.kind:
        host = spec["rules"][0]["host"]
        values["ingress"] = {"host": host}
        mark = marks.put_mark("{{ .Values.ingress.host }}")
        spec["rules"][0]["host"] = mark
        for entry in spec.get("tls", []):
            entry["hosts"] = [mark if tls_host == host else tls_host for tls_host in entry["hosts"]]


def _extract_ejected_values(document: dict[str, Any], values: dict[str, Any], marks: _Marks) -> None:
    values["image"] = _extract_image(document, marks)
    pod = find_pod_template(document)["spec"]
    values["resources"] = pod["containers"][0]["resources"]
    pod["containers"][0]["resources"] = marks.put_mark("{{ toYaml .Values.resources | nindent 12 }}", block=True)
    if "replicas" in document["spec"]:
        values["replicas"] = document["spec"]["replicas"]
        document["spec"]["replicas"] = marks.put_mark("{{ .Values.replicas }}", number=True)


def _extract_model_version(document: dict[str, Any], marks: _Marks) -> str | None:
    """Let the version labels follow the chart's `appVersion`. Returns the version; None if the model has none."""
    version: str | None = document["metadata"]["labels"].get(labels.VERSION)
    for metadata in (document["metadata"], find_pod_template(document)["metadata"]):
        if labels.VERSION in metadata["labels"]:
            metadata["labels"][labels.VERSION] = marks.put_mark("{{ .Chart.AppVersion }}")
    return version


def _refer_to_server_resources(document: dict[str, Any], marks: _Marks) -> None:
    """Let a job follow the server's resources in the values, as far as it has them: no GPU, and no limit of CPU."""
    (container,) = find_pod_template(document)["spec"]["containers"]
    for kind, names in container["resources"].items():
        chosen = " ".join(f'"{name}"' for name in names)
        action = f"{{{{ pick (.Values.resources.{kind} | default dict) {chosen} | toYaml | nindent 18 }}}}"
        container["resources"][kind] = marks.put_mark(action, block=True)


def _extract_image(document: dict[str, Any], marks: _Marks) -> dict[str, str]:
    """Make the containers of the server's image use the chart's image values. Returns these values."""
    pod = find_pod_template(document)["spec"]
    server = pod["containers"][0]["image"]
    repository, at, digest = server.partition("@")
    if at:
        value = {"repository": repository, "digest": digest}
        image = marks.put_mark("{{ .Values.image.repository }}@{{ .Values.image.digest }}")
    else:
        value = {"reference": repository}
        image = marks.put_mark("{{ .Values.image.reference }}")
    for container in (*pod["containers"], *pod.get("initContainers", [])):
        if container["image"] == server:  # sidecars and the init container have other images
            container["image"] = image
    return value


class _Marks:
    """Placeholders in the YAML for template actions, which are not valid YAML."""

    def __init__(self) -> None:
        self._actions: dict[str, tuple[str, bool, bool]] = {}

    def put_mark(self, action: str, *, number: bool = False, block: bool = False) -> str:
        """A placeholder for `action`. A `number` has no quotes; a `block` is YAML of several lines."""
        mark = f"MARK{len(self._actions)}MARK"
        self._actions[mark] = (action, number, block)
        return mark

    def fill_marks(self, text: str) -> str:
        """The text with placeholders replaced by their actions; braces of the text itself are escaped."""
        text = text.replace("{{", '{{ "{{" }}')
        for mark, (action, number, block) in self._actions.items():
            text = text.replace(mark, action if number or block else f'"{action}"')
        return text
