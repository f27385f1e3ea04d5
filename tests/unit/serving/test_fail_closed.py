"""A blank setting does not disable authentication."""

from __future__ import annotations

import pytest

from mlapp import config
from mlapp.config import Serve
from mlapp.errors import ConfigError
from mlapp.serving.web.auth import Keys


@pytest.mark.parametrize(
    "text",
    [
        "serve: {api_keys: []}",
        "serve: {api_keys: ['']}",
        "serve: {api_keys: [good, ' ']}",
        "serve: {api_keys: [null]}",
        "serve: {api_keys: }",
        "serve: {api_keys: ['${API_KEY}']}",
        "serve: {host: ''}",
        "serve: {tls_cert: '', tls_key: ''}",
        "serve: {tls_cert: cert.pem}",
        "serve: {tls_key: key.pem}",
    ],
)
def test_a_blank_setting_of_the_file_is_an_error(tmp_path, text):
    (tmp_path / "mlapp.yaml").write_text(text)
    with pytest.raises(ConfigError, match=r"serve\.(api_keys|host|tls_cert|tls_key)"):
        config.load_settings(tmp_path, environ={})


@pytest.mark.parametrize("value", ["", " ", " , ", ","])
def test_a_blank_variable_is_an_error_and_overrides_no_key(tmp_path, value):
    (tmp_path / "mlapp.yaml").write_text("serve: {api_keys: [good]}")
    with pytest.raises(ConfigError, match="api_keys"):
        config.load_settings(tmp_path, environ={"MLAPP_SERVE__API_KEYS": value})


def test_an_environment_does_not_take_the_keys_away(tmp_path):
    (tmp_path / "mlapp.yaml").write_text(
        "serve: {api_keys: [good]}\nenvironments: {staging: {serve: {api_keys: []}}, open: {serve: {port: 1}}}"
    )
    with pytest.raises(ConfigError, match="api_keys"):
        config.load_settings(tmp_path, "staging", environ={})
    assert config.load_settings(tmp_path, "open", environ={}).serve.api_keys == ["good"]


def test_a_setting_that_is_absent_is_no_error(tmp_path):
    assert config.load_settings(tmp_path, environ={}).serve.api_keys == []
    assert config.load_settings(tmp_path, environ={"MLAPP_SERVE__API_KEYS": "a, b"}).serve.api_keys == ["a", "b"]


@pytest.mark.parametrize("keys", [[""], ["good", " "]])
def test_a_blank_key_in_code_is_an_error(keys):
    with pytest.raises(ConfigError, match="blank"):
        Keys(Serve(api_keys=keys).api_keys)
