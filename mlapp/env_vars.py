"""Environment variables: references in settings, overrides for a block, and variables with alternative names."""

from __future__ import annotations

import os
import re
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path

REFERENCE = re.compile(r"\$\{([A-Za-z_]\w*)\}", re.ASCII)
"""`${NAME}` in a setting or an address: the value of that variable."""


@contextmanager
def override_variables(variables: Mapping[str, str]) -> Iterator[None]:
    """Set variables for this process and its children during the block, then restore the previous values."""
    before = {name: os.environ.get(name) for name in variables}
    os.environ.update(variables)
    try:
        yield
    finally:
        for name, value in before.items():
            if value is None:
                os.environ.pop(name, None)
            else:
                os.environ[name] = value


def find_user_cache() -> Path:
    """The folder of the user's cached files (XDG Base Directory Specification)."""
    return Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "mlapp"


def read_aws_region() -> str | None:
    """The region, from the variable of AWS's SDKs or of its command line."""
    return os.environ.get("AWS_REGION") or os.environ.get("AWS_DEFAULT_REGION")


def read_s3_endpoint() -> str | None:
    """The URL of an S3-compatible service, or None for AWS."""
    return os.environ.get("AWS_ENDPOINT_URL_S3") or os.environ.get("AWS_ENDPOINT_URL")


def read_azure_account() -> tuple[str | None, str | None]:
    """The storage account's name and key, from the variables of Azure's command line or of its SDKs."""
    name = os.environ.get("AZURE_STORAGE_ACCOUNT") or os.environ.get("AZURE_STORAGE_ACCOUNT_NAME")
    return name, os.environ.get("AZURE_STORAGE_KEY") or os.environ.get("AZURE_STORAGE_ACCOUNT_KEY")
