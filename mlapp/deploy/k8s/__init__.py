"""The Kubernetes target. `render` builds the objects, `change_plan` dry-runs them, `deploy_session` applies them."""

from mlapp.deploy.k8s.settings import KubernetesSettings
from mlapp.deploy.k8s.target import KubernetesTarget

__all__ = ["KubernetesSettings", "KubernetesTarget"]
