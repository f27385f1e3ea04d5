"""The KServe target. `inference_service` builds the objects, `readiness` waits for them, `canary` splits traffic."""

from mlapp.deploy.kserve.settings import KServeSettings
from mlapp.deploy.kserve.target import KServeTarget

__all__ = ["KServeSettings", "KServeTarget"]
