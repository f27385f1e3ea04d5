"""One server of each kind a test process. Tests that need one carry its `xdist_group`: one worker starts it once."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from tests import servers


@pytest.fixture(scope="session")
def postgres() -> Iterator[str]:
    with servers.postgres() as address:
        yield address


@pytest.fixture(scope="session")
def mariadb() -> Iterator[str]:
    with servers.mariadb() as address:
        yield address


@pytest.fixture(scope="session")
def redis_server() -> Iterator[str]:
    with servers.redis() as address:
        yield address


@pytest.fixture(scope="session")
def mongo_server() -> Iterator[str]:
    with servers.mongo() as address:
        yield address


@pytest.fixture(scope="session")
def dynamodb_server() -> Iterator[str]:
    with servers.dynamodb() as address:
        yield address


@pytest.fixture(scope="session")
def s3_server() -> Iterator[str]:
    with servers.s3() as address:
        yield address
