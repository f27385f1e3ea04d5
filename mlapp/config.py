"""mlapp.yaml as typed settings.

A setting is looked up in this order: a command's flag, an environment variable `MLAPP_SECTION__KEY`, the
environment chosen with `--env` (the file's `environments:`), mlapp.yaml, the default written here.
An unknown key is an error that names the nearest known one.
"""

from __future__ import annotations

import os
from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Any, Literal, TypeVar

import msgspec
from msgspec import Meta

from mlapp.errors import ConfigError, suggest_nearest

FILE = "mlapp.yaml"
PREFIX = "MLAPP_"

T = TypeVar("T")


class Section(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """The base of every section: immutable, and closed to unknown keys."""


class Serve(Section, frozen=True):
    """`serve:` the HTTP server."""

    host: Annotated[str | None, Meta(description="Address to bind: 127.0.0.1 on a laptop, 0.0.0.0 in a container.")] = (
        None
    )
    port: Annotated[int, Meta(ge=0, le=65535, description="Port of the HTTP server; 0 picks a free one.")] = 8000
    grpc_port: Annotated[
        int | None, Meta(description="Port of the Open Inference Protocol over gRPC; off when absent.")
    ] = None
    workers: Annotated[int, Meta(ge=1, description="Processes that share the socket.")] = 1
    model: Annotated[str, Meta(description="The version, alias or `latest` to serve.")] = "latest"
    runtime: Annotated[
        Literal["native", "onnx"],
        Meta(description="Runtime: the model's own framework, or ONNX Runtime after a checked conversion."),
    ] = "native"
    refresh: Annotated[
        float, Meta(ge=0, description="Seconds between checks of the served alias; 0 turns them off.")
    ] = 5.0
    extra: Annotated[
        Literal["refuse", "ignore"],
        Meta(description="Unknown columns: `refuse` answers 422 and names them, `ignore` drops them."),
    ] = "refuse"
    max_body: Annotated[int, Meta(ge=1, description="Largest request body, in bytes.")] = 16 * 1024 * 1024
    max_cells: Annotated[
        Annotated[int, Meta(ge=1)] | None,
        Meta(description="Maximum number of values in a body of any format; half of `max_body` when absent."),
    ] = None
    max_bodies: Annotated[
        Annotated[int, Meta(ge=1)] | None,
        Meta(description="Maximum bytes of all unanswered bodies, then 503; eight times `max_body` when absent."),
    ] = None
    max_batch: Annotated[int, Meta(ge=1, description="Maximum number of rows in one batch.")] = 1024
    batch_wait: Annotated[
        float, Meta(ge=0, description="Seconds that a request waits for others to join its batch; 0 does not wait.")
    ] = 0.0
    queue: Annotated[
        Annotated[int, Meta(ge=1)] | None,
        Meta(description="Maximum number of waiting rows, then 503. When absent, only `max_wait` applies."),
    ] = None
    max_wait: Annotated[float, Meta(gt=0, description="Maximum expected wait for the model in seconds, then 503.")] = (
        1.0
    )
    timeout: Annotated[
        float, Meta(gt=0, description="Maximum seconds of a request, unless X-Request-Timeout is less.")
    ] = 30.0
    grace: Annotated[
        float, Meta(ge=0, description="Seconds between failing /readyz and stopping to accept, on SIGTERM.")
    ] = 0.0
    drain: Annotated[float, Meta(ge=0, description="Seconds for requests in flight to finish, on SIGTERM.")] = 30.0
    api_keys: Annotated[list[str], Meta(description="API keys. A client must send one, as X-API-Key or Bearer.")] = []
    cors: Annotated[list[str], Meta(description="Origins that browsers may call from; `*` for all.")] = []
    tls_cert: Annotated[str | None, Meta(description="PEM file of the certificate.")] = None
    tls_key: Annotated[str | None, Meta(description="PEM file of the certificate's key.")] = None
    access_log: Annotated[bool, Meta(description="Write one JSON line for each request.")] = True
    fast: Annotated[
        bool,
        Meta(
            description="Answer plain predictions without ASGI; `false` runs uvicorn's own protocol, which is slower."
        ),
    ] = True
    api: Annotated[
        str | None,
        Meta(description="Your own FastAPI application, such as `routes.py:api`, for all other routes."),
    ] = None
    wsgi: Annotated[
        str | None,
        Meta(description="Your own WSGI site with the model in it, as `web.py:site`, which gunicorn serves instead."),
    ] = None


class Store(Section, frozen=True):
    """`store:` where models are kept, and whose signatures count. A plain string is its `url`."""

    url: Annotated[str, Meta(description="A folder beside this file, or a URL as s3://bucket/prefix.")] = ".mlapp/store"
    verify: Annotated[
        Literal["none", "required"], Meta(description="`required` refuses versions without a valid signature.")
    ] = "none"
    public_key: Annotated[str | None, Meta(description="PEM file of the key whose signatures count.")] = None
    certificate_chain: Annotated[
        list[str], Meta(description="PEM files of the authorities whose certificates' signatures count.")
    ] = []
    identity: Annotated[str | None, Meta(description="Whose keyless signatures count, as an e-mail address.")] = None
    identity_provider: Annotated[
        str | None, Meta(description="URL of the OpenID Connect provider that vouches for `identity`.")
    ] = None
    private_key: Annotated[
        str | None, Meta(description="PEM file of the key that `train` signs with; keep it out of the project.")
    ] = None
    private_key_password: Annotated[
        str | None, Meta(description="Of that file; give it as MLAPP_STORE__PRIVATE_KEY_PASSWORD.")
    ] = None
    signing_certificate: Annotated[
        str | None, Meta(description="PEM file of the certificate of `private_key`, where an authority issued one.")
    ] = None

    @property
    def has_signatures(self) -> bool:
        """Whether versions are signed or verified, here or where the project is shipped to."""
        return self.verify == "required" or any(
            (self.public_key, self.certificate_chain, self.identity, self.private_key)
        )


class Image(Section, frozen=True):
    """`image:` the container image."""

    name: Annotated[
        str | None, Meta(description="Repository of the image, with its registry; the app's name when absent.")
    ] = None
    base: Annotated[str | None, Meta(description="Base image; the official slim Python image when absent.")] = None
    python: Annotated[
        str | None, Meta(description="Python version of the image, such as 3.11; this machine's version when absent.")
    ] = None
    platforms: Annotated[list[str], Meta(description="Platforms to build, such as linux/amd64.")] = []
    system_packages: Annotated[list[str], Meta(description="Debian packages to install.")] = []
    env: Annotated[dict[str, str], Meta(description="Environment variables of the image.")] = {}
    include: Annotated[list[str], Meta(description="Globs of ignored files to ship anyway.")] = []
    index_url: Annotated[
        str | None, Meta(description="Package index; ${VARIABLE} takes a credential from the environment.")
    ] = None
    extra_index_urls: Annotated[list[str], Meta(description="Additional package indexes.")] = []


class Flyte(Section, frozen=True):
    """`flyte:` where `--remote` runs; the connection itself is flytekit's own configuration."""

    project: Annotated[str, Meta(description="Flyte project.")] = "flytesnacks"
    domain: Annotated[str, Meta(description="Flyte domain.")] = "development"
    image: Annotated[str | None, Meta(description="Image that the tasks run in; built when absent.")] = None
    pickle: Annotated[
        bool, Meta(description="Pass data that is neither table nor array between tasks as a pickle.")
    ] = False
    tasks: Annotated[
        Literal["fused", "separate"],
        Meta(description="Stages share a task where they share resources, or `separate`: one task for each stage."),
    ] = "fused"


Rule = Annotated[str, Meta(pattern=r"^(drop|hash|round\(\s*\d+(\.\d+)?\s*\))$")]


class Drift(Section, frozen=True):
    """`monitor.drift:` when a difference from the training data is an alarm."""

    q: Annotated[
        float, Meta(gt=0, lt=1, description="Accepted share of false alarms, over all columns of a window.")
    ] = 0.001
    effect: Annotated[
        float, Meta(ge=0, le=1, description="Least Kolmogorov-Smirnov distance of a number that is an alarm.")
    ] = 0.05
    persist: Annotated[
        str, Meta(pattern=r"^[1-9]\d*/[1-9]\d*$", description="In how many of the last windows it must appear.")
    ] = "2/3"
    min_rows: Annotated[int, Meta(ge=1, description="Rows below which a window is not tested.")] = 300
    seasonal: Annotated[
        bool, Meta(description="Compare with the same weekday and hour of the last weeks too, where there are any.")
    ] = False

    def __post_init__(self) -> None:
        """See that an alarm can begin."""
        needed, _, windows = self.persist.partition("/")
        if int(needed) > int(windows):
            raise ValueError(f"drift.persist is {self.persist}: more windows than there are; 2/3 is two of three")


class Alert(Section, frozen=True):
    """One of `monitor.alerts:`"""

    webhook: Annotated[
        str,
        Meta(pattern=r"^(https?://|\$\{)", description="http or https URL; ${VARIABLE} takes it from the environment."),
    ]
    format: Literal["json", "slack", "alertmanager"] = "json"


class Retrain(Section, frozen=True):
    """`monitor.retrain:` when to train again."""

    on: Annotated[Literal["quality"], Meta(description="The kind of alarm; drift alone never retrains.")] = "quality"
    run: Annotated[Literal["flyte", "local"], Meta(description="Where the training runs.")] = "local"
    at_most: Annotated[str, Meta(pattern=r"^\d+/(hour|day|week)$", description="How often, as 1/day.")] = "1/day"
    min_labels: Annotated[int, Meta(ge=0, description="Minimum number of known truths.")] = 500


class Promote(Section, frozen=True):
    """`monitor.promote:` when a version that was trained again replaces the one that is served."""

    better: Annotated[str, Meta(description="The metric that decides.")]
    on: Annotated[list[Literal["test", "live"]], Meta(description="Where it must be better.")] = msgspec.field(
        default_factory=lambda: ["test", "live"]
    )
    alias: Annotated[str | None, Meta(description="The alias that is moved; the version becomes `latest` too.")] = None


class Monitor(Section, frozen=True):
    """`monitor:` drift, the prediction log, live quality and alarms."""

    drift: Annotated[
        Drift | bool, Meta(description="Thresholds of drift; false counts nothing and raises no alarm of it.")
    ] = msgspec.field(default_factory=Drift)
    log: Annotated[
        Literal["off", "sample", "all"] | bool, Meta(description="Which predictions are logged: off, sample, all.")
    ] = "off"
    url: Annotated[str | None, Meta(description="Where counts and log go; beside the model store when absent.")] = None
    window: Annotated[str, Meta(pattern=r"^[1-9]\d*(s|m|h|d)$", description="Length of a window, at least 1s.")] = "1h"
    columns: Annotated[
        dict[str, Rule], Meta(description="Column to rule, applied before anything is kept: drop, hash, round(5).")
    ] = {}
    rows: Annotated[
        str, Meta(pattern=r"^\d+(\.\d+)?/(s|m|h)$", description="Most rows of the sample, for each replica.")
    ] = "10/s"
    keep: Annotated[str, Meta(pattern=r"^\d+(s|m|h|d)$", description="Retention of counts and log.")] = "30d"
    max_size: Annotated[
        str, Meta(pattern=r"^\d+(\.\d+)?\s*(B|kB|KB|MB|GB|TB)$", description="Most bytes of the log.")
    ] = "2GB"
    segment: Annotated[list[str] | str | None, Meta(description="Columns whose values get separate quality.")] = None
    quality: Annotated[
        dict[str, float], Meta(description="Metric to the change that is an alarm, as accuracy: -0.03.")
    ] = {}
    alerts: list[Alert] = []
    retrain: Retrain | None = None
    promote: Promote | None = None
    run: Annotated[bool, Meta(description="Whether `mlapp serve` runs `mlapp monitor run` beside it.")] = True

    def __post_init__(self) -> None:
        """YAML reads `off` as false."""
        if self.log is True:
            raise ValueError("log is 'sample' or 'all', or 'off'")

    @property
    def logs(self) -> Literal["off", "sample", "all"]:
        """Which predictions are logged."""
        return "off" if isinstance(self.log, bool) else self.log

    @property
    def segments(self) -> tuple[str, ...]:
        """The columns for whose values quality is measured separately."""
        return (self.segment,) if isinstance(self.segment, str) else tuple(self.segment or ())

    @property
    def tests(self) -> Drift | None:
        """The thresholds of drift; None where it is off."""
        if isinstance(self.drift, Drift):
            return self.drift
        return Drift() if self.drift else None


class Settings(Section, frozen=True):
    """All of mlapp.yaml. `targets` holds each target's own section, which the target itself types."""

    name: Annotated[
        Annotated[str, Meta(pattern=r"^[A-Za-z0-9]([A-Za-z0-9._-]{0,98}[A-Za-z0-9])?$")] | None,
        Meta(description="The App's name. Commands that operate a target use it instead of importing the code."),
    ] = None
    app: Annotated[
        str,
        Meta(description="File or module of the App, such as `src/shop/main.py` or `shop.main`; `:name` if several."),
    ] = "app.py"
    store: Store = msgspec.field(default_factory=Store)
    serve: Serve = msgspec.field(default_factory=Serve)
    image: Image = msgspec.field(default_factory=Image)
    flyte: Flyte = msgspec.field(default_factory=Flyte)
    engine: Annotated[str, Meta(description="Name of the installed engine that runs the pipeline with --remote.")] = (
        "flyte"
    )
    monitor: Monitor = msgspec.field(default_factory=Monitor)
    targets: dict[str, dict[str, Any]] = {}
    environments: dict[str, dict[str, Any]] = {}


def load_settings(root: Path, environment: str | None = None, environ: Mapping[str, str] | None = None) -> Settings:
    """Read the settings of the project in `root`; all defaults when it has no mlapp.yaml.

    Args:
        root: the folder of mlapp.yaml.
        environment: a key of `environments:`, laid over the rest.
        environ: the environment variables; `os.environ` when absent.

    Raises:
        ConfigError: not YAML, an unknown key or environment, a value of the wrong type.
    """
    raw = _expand_store(_read_yaml(root / FILE))
    if environment is not None:
        environments = raw.get("environments") or {}
        if environment not in environments:
            known = ", ".join(environments) or "none"
            raise ConfigError(
                f"{FILE} has no environment '{environment}'; it has {known}."
                f"{suggest_nearest(environment, environments)}",
                f"Add it under `environments:` in {root / FILE}, or choose another --env.",
            )
        raw = merge_settings(raw, _expand_store(environments[environment] or {}))
    raw = merge_settings(raw, _read_environment(os.environ if environ is None else environ))
    _refuse_blank(raw.get("serve"))
    return decode_section(Settings, raw)


def _refuse_blank(serve: object) -> None:
    """Refuse settings that are given but blank where their absence would open the server.

    Raises:
        ConfigError: no key in api_keys, a blank one, or a `${VARIABLE}`; a blank host or TLS file; one of two of these.
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
                "serve.api_keys has a key that looks like a variable; variables are not replaced there.",
                "Set the variable MLAPP_SERVE__API_KEYS to the keys themselves.",
            )
    for name in ("host", "tls_cert", "tls_key"):
        if name in serve and serve[name] is not None and not str(serve[name]).strip():
            raise ConfigError(f"serve.{name} is given, but it is empty.", f"Give serve.{name} a value, or remove it.")
    given = [name for name in ("tls_cert", "tls_key") if serve.get(name) is not None]
    if len(given) == 1:
        raise ConfigError(
            f"serve.{given[0]} is given alone.",
            "Give both serve.tls_cert and serve.tls_key: HTTP and gRPC need them.",
        )


def decode_section(kind: type[T], raw: object, at: str = "") -> T:
    """Turn plain data into the section `kind`, whose place in the file is `at`.

    Raises:
        ConfigError: an unknown key, with the nearest known one; a value of the wrong type, with its place.
    """
    _refuse_unknown_keys(kind, raw, at)
    try:
        return msgspec.convert(raw, kind, strict=False)
    except msgspec.ValidationError as error:
        detail, _, path = str(error).partition(" - at `$")
        place = (at + path.rstrip("`")).lstrip(".") or FILE
        raise ConfigError(
            f"{FILE}: {place}: {detail}", f"Change {place} in {FILE}; docs/configuration.md lists every setting."
        ) from None


def merge_settings(base: Mapping[str, Any], over: Mapping[str, Any]) -> dict[str, Any]:
    """`base` with the values of `over` in it; mappings are merged, anything else is replaced."""
    merged = dict(base)
    for key, value in over.items():
        old = merged.get(key)
        merged[key] = merge_settings(old, value) if isinstance(old, Mapping) and isinstance(value, Mapping) else value
    return merged


def _expand_store(raw: dict[str, Any]) -> dict[str, Any]:
    """`store: URL` as `store: {url: URL}`: another URL changes nothing of what is required of its versions."""
    store = raw.get("store") if isinstance(raw, dict) else None
    return {**raw, "store": {"url": store}} if isinstance(store, str) else raw


def _read_yaml(file: Path) -> dict[str, Any]:
    try:
        text = file.read_text(encoding="utf-8")
    except FileNotFoundError:
        return {}
    except (OSError, UnicodeDecodeError) as error:
        raise ConfigError(f"{file} cannot be read: {error}", "Make it a readable UTF-8 file.") from None
    import yaml

    try:
        raw = yaml.safe_load(text)
    except yaml.YAMLError as error:
        mark = getattr(error, "problem_mark", None)
        line = f":{mark.line + 1}" if mark else ""
        raise ConfigError(f"{file}{line} is not YAML: {getattr(error, 'problem', error)}", "Fix that line.") from None
    if raw is None:
        return {}
    if not isinstance(raw, dict):
        raise ConfigError(
            f"{file} holds a {type(raw).__name__}, not keys and values.", "Write it as `key: value` lines."
        )
    return {key: _with_texts_as_keys(value) for key, value in raw.items()}


def _with_texts_as_keys(value: Any) -> Any:
    """YAML 1.1, which PyYAML reads, takes the key `on` for true and `off` for false."""
    if isinstance(value, dict):
        return {
            ("on" if key else "off") if isinstance(key, bool) else key: _with_texts_as_keys(inner)
            for key, inner in value.items()
        }
    return [_with_texts_as_keys(inner) for inner in value] if isinstance(value, list) else value


def _read_environment(environ: Mapping[str, str]) -> dict[str, Any]:
    """`MLAPP_SERVE__PORT=80` as `{"serve": {"port": "80"}}`; a list is separated by commas."""
    raw: dict[str, Any] = {}
    known = {field.name: field.type for field in msgspec.structs.fields(Settings)}
    for name, text in environ.items():
        if not name.startswith(PREFIX):
            continue
        path = name[len(PREFIX) :].lower().split("__")
        if len(path) == 1 and path[0] not in known:
            continue  # not a setting: MLAPP_TEST_… and the like
        if path == ["store"]:
            path = ["store", "url"]
        place = raw
        for key in path[:-1]:
            place = place.setdefault(key, {})
        place[path[-1]] = _split_list_value(known.get(path[0]), path[1:], text)
    return raw


def _split_list_value(kind: Any, path: list[str], text: str) -> Any:
    for key in path:
        fields = _section_fields(kind)
        kind = fields.get(key) if fields else None
    if kind is not None and isinstance(_strip_optional(kind), msgspec.inspect.ListType):
        return [part.strip() for part in text.split(",") if part.strip()]
    return text


def _refuse_unknown_keys(kind: Any, raw: object, at: str) -> None:
    fields = _section_fields(kind)
    if not fields or not isinstance(raw, Mapping):
        return
    for key, value in raw.items():
        place = f"{at}.{key}" if at else str(key)
        if key not in fields:
            raise ConfigError(
                f"{FILE}: '{place}' is not a setting.{suggest_nearest(str(key), fields)}",
                f"Known here: {', '.join(sorted(fields))}.",
            )
        _refuse_unknown_keys(fields[key], value, place)


def _section_fields(kind: Any) -> dict[str, Any]:
    """The fields of a section by name, with their types; empty for any other type."""
    bare = _strip_optional(kind) if kind is not None else None
    if not isinstance(bare, msgspec.inspect.StructType):
        return {}
    return {field.encode_name: field.type for field in bare.fields}


def _strip_optional(kind: Any) -> msgspec.inspect.Type:
    """The inspected type without its metadata and without an `| None`."""
    bare = kind if isinstance(kind, msgspec.inspect.Type) else msgspec.inspect.type_info(kind)
    while isinstance(bare, msgspec.inspect.Metadata):
        bare = bare.type
    if isinstance(bare, msgspec.inspect.UnionType):
        others = [option for option in bare.types if not isinstance(option, msgspec.inspect.NoneType)]
        return _strip_optional(others[0]) if len(others) == 1 else bare
    return bare
