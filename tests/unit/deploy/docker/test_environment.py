"""`targets.docker.env`: secrets come from the deploying shell, and are in no file."""

from __future__ import annotations

import pytest

from mlapp.config import Serve
from mlapp.deploy.docker.compose import make_compose_environment, make_compose_file
from mlapp.deploy.docker.settings import DockerSettings
from mlapp.deploy.target import Shipment
from mlapp.errors import ConfigError


@pytest.mark.parametrize(
    ("name", "value"), [("DB_PASSWORD", "hunter2"), ("DATABASE_URL", "postgresql://me:hunter2@db/shop")]
)
def test_a_secret_in_plain_text_is_refused(name: str, value: str) -> None:
    settings = DockerSettings(env={name: value})
    for use in (
        make_compose_environment,
        lambda given: make_compose_file("shop", Shipment("shop", "i"), given, Serve()),
    ):
        with pytest.raises(ConfigError, match=rf"targets.docker.env.{name} looks like a secret") as refused:
            use(settings)
        assert f"targets.docker.env: {{{name}: ${{{name}}}}}" in refused.value.todo
        assert "hunter2" not in str(refused.value)


def test_a_reference_is_filled_in_here_and_left_to_compose(monkeypatch: pytest.MonkeyPatch) -> None:
    settings = DockerSettings(env={"DB_PASSWORD": "${SHOP_PASSWORD}", "PRICE": "5 $", "ODD": "a${b}"})
    with pytest.raises(ConfigError, match="needs the environment variable SHOP_PASSWORD, which is not set"):
        make_compose_environment(settings)
    monkeypatch.setenv("SHOP_PASSWORD", "hunter2")
    assert make_compose_environment(settings) == {"DB_PASSWORD": "hunter2", "PRICE": "5 $", "ODD": "a${b}"}
    service = make_compose_file("shop", Shipment("shop", "i"), settings, Serve())["services"]["shop"]
    assert service["environment"] == {"DB_PASSWORD": "${SHOP_PASSWORD}", "PRICE": "5 $$", "ODD": "a$${b}"}
