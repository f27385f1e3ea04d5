"""helm, kubectl and the Gateway API's schema, as scripts/ci/kubernetes.sh brings them.

Without them a test is skipped on a laptop and with the core install, and fails in CI.
"""

from __future__ import annotations

import json
import os
import re
import shutil
import subprocess
from pathlib import Path
from typing import Any, NoReturn

from tests.core_install import leave_out

TOOLS = Path(__file__).parents[1] / ".tools"


def run(name: str, *arguments: str | Path, **options: Any) -> subprocess.CompletedProcess[str]:
    """Run `helm` or `kubectl`; it may fail."""
    found = shutil.which(name, path=os.pathsep.join([str(TOOLS / "bin"), os.environ["PATH"]]))
    if found is None:
        missing(name)
    return subprocess.run([str(found), *map(str, arguments)], capture_output=True, text=True, timeout=60, **options)


def http_route_schema() -> dict[str, Any]:
    """The JSON Schema of `spec` of an HTTPRoute v1, from Gateway API 1.0's own CRD; what it doesn't know is wrong."""
    file = TOOLS / "gateway-api/gateway.networking.k8s.io/v1/HTTPRoute.js"
    if not file.exists():
        missing("the Gateway API's schema")
    found = re.search(r"const schema = (\{.*?\n\});", file.read_text(), re.DOTALL)
    assert found, f"{file} has another form"
    spec: dict[str, Any] = json.loads(found[1])["properties"]["spec"]
    return forbid_unknown_properties(spec)


def forbid_unknown_properties(schema: Any) -> Any:
    """The schema, refusing properties that it does not name: the API server would drop them, and say nothing."""
    if isinstance(schema, list):
        return [forbid_unknown_properties(item) for item in schema]
    if not isinstance(schema, dict):
        return schema
    made = {key: forbid_unknown_properties(value) for key, value in schema.items()}
    return {**made, "additionalProperties": False} if isinstance(schema.get("properties"), dict) else made


def missing(what: str) -> NoReturn:
    leave_out(f"{what} is not here: scripts/ci/kubernetes.sh brings it")
