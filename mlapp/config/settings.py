"""The sections of mlapp.yaml, except `monitor:`, and the whole file."""

from __future__ import annotations

from typing import Annotated, Any, Literal

import msgspec
from msgspec import Meta

from mlapp.config.monitor import Monitor
from mlapp.config.section import END, Section, describe_text


class Serve(Section, frozen=True):
    """`serve:` the HTTP server."""

    host: Annotated[str | None, Meta(description="Address to bind: 127.0.0.1 on a laptop, 0.0.0.0 in a container.")] = (
        None
    )
    port: Annotated[int, Meta(ge=0, le=65535, description="Port of the HTTP server; 0 picks a free one.")] = 8000
    grpc_port: Annotated[
        int | None, Meta(description="Port of the Open Inference Protocol over gRPC; off when absent.")
    ] = None
    workers: Annotated[int, Meta(ge=1, description="Number of server processes that share the socket.")] = 1
    preload: Annotated[
        bool,
        Meta(description="Load the model once and fork the workers where it is safe, so that they share its memory."),
    ] = True
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
        float, Meta(ge=0, description="Seconds a request waits for others to join its batch; 0 does not wait.")
    ] = 0.0
    queue: Annotated[
        Annotated[int, Meta(ge=1)] | None,
        Meta(description="Maximum number of waiting rows, then 503. Replaces `max_wait`."),
    ] = None
    max_wait: Annotated[
        float,
        Meta(
            gt=0,
            description="Maximum expected wait for the model in seconds, then 503. "
            "Twice as long while fewer than eight requests wait and none was refused recently.",
        ),
    ] = 1.0
    timeout: Annotated[
        float, Meta(gt=0, description="Maximum seconds of a request, unless X-Request-Timeout is less.")
    ] = 30.0
    grace: Annotated[
        float, Meta(ge=0, description="On SIGTERM, seconds to keep accepting requests while /readyz fails.")
    ] = 0.0
    drain: Annotated[float, Meta(ge=0, description="On SIGTERM, seconds for open requests to finish.")] = 30.0
    api_keys: Annotated[list[str], Meta(description="API keys. Clients must send one as X-API-Key or Bearer.")] = []
    cors: Annotated[list[str], Meta(description="Allowed origins of browsers; `*` for all.")] = []
    tls_cert: Annotated[str | None, Meta(description="PEM file of the certificate.")] = None
    tls_key: Annotated[str | None, Meta(description="PEM file of the certificate's key.")] = None
    access_log: Annotated[bool, Meta(description="Write one JSON line for each request.")] = True
    fast: Annotated[
        bool,
        Meta(description="Answer plain predictions without ASGI; `false` runs uvicorn's own, slower protocol."),
    ] = True
    api: Annotated[
        str | None,
        Meta(description="Your own FastAPI application, such as `routes.py:api`, for all other routes."),
    ] = None
    wsgi: Annotated[
        str | None,
        Meta(description="Your own WSGI site with the model, such as `web.py:site`; `mlapp serve` runs gunicorn."),
    ] = None


class Store(Section, frozen=True):
    """`store:` where models are stored, and which signatures are valid. A plain string is its `url`."""

    url: Annotated[str, Meta(description="A folder relative to this file, or a URL such as s3://bucket/prefix.")] = (
        ".mlapp/store"
    )
    verify: Annotated[
        Literal["none", "required"], Meta(description="`required` refuses versions without a valid signature.")
    ] = "none"
    public_key: Annotated[str | None, Meta(description="PEM file of a trusted public key.")] = None
    certificate_chain: Annotated[list[str], Meta(description="PEM files of trusted certificate authorities.")] = []
    identity: Annotated[
        str | None, Meta(description="Trusted identity of keyless signatures, such as an e-mail address.")
    ] = None
    identity_provider: Annotated[str | None, Meta(description="URL of the OpenID Connect provider of `identity`.")] = (
        None
    )
    private_key: Annotated[
        str | None, Meta(description="PEM file of the key with which `train` signs; keep it out of the project.")
    ] = None
    private_key_password: Annotated[
        str | None, Meta(description="Password of the private key. Set it as MLAPP_STORE__PRIVATE_KEY_PASSWORD.")
    ] = None
    signing_certificate: Annotated[
        str | None, Meta(description="PEM file of the certificate of `private_key`, if an authority issued one.")
    ] = None

    @property
    def has_signatures(self) -> bool:
        """Whether versions are signed or verified, on this machine or where the project runs."""
        return self.verify == "required" or any(
            (self.public_key, self.certificate_chain, self.identity, self.private_key)
        )


