"""mlapp.yaml: typed, closed to unknown keys, overridden by the environment."""

from __future__ import annotations

import importlib.util
import re
from pathlib import Path

import msgspec
import pytest

from mlapp import config
from mlapp.config import Settings, decode_section
from mlapp.config.section import WORDS, iterate_section_patterns
from mlapp.deploy.settings_schema import make_settings_schema
from mlapp.errors import ConfigError
from mlapp.plugins import TARGETS, load_plugins

ROOT = Path(__file__).parents[3]


def settings(tmp_path: Path, text: str, environment: str | None = None, **environ: str) -> config.Settings:
    (tmp_path / "mlapp.yaml").write_text(text, encoding="utf-8")
    return config.load_settings(tmp_path, environment, environ)


def test_everything_has_a_default(tmp_path: Path) -> None:
    loaded_settings = config.load_settings(tmp_path, environ={})
    assert (loaded_settings.app, loaded_settings.serve.port, loaded_settings.store.url) == (
        "app.py",
        8000,
        ".mlapp/store",
    )


def test_an_environment_variable_overrides_the_file(tmp_path: Path) -> None:
    loaded_settings = settings(
        tmp_path,
        "serve: {port: 80, workers: 2}",
        MLAPP_SERVE__PORT="81",
        MLAPP_SERVE__API_KEYS="a, b",
        MLAPP_STORE="models",
    )
    assert (loaded_settings.serve.port, loaded_settings.serve.workers, loaded_settings.serve.api_keys) == (
        81,
        2,
        ["a", "b"],
    )
    assert loaded_settings.store.url == "models"


def test_an_environment_of_the_file_overrides_the_rest(tmp_path: Path) -> None:
    text = "serve: {port: 80, workers: 2}\nenvironments: {staging: {serve: {workers: 4}}}"
    assert settings(tmp_path, text, "staging").serve.workers == 4
    assert settings(tmp_path, text, "staging").serve.port == 80
    with pytest.raises(ConfigError, match=r"no environment 'stagin'; it has staging. Did you mean 'staging'\?"):
        settings(tmp_path, text, "stagin")


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("sreve: {port: 80}", "'sreve' is not a setting. Did you mean 'serve'?"),
        (
            "monitor: {min_labels: 5}",
            "'monitor.min_labels' is not a setting. Did you mean 'monitor.retrain.min_labels'?",
        ),
        ("serve: {prt: 80}", "'serve.prt' is not a setting. Did you mean 'port'?"),
        ("serve: {port: many}", "serve.port: Expected an integer, got text"),
        ("serve: {port: 99999}", "serve.port: Expected an integer <= 65535"),
        ("monitor: {log: smaple}", "monitor.log: 'smaple' is not one of all, off, sample. Did you mean 'sample'?"),
        (
            "monitor: {alerts: [{webhook: 'https://a.example', format: xml}]}",
            "alerts[0].format: 'xml' is not one of alertmanager, json, slack",
        ),
        ("store: {url: a, verify: maybe}", "store.verify: 'maybe' is not one of none, required"),
        (
            'name: "flowers\\n"',
            r"name: 'flowers\n' does not have the form of flowers or shop.prices-2. Allowed: 1 to 100 letters, digits",
        ),
        ("monitor: {window: 0.5s}", "monitor.window: '0.5s' does not have the form of 30s or 1h"),
        ("monitor: {columns: {age: drop, ssn: hide}}", "monitor.columns.ssn: 'hide' does not have the form of drop or"),
        ("monitor: {columns: {age: round(0)}}", "monitor.columns.age: 'round(0)' does not have the form of drop or"),
        ("monitor: {columns: {age: drop, ssn: null}}", "monitor.columns.ssn: Expected text, got nothing"),
        ("monitor: {columns: {1: drop}}", "monitor.columns: Expected text, got an integer. Quote the key"),
        ("monitor: {quality: {f1: 0.1, accuracy: x}}", "monitor.quality.accuracy: Expected a number, got text"),
        ("monitor: {quality: {accuracy: .nan}}", "monitor: quality.accuracy must be the change for the worse"),
        ("monitor: {quality: {accuracy: 0}}", "monitor: quality.accuracy must be the change for the worse"),
        ("monitor: {promote: {better: f1, on: []}}", "monitor.promote.on: Expected a list of length >= 1"),
        (
            'image: {base: "python:3.11\\nRUN id"}',
            r"image.base: 'python:3.11\nRUN id' does not have the form of python:3.11",
        ),
        ("image: {base: --platform=x}", "image.base: '--platform=x' does not have the form of python:3.11"),
        ('image: {python: "3.11; id"}', "image.python: '3.11; id' does not have the form of 3.11"),
        ('image: {system_packages: ["curl; id"]}', "image.system_packages[0]: 'curl; id' does not have the form of"),
        ('image: {system_packages: ["curl\\n"]}', "image.system_packages[0]: 'curl"),
        ("monitor: {keep: 0d}", "monitor.keep: '0d' does not have the form of 12h or 30d"),
        ("monitor: {max_size: 0GB}", "monitor.max_size: '0GB' does not have the form of 500MB or 2GB"),
        ("monitor: {alerts: [{webhook: me}]}", "monitor.alerts[0].webhook: 'me' does not have the form of https://"),
        ("serve: [1]", "serve: Expected keys and values, got a list"),
        ("- a\n- b", "contains a list, not keys and values"),
        ("serve: {port: 1", "is not YAML"),
        ("a: b: c", "mlapp.yaml:1 is not YAML"),
        (
            "monitor: {log: all}\nname: a\nmonitor: {window: 1s}",
            "mlapp.yaml has the key `monitor` twice, on lines 1 and 3",
        ),
        ("environments:\n  a:\n    serve: {port: 1, port: 2}", "the key `port` twice, on line 3"),
    ],
)
def test_what_is_wrong_in_the_file_is_named(tmp_path: Path, text: str, says: str) -> None:
    with pytest.raises(ConfigError) as error:
        settings(tmp_path, text)
    assert says in error.value.what


