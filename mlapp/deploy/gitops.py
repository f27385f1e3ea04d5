"""`mlapp eject gitops`: objects that make Argo CD or Flux apply the folder that `mlapp deploy --to-git` writes."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

from mlapp.config import Monitor
from mlapp.deploy.cluster.cluster_target import ClusterTarget
from mlapp.deploy.cluster.settings import Canary
from mlapp.deploy.git_release import choose_release_folder
from mlapp.deploy.k8s import KubernetesTarget
from mlapp.deploy.target import Target
from mlapp.deploy.yaml_dump import dump_yaml, dump_yaml_documents
from mlapp.errors import UsageError, suggest_nearest
from mlapp.monitoring.rules_file import make_rules
from mlapp.project import Project
from mlapp.provenance import query_git
from mlapp.reporting import Reporter

FORMATS = ("argocd", "flux")
PLACEHOLDER_URL = "https://git.example.org/team/deployments.git"
UNCOUNTED_PATHS = "/livez|/readyz|/health|/metrics|/ping"


@dataclass(frozen=True)
class GitopsOptions:
    """The options of `mlapp eject gitops`.

    Attributes:
        format: `argocd` or `flux`.
        repository: URL of the repository with the release; by default the project's origin.
        path: the folder in the repository; by default the one that `mlapp deploy --to-git` uses.
        with_rollout: whether Argo Rollouts scales the Deployment.
        prometheus: its URL, for the analysis of a canary.
    """

    format: str
    repository: str | None
    path: str | None
    branch: str
    with_rollout: bool
    prometheus: str


@dataclass(frozen=True)
class DeployedFolder:
    """The folder of a repository that Argo CD or Flux applies, and the app in it.

    Attributes:
        title: the name of the objects of Argo CD or Flux.
        name: the name of the app's objects.
    """

    title: str
    name: str
    namespace: str
    repository: str
    branch: str
    path: str


def write_gitops_files(
    project: Project, target: Target[Any], folder: Path, options: GitopsOptions, progress: Reporter
) -> list[Path]:
    """Write the files into `folder`, without overwriting any; returns their paths.

    Raises:
        UsageError: the format is unknown, the target has no Kubernetes objects, or a file already exists.
    """
    if options.format not in FORMATS:
        raise UsageError(
            f"There is no format '{options.format}'.{suggest_nearest(options.format, FORMATS)}",
            f"Formats: {', '.join(FORMATS)}.",
        )
    if not isinstance(target, ClusterTarget):
        raise UsageError(f"The target {target.name} has no Kubernetes objects.", "Give --target k8s.")
    name, namespace = target.names.base, target.settings.namespace_name or "default"
    if target.settings.namespace_name is None:
        progress(f"targets.{target.name} has no namespace, so `default` is used. To change it: --namespace team-a.")
    title = f"{name}-{project.environment}" if project.environment else name
    repository = options.repository or query_git(project.root, "remote", "get-url", "origin")
    if not repository:
        progress("The repository is not known. Replace git.example.org with its URL, or give --repo.")
    path = options.path or choose_release_folder(project.name, project.environment)
    app_folder = DeployedFolder(title, name, namespace, repository or PLACEHOLDER_URL, options.branch, path)
    texts = {}
    if options.format == "argocd":
        texts["application.yaml"] = dump_yaml(make_gitops_application(app_folder, options.with_rollout))
    else:
        has_fixed_replicas = (
            options.with_rollout and isinstance(target, KubernetesTarget) and target.settings.autoscaling is None
        )
        flux = make_gitops_flux_objects(app_folder, target.settings.rollout.timeout, has_fixed_replicas)
        texts["flux.yaml"] = dump_yaml_documents(flux)
    if isinstance(target, KubernetesTarget):
        limits, monitor = target.settings.canary, project.settings.monitor
        template = make_gitops_analysis(project.name, name, namespace, monitor, limits, options.prometheus)
        texts["analysis-template.yaml"] = dump_yaml(template)
        if options.with_rollout:
            texts["rollout.yaml"] = dump_yaml(make_gitops_rollout(name, namespace))
    for file in texts:
        if (folder / file).exists():
            raise UsageError(f"{folder / file} already exists.", "Remove it, or give another folder with --to.")
    folder.mkdir(parents=True, exist_ok=True)
    for file, text in texts.items():
        (folder / file).write_text(text, encoding="utf-8")
    return [folder / file for file in texts]


def make_gitops_application(app_folder: DeployedFolder, rollouts: bool) -> dict[str, Any]:
    """An Application of Argo CD: https://argo-cd.readthedocs.io/en/stable/operator-manual/application.yaml.

    Args:
        rollouts: whether Argo Rollouts scales the Deployment.
    """
    options = ["CreateNamespace=true", "PruneLast=true", "ServerSideApply=true"]
    ignored_field = {"group": "apps", "kind": "Deployment", "name": app_folder.name, "jsonPointers": ["/spec/replicas"]}
    return {
        "apiVersion": "argoproj.io/v1alpha1",
        "kind": "Application",
        "metadata": {"name": app_folder.title, "namespace": "argocd"},
        "spec": {
            "project": "default",
            "source": {"repoURL": app_folder.repository, "targetRevision": app_folder.branch, "path": app_folder.path},
            "destination": {"server": "https://kubernetes.default.svc", "namespace": app_folder.namespace},
            "syncPolicy": {
                "automated": {"prune": True, "selfHeal": True},
                # The previous release's ConfigMap is in use until the new pods run, so it is removed last.
                "syncOptions": [*options, "RespectIgnoreDifferences=true"] if rollouts else options,
            },
            **({"ignoreDifferences": [ignored_field]} if rollouts else {}),
        },
    }


def make_gitops_flux_objects(
    app_folder: DeployedFolder, timeout: int, has_fixed_replicas: bool
) -> list[dict[str, Any]]:
    """A GitRepository and a Kustomization of Flux: https://fluxcd.io/flux/components/kustomize/kustomizations/.

    Args:
        timeout: seconds after which a rollout counts as failed.
        has_fixed_replicas: whether the Deployment sets replicas that Argo Rollouts must be able to change.
    """
    patch = [{"op": "remove", "path": "/spec/replicas"}]
    source = {
        "apiVersion": "source.toolkit.fluxcd.io/v1",
        "kind": "GitRepository",
        "metadata": {"name": app_folder.title, "namespace": "flux-system"},
        "spec": {"interval": "1m", "url": app_folder.repository, "ref": {"branch": app_folder.branch}},
    }
    kustomization = {
        "apiVersion": "kustomize.toolkit.fluxcd.io/v1",
        "kind": "Kustomization",
        "metadata": {"name": app_folder.title, "namespace": "flux-system"},
        "spec": {
            "interval": "10m",
            "sourceRef": {"kind": "GitRepository", "name": app_folder.title},
            "path": f"./{app_folder.path}",
            "targetNamespace": app_folder.namespace,
            "prune": True,
            "wait": True,  # the condition Ready then includes the pods
            "timeout": f"{timeout}s",
            **(
                {"patches": [{"target": {"kind": "Deployment", "name": app_folder.name}, "patch": dump_yaml(patch)}]}
                if has_fixed_replicas
                else {}
            ),
        },
    }
    return [source, kustomization]


def make_gitops_analysis(
    app: str, name: str, namespace: str, monitor: Monitor, limits: Canary, prometheus: str
) -> dict[str, Any]:
    """An AnalysisTemplate of Argo Rollouts, from the canary limits and the alerting rules of monitoring.

    The canary's pods are identified by their template hash. An alert counts if it concerns a model version that only
    the canary serves. https://argo-rollouts.readthedocs.io/en/stable/features/analysis/
    """
    canary = f'namespace="{namespace}", pod=~"{name}-{{{{args.canary-hash}}}}-.*"'
    stable = f'namespace="{namespace}", pod=~"{name}-{{{{args.stable-hash}}}}-.*"'
    metrics = [
        _make_gitops_metric(
            "error-rate",
            f"{_render_gitops_error_query(canary)} - ({_render_gitops_error_query(stable)} >= 0 or vector(0))",
            f"len(result) == 0 || isNaN(result[0]) || result[0] <= {limits.error_rate}",
            prometheus,
        ),
        _make_gitops_metric(
            "latency-ratio",
            f"({_render_gitops_latency_query(canary)}) / ({_render_gitops_latency_query(stable)})",
            f"len(result) == 0 || isNaN(result[0]) || result[0] <= {limits.latency_ratio}",
            prometheus,
        ),
    ]
    versions = _render_gitops_versions_query
    new_versions = f"({versions(app, canary)} unless on (version) {versions(app, stable)})"
    for rule in make_rules(app, monitor)["groups"][0]["rules"]:
        if "alert" in rule:
            query = f"count(({rule['expr']}) and on (version) {new_versions}) or vector(0)"
            metrics.append(_make_gitops_metric(_to_kebab_case(rule["alert"]), query, "result[0] == 0", prometheus))
    return {
        "apiVersion": "argoproj.io/v1alpha1",
        "kind": "AnalysisTemplate",
        "metadata": {"name": f"{name}-canary", "namespace": namespace},
        "spec": {"args": [{"name": "canary-hash"}, {"name": "stable-hash"}], "metrics": metrics},
    }


def make_gitops_rollout(name: str, namespace: str) -> dict[str, Any]:
    """A Rollout that replaces the Deployment's pods: first 10 %, then the analysis, then all."""
    arguments = [
        {"name": "canary-hash", "valueFrom": {"podTemplateHashValue": "Latest"}},
        {"name": "stable-hash", "valueFrom": {"podTemplateHashValue": "Stable"}},
    ]
    analysis = {"templates": [{"templateName": f"{name}-canary"}], "args": arguments}
    return {
        "apiVersion": "argoproj.io/v1alpha1",
        "kind": "Rollout",
        "metadata": {"name": name, "namespace": namespace},
        "spec": {
            "workloadRef": {"apiVersion": "apps/v1", "kind": "Deployment", "name": name, "scaleDown": "onsuccess"},
            "strategy": {
                "canary": {"maxSurge": 1, "maxUnavailable": 0, "steps": [{"setWeight": 10}, {"analysis": analysis}]}
            },
        },
    }


