"""The Kubernetes target. `render` makes documents, `plan` tries them, `job` ships them; see docs/kubernetes.md."""

from mlapp.deploy.k8s.settings import KubernetesSettings
from mlapp.deploy.k8s.target import KubernetesTarget

__all__ = ["KubernetesSettings", "KubernetesTarget"]