def test_a_variable_of_an_unknown_setting_is_named(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"^MLAPP_SERVE__PRT: 'serve.prt' is not a setting"):
        settings(tmp_path, "", MLAPP_SERVE__PRT="1")
    with pytest.raises(ConfigError, match=r"^MLAPP_SERVE__PORT: serve.port: Expected an integer, got text"):
        settings(tmp_path, "", MLAPP_SERVE__PORT="many")


def list_patterns(schema: object) -> list[str]:
    """The patterns in a JSON Schema."""
    if isinstance(schema, list):
        return [pattern for item in schema for pattern in list_patterns(item)]
    if not isinstance(schema, dict):
        return []
    own = [schema["pattern"]] if isinstance(schema.get("pattern"), str) else []
    return own + [pattern for item in schema.values() for pattern in list_patterns(item)]


def test_no_setting_may_end_with_a_line_break() -> None:
    patterns = list_patterns(make_settings_schema())
    assert len(patterns) > 20
    assert [pattern for pattern in patterns if pattern.endswith("$")] == [], "`$` permits a line break before it"


def test_a_wrong_text_is_explained_in_words() -> None:
    """No setting shows a raw pattern, and the examples of each match it."""
    kinds = [Settings, *(target.settings_type for _, target in load_plugins(TARGETS))]
    patterns = [pair for kind in kinds for pair in iterate_section_patterns(msgspec.inspect.type_info(kind))]
    assert len(patterns) > 20
    for pattern, schema in patterns:
        assert schema.get(WORDS), pattern
        assert [example for example in schema["examples"] if not re.search(pattern, example)] == []
    forms: dict[str, object] = {pattern: (schema[WORDS], schema["examples"]) for pattern, schema in patterns}
    assert [pattern for pattern, schema in patterns if forms[pattern] != (schema[WORDS], schema["examples"])] == []


@pytest.mark.parametrize(
    ("target", "raw", "says"),
    [
        (
            "k8s",
            {"ingress": {"host": "a", "path": "x"}},
            "ingress.path: 'x' does not have the form of /data. Allowed: a",
        ),
        ("k8s", {"volumes": {"A B": {"path": "/x"}}}, "k8s.volumes: 'A B' does not have the form of team-a or models."),
        ("k8s", {"volumes": {"a": {"path": "x"}}}, "volumes.a.path: 'x' does not have the form of /data."),
        ("k8s", {"resources": {"cpu": "2 cores"}}, "resources.cpu: '2 cores' does not have the form of 500m or 1Gi."),
        (
            "docker",
            {"memory": "1 GB"},
            "docker.memory: '1 GB' does not have the form of 512m or 2g. Allowed: an integer",
        ),
    ],
)
def test_a_wrong_text_of_a_target_is_explained_in_words(target: str, raw: dict[str, object], says: str) -> None:
    kind = dict(load_plugins(TARGETS))[target].settings_type
    with pytest.raises(ConfigError) as error:
        decode_section(kind, raw, f"targets.{target}")
    assert says in error.value.what
    assert "regex" not in error.value.what


@pytest.mark.parametrize(
    "text",
    [
        'monitor: {window: "1h\\n"}',
        'monitor: {max_size: "2\\nGB"}',
        'monitor: {retrain: {at_most: "\u0663/day"}}',
        'serve: {port: "80_80"}',
    ],
)
def test_a_setting_is_written_in_plain_characters(tmp_path: Path, text: str) -> None:
    (tmp_path / "mlapp.yaml").write_text(text, encoding="utf-8")
    with pytest.raises(ConfigError):
        config.load_settings(tmp_path)


def test_the_documentation_lists_every_setting() -> None:
    spec = importlib.util.spec_from_file_location("configuration", ROOT / "scripts/configuration.py")
    assert spec is not None
    assert spec.loader is not None
    script = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(script)
    assert (ROOT / "docs/configuration.md").read_text() == script.render_page(), "run python scripts/configuration.py"