def _make_gitops_metric(name: str, query: str, condition: str, prometheus: str) -> dict[str, Any]:
    """A metric with ten measurements, one per minute; the second failed one aborts the canary."""
    return {
        "name": name,
        "interval": "1m",
        "count": 10,
        "failureLimit": 1,
        "successCondition": condition,
        "provider": {"prometheus": {"address": prometheus, "query": query}},
    }


def _render_gitops_rate_query(counter: str, pods: str, extra_labels: str = "") -> str:
    return f'sum(rate({counter}{{{pods}, handler!~"{UNCOUNTED_PATHS}"{extra_labels}}}[2m]))'


def _render_gitops_versions_query(app: str, pods: str) -> str:
    return f'max by (version) (mlapp_monitored_rows_total{{model="{app}", {pods}}})'


def _render_gitops_error_query(pods: str) -> str:
    error_rate = _render_gitops_rate_query("http_requests_total", pods, ', status=~"5.."')
    return f"(({error_rate} or vector(0)) / {_render_gitops_rate_query('http_requests_total', pods)})"


def _render_gitops_latency_query(pods: str) -> str:
    name = "http_request_duration_seconds"
    return f"{_render_gitops_rate_query(f'{name}_sum', pods)} / {_render_gitops_rate_query(f'{name}_count', pods)}"


def _to_kebab_case(name: str) -> str:
    return "".join(f"-{letter.lower()}" if letter.isupper() else letter for letter in name).lstrip("-")
