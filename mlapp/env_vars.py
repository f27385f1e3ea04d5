"""Environment variables: overridden for a block, or read under alternative names."""

from __future__ import annotations

import os
from collections.abc import Iterator, Mapping
from contextlib import contextmanager


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


def read_azure_account() -> tuple[str | None, str | None]:
    """The storage account's name and key, from the variables of Azure's command line or of its SDKs."""
    name = os.environ.get("AZURE_STORAGE_ACCOUNT") or os.environ.get("AZURE_STORAGE_ACCOUNT_NAME")
    return name, os.environ.get("AZURE_STORAGE_KEY") or os.environ.get("AZURE_STORAGE_ACCOUNT_KEY")
