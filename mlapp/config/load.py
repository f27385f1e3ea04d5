"""Reads the settings of a project.

A setting is looked up in this order: a command's flag, an environment variable `MLAPP_SECTION__KEY`, the
environment chosen with `--env` (the file's `environments:`), mlapp.yaml, the default in its section.
An unknown key is an error that names the nearest known one.
"""

from __future__ import annotations

import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import msgspec

from mlapp.config.section import FILE, PREFIX, decode_section, list_section_fields, strip_optional_setting_type
from mlapp.config.settings import Settings
from mlapp.config.yaml_text import parse_yaml
from mlapp.errors import ConfigError, suggest_nearest


def load_settings(root: Path, environment: str | None = None, environ: Mapping[str, str] | None = None) -> Settings:
    """Read the settings of the project in `root`; all defaults when it has no mlapp.yaml.

    Args:
        root: the folder of mlapp.yaml.
        environment: a key of `environments:` with settings that override the others.
        environ: the environment variables; by default, `os.environ`.

    Raises:
        ConfigError: the file is not YAML, a key or the environment is unknown, or a value has the wrong type.
    """
    raw = _expand_store_setting(_read_settings_file(root / FILE))
    if environment is not None:
        environments = raw.get("environments") or {}
        if environment not in environments:
            environment_list = ", ".join(environments) or "none"
            raise ConfigError(
                f"{FILE} has no environment '{environment}'; it has {environment_list}."
                f"{suggest_nearest(environment, environments)}",
                f"Add it under `environments:` in {root / FILE}, or choose another --env.",
            )
        raw = merge_settings(raw, _expand_store_setting(environments[environment] or {}))
    variables = _read_settings_variables(os.environ if environ is None else environ)
    merged = merge_settings(raw, variables)
    _refuse_blank_settings(merged.get("serve"))
    try:
        return decode_section(Settings, merged)
    except ConfigError:
        decode_section(Settings, variables, from_variables=True)  # names the variable, if it is the cause
        raise


def _refuse_blank_settings(serve: object) -> None:
    """Refuse blank values of security settings, which would leave the server open.

    Raises:
        ConfigError: api_keys is empty, or has a blank key or a `${VARIABLE}`; the host or a TLS file is blank; or only
            one of the two TLS files is set.
    """
    if not isinstance(serve, Mapping):
        return
    if "api_keys" in serve:
        keys = serve["api_keys"]
        if not keys or (isinstance(keys, list) and not all(str(key or "").strip() for key in keys)):
            raise ConfigError(
                "serve.api_keys is given, but it is empty or has an empty key.",
                "Give keys, in mlapp.yaml or as MLAPP_SERVE__API_KEYS=a,b, or remove the setting to serve without.",
            )
        if isinstance(keys, list) and any(str(key).strip().startswith("${") for key in keys):
            raise ConfigError(
                "serve.api_keys has a key that looks like a variable; mlapp does not expand variables there.",
                "Set the variable MLAPP_SERVE__API_KEYS to the keys themselves.",
            )
    for name in ("host", "tls_cert", "tls_key"):
        if name in serve and serve[name] is not None and not str(serve[name]).strip():
            raise ConfigError(f"serve.{name} is given, but it is empty.", f"Give serve.{name} a value, or remove it.")
    tls_settings = [name for name in ("tls_cert", "tls_key") if serve.get(name) is not None]
    if len(tls_settings) == 1:
        raise ConfigError(
            f"serve.{tls_settings[0]} is set without the other TLS setting.",
            "Set both serve.tls_cert and serve.tls_key, for HTTP and gRPC.",
        )


def merge_settings(base: Mapping[str, Any], overrides: Mapping[str, Any]) -> dict[str, Any]:
    """Override the settings in `base`: mappings are merged, other values are replaced."""
    merged = dict(base)
    for key, value in overrides.items():
        old = merged.get(key)
        merged[key] = merge_settings(old, value) if isinstance(old, Mapping) and isinstance(value, Mapping) else value
    return merged


def _expand_store_setting(raw: dict[str, Any]) -> dict[str, Any]:
    """`store: URL` as `store: {url: URL}`, so that overriding the URL keeps the other settings of the store."""
    store = raw.get("store") if isinstance(raw, dict) else None
    return {**raw, "store": {"url": store}} if isinstance(store, str) else raw


def _read_settings_file(file: Path) -> dict[str, Any]:
    try:
        text = file.read_text(encoding="utf-8")
    except FileNotFoundError:
        return {}
    except (OSError, UnicodeDecodeError) as error:
        raise ConfigError(f"{file} cannot be read: {error}", "Make it a readable UTF-8 file.") from None
    raw = parse_yaml(text, file)
    if raw is None:
        return {}
    if not isinstance(raw, dict):
        raise ConfigError(
            f"{file} contains a {type(raw).__name__}, not keys and values.", "Write it as `key: value` lines."
        )
    return {key: _convert_settings_keys(value) for key, value in raw.items()}


def _convert_settings_keys(value: Any) -> Any:
    """Undo the conversion of the keys `on` and `off` to booleans, which PyYAML's YAML 1.1 requires."""
    if isinstance(value, dict):
        return {
            ("on" if key else "off") if isinstance(key, bool) else key: _convert_settings_keys(inner)
            for key, inner in value.items()
        }
    return [_convert_settings_keys(inner) for inner in value] if isinstance(value, list) else value


def _read_settings_variables(environ: Mapping[str, str]) -> dict[str, Any]:
    """`MLAPP_SERVE__PORT=80` as `{"serve": {"port": "80"}}`. Commas separate the items of a list."""
    raw: dict[str, Any] = {}
    section_types = {field.name: field.type for field in msgspec.structs.fields(Settings)}
    for name, text in environ.items():
        if not name.startswith(PREFIX):
            continue
        path = name[len(PREFIX) :].lower().split("__")
        if len(path) == 1 and path[0] not in section_types:
            continue  # not a setting, such as MLAPP_TEST_…
        if path == ["store"]:
            path = ["store", "url"]
        section = raw
        for key in path[:-1]:
            section = section.setdefault(key, {})
        section[path[-1]] = _split_settings_variable(section_types.get(path[0]), path[1:], text)
    return raw


def _split_settings_variable(kind: Any, path: list[str], text: str) -> Any:
    for key in path:
        fields = list_section_fields(kind)
        kind = fields.get(key) if fields else None
    if kind is not None and isinstance(strip_optional_setting_type(kind), msgspec.inspect.ListType):
        return [part.strip() for part in text.split(",") if part.strip()]
    return text