class Image(Section, frozen=True):
    """`image:` the container image."""

    name: Annotated[
        str | None, Meta(description="Repository of the image, with its registry; the app's name when absent.")
    ] = None
    base: Annotated[
        Annotated[
            str, describe_text(rf"^[A-Za-z0-9]\S*{END}", "the name of an image, without spaces", "python:3.11-slim")
        ]
        | None,
        Meta(description="Base image; the official slim Python image when absent."),
    ] = None
    python: Annotated[
        Annotated[str, describe_text(rf"^[0-9]+(\.[0-9]+)*{END}", "numbers, separated by dots", "3.11")] | None,
        Meta(description="Python version of the image, such as 3.11; this machine's version when absent."),
    ] = None
    platforms: Annotated[list[str], Meta(description="Platforms to build, such as linux/amd64.")] = []
    system_packages: Annotated[
        list[
            Annotated[
                str,
                describe_text(
                    rf"^[a-z0-9][A-Za-z0-9.+:~=/-]*{END}",
                    "the name of a Debian package, and optionally = and its version",
                    "libgomp1",
                    "curl=8.14.1-2",
                ),
            ]
        ],
        Meta(description="Debian packages to install."),
    ] = []
    env: Annotated[
        dict[str, str], Meta(description="Environment variables of the image. Everyone who pulls it can read them.")
    ] = {}
    include: Annotated[list[str], Meta(description="Globs of ignored files to include anyway.")] = []
    index_url: Annotated[
        str | None, Meta(description="Package index; ${VARIABLE} takes a credential from the environment.")
    ] = None
    extra_index_urls: Annotated[list[str], Meta(description="Additional package indexes.")] = []


class Flyte(Section, frozen=True):
    """`flyte:` where `--remote` runs. The connection is configured in flytekit's own file."""

    project: Annotated[str, Meta(description="Flyte project.")] = "flytesnacks"
    domain: Annotated[str, Meta(description="Flyte domain.")] = "development"
    image: Annotated[str | None, Meta(description="Image of the tasks; built when absent.")] = None
    pickle: Annotated[bool, Meta(description="Pass data other than tables and arrays between tasks as a pickle.")] = (
        False
    )
    tasks: Annotated[
        Literal["fused", "separate"],
        Meta(
            description="`fused` runs stages with the same resources in one task; `separate` runs one task per stage."
        ),
    ] = "fused"


class Settings(Section, frozen=True):
    """All settings of mlapp.yaml. `targets` contains the section of each target, which the target defines."""

    name: Annotated[
        Annotated[
            str,
            describe_text(
                rf"^[A-Za-z0-9]([A-Za-z0-9._-]{{0,98}}[A-Za-z0-9])?{END}",
                "1 to 100 letters, digits, '.', '_' and '-'; the first and the last are a letter or a digit",
                "flowers",
                "shop.prices-2",
            ),
        ]
        | None,
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
    engine: Annotated[str, Meta(description="Name of the installed engine for --remote.")] = "flyte"
    monitor: Monitor = msgspec.field(default_factory=Monitor)
    targets: dict[str, dict[str, Any]] = {}
    environments: Annotated[
        dict[str, dict[str, Any]],
        Meta(description="For each environment, the settings added or changed by `--env NAME`."),
    ] = {}
