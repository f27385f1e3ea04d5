"""The KServe target. `inference_service` renders a release, `readiness` waits for it, `canary` splits traffic."""

from mlapp.deploy.kserve.settings import KServeSettings
from mlapp.deploy.kserve.target import KServeTarget

__all__ = ["KServeSettings", "KServeTarget"]
