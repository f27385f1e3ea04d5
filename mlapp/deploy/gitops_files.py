"""Write the files of `mlapp eject gitops`."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from mlapp.deploy import gitops
from mlapp.deploy.cluster.cluster_target import ClusterTarget
from mlapp.deploy.git_release import ask_release_git, choose_release_folder
from mlapp.deploy.k8s import KubernetesTarget
from mlapp.deploy.target import Target
from mlapp.deploy.yaml_dump import dump_yaml, dump_yaml_documents
from mlapp.errors import UsageError, suggest_nearest
from mlapp.project import Project
from mlapp.reporting import Reporter

UNKNOWN = "https://git.example.org/team/deployments.git"


def write_gitops_files(
    project: Project,
    place: Target[Any],
    folder: Path,
    *,
    format: str,
    repository: str | None,
    path: str | None,
    branch: str,
    with_rollout: bool,
    prometheus: str,
    progress: Reporter,
) -> list[Path]:
    """Write the files, without overwriting any.

    Raises:
        UsageError: the format is unknown, the target has no Kubernetes objects, or a file exists already.
    """
    if format not in gitops.FORMATS:
        raise UsageError(
            f"There is no format '{format}'.{suggest_nearest(format, gitops.FORMATS)}",
            f"Formats: {', '.join(gitops.FORMATS)}.",
        )
    if not isinstance(place, ClusterTarget):
        raise UsageError(f"The target {place.name} has no Kubernetes objects.", "Give --target k8s.")
    name, namespace = place.names.base, place.settings.namespace_name or "default"
    if place.settings.namespace_name is None:
        progress(f"targets.{place.name} has no namespace, so `default` is used. To change it: --namespace team-a.")
    title = f"{name}-{project.environment}" if project.environment else name
    repository = repository or ask_release_git(project.root, "remote", "get-url", "origin")
    if not repository:
        progress("The repository is not known. Replace git.example.org with its URL, or give --repo.")
    source = (repository or UNKNOWN, branch, path or choose_release_folder(project.name, project.environment))
    texts = {}
    if format == "argocd":
        texts["application.yaml"] = dump_yaml(gitops.make_application(title, name, *source, namespace, with_rollout))
    else:
        pinned = with_rollout and isinstance(place, KubernetesTarget) and place.settings.autoscaling is None
        texts["flux.yaml"] = dump_yaml_documents(
            gitops.make_flux_objects(title, name, *source, namespace, place.settings.rollout.timeout, pinned)
        )
    if isinstance(place, KubernetesTarget):
        limits, monitor = place.settings.canary, project.settings.monitor
        template = gitops.make_analysis_template(project.name, name, namespace, monitor, limits, prometheus)
        texts["analysis-template.yaml"] = dump_yaml(template)
        if with_rollout:
            texts["rollout.yaml"] = dump_yaml(gitops.make_rollout(name, namespace))
    for file in texts:
        if (folder / file).exists():
            raise UsageError(f"{folder / file} exists already.", "Remove it, or give another folder with --to.")
    folder.mkdir(parents=True, exist_ok=True)
    for file, text in texts.items():
        (folder / file).write_text(text, encoding="utf-8")
    return [folder / file for file in texts]
