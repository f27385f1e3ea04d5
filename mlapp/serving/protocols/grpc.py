"""The Open Inference Protocol v2 over gRPC."""

from __future__ import annotations

import asyncio
import logging
import ssl
import time
import urllib.parse
from collections.abc import Awaitable, Callable
from contextlib import AbstractContextManager, nullcontext
from pathlib import Path
from typing import TYPE_CHECKING, Any

from mlapp import distribution
from mlapp.config import Serve
from mlapp.errors import MissingExtraError, MlappError
from mlapp.normalization import MANY
from mlapp.schema.part import Part
from mlapp.serving.decoding.codec import Codec
from mlapp.serving.protocols import open_inference, wire
from mlapp.serving.protocols.messages import PACKAGE, find_message_class
from mlapp.serving.protocols.open_inference_request import accept_v2_tensors
from mlapp.serving.protocols.tensor_decoding import TEXT, make_tensor_from_raw, make_tensor_from_values
from mlapp.serving.protocols.tensors import Tensor
from mlapp.serving.web.budget import Budget
from mlapp.serving.web.headers import Header, check_single_headers, join_headers
from mlapp.serving.web.intake import HeldBody
from mlapp.serving.web.problems import HttpError, make_http_error
from mlapp.serving.web.request_id import choose_request_id
from mlapp.serving.web.tls_files import TlsFiles

if TYPE_CHECKING:
    from mlapp.serving.application import Application

log = logging.getLogger("mlapp.serving")
SERVICE = f"{PACKAGE}.GRPCInferenceService"
CONTENTS = {
    "BOOL": "bool_contents",
    "INT8": "int_contents",
    "INT16": "int_contents",
    "INT32": "int_contents",
    "INT64": "int64_contents",
    "UINT8": "uint_contents",
    "UINT16": "uint_contents",
    "UINT32": "uint_contents",
    "UINT64": "uint64_contents",
    "FP32": "fp32_contents",
    "FP64": "fp64_contents",
    "BYTES": "bytes_contents",
}
STATUS = {
    400: "INVALID_ARGUMENT",
    401: "UNAUTHENTICATED",
    404: "NOT_FOUND",
    408: "DEADLINE_EXCEEDED",
    413: "RESOURCE_EXHAUSTED",
    415: "INVALID_ARGUMENT",
    422: "INVALID_ARGUMENT",
    503: "UNAVAILABLE",
    504: "DEADLINE_EXCEEDED",
}
OPEN = frozenset(("ServerLive", "ServerReady"))
"""Methods of probes, which need no API key."""
Method = Callable[["Application", Any, Any], Awaitable[Any]]


class GrpcServer:
    """Serves on a separate port, in the event loop of the HTTP server, with the same batchers.

    Args:
        shares_port: whether other workers listen on the same port.

    Raises:
        MissingExtraError: grpcio or protobuf is not installed.
    """

    def __init__(self, application: Application, settings: Serve, *, shares_port: bool) -> None:
        try:
            import google.protobuf  # noqa: F401
            import grpc
        except ImportError:
            raise MissingExtraError("The Open Inference Protocol over gRPC", "grpc") from None
        self._grpc = grpc
        self._application = application
        self._settings = settings
        self._shares_port = shares_port
        self._server: Any = None

    async def start_server(self) -> None:
        """Start serving.

        Raises:
            MlappError: the port is in use.
        """
        settings = self._settings
        options = [
            ("grpc.max_receive_message_length", settings.max_body),
            ("grpc.max_send_message_length", -1),
            ("grpc.so_reuseport", int(self._shares_port)),
        ]
        self._server = self._grpc.aio.server(options=options)
        handlers = {name: self._make_grpc_handler(name, method) for name, method in METHODS.items()}
        self._server.add_generic_rpc_handlers((self._grpc.method_handlers_generic_handler(SERVICE, handlers),))
        address = f"{settings.host or '127.0.0.1'}:{settings.grpc_port}"
        try:
            port = self._open_grpc_port(address)
        except RuntimeError:
            raise MlappError(f"Cannot listen on {address} for gRPC.", "Choose another: --grpc-port.") from None
        await self._server.start()
        log.info("gRPC answers at %s", f"{settings.host or '127.0.0.1'}:{port}")

    def _open_grpc_port(self, address: str) -> int:
        """Open the port, with TLS if the HTTP server has it, and return it."""
        cert, key = self._settings.tls_cert, self._settings.tls_key
        if cert is None or key is None:
            return int(self._server.add_insecure_port(address))

        def read_certificate() -> Any:
            pair = (Path(key).read_bytes(), Path(cert).read_bytes())
            return self._grpc.ssl_server_certificate_configuration([pair])

        files = TlsFiles(ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER), cert, key)

        def read_if_changed() -> Any:
            """Called by gRPC for each new connection; None keeps the certificate."""
            return read_certificate() if files.load_if_changed() else None

        credentials = self._grpc.dynamic_ssl_server_credentials(read_certificate(), read_if_changed)
        return int(self._server.add_secure_port(address, credentials))

    async def stop_server(self) -> None:
        """Finish pending calls."""
        if self._server is not None:
            await self._server.stop(self._settings.drain)

    def _make_grpc_handler(self, name: str, method: Method) -> Any:
        async def answer_call(body: bytes, context: Any) -> Any:
            started = time.perf_counter()
            lines = _read_grpc_headers(context)
            headers = join_headers(lines)
            identity = choose_request_id(headers)
            context.set_trailing_metadata((("x-request-id", identity.decode()),))
            status, code = 200, "OK"
            held = HeldBody(self._application.intake)
            try:
                with self._open_grpc_span(name, headers) as set_failure:
                    try:
                        check_single_headers(lines, headers)
                        if name not in OPEN:
                            self._application.keys.check_key(headers)
                        held.add(len(body))
                        if name == INFER:
                            return await _answer_grpc_model_infer(self._application, body, context)
                        return await method(self._application, _parse_grpc_message(name, body), context)
                    except asyncio.CancelledError:
                        status, code = 499, "CANCELLED"
                        set_failure(code)
                        raise
                    except Exception as error:  # gRPC itself would send any other error's text to the client
                        problem = make_http_error(error)
                        status, code = problem.status, STATUS.get(problem.status, "INTERNAL")
                        set_failure(code)
                        await context.abort(getattr(self._grpc.StatusCode, code), problem.detail)
            finally:
                held.release()
                self._record_grpc_call(name, status, code, time.perf_counter() - started, identity, context.peer())

        return self._grpc.unary_unary_rpc_method_handler(
            answer_call,
            request_deserializer=None,  # so that nothing is parsed before the API key is checked
            response_serializer=lambda answer: answer.SerializeToString(),
        )

    def _record_grpc_call(self, name: str, status: int, code: str, seconds: float, identity: bytes, peer: str) -> None:
        """Count a call, and log it like an HTTP request: a POST to the method's path, with an HTTP status."""
        application = self._application
        application.metrics.end_grpc_call(SERVICE, name, code, seconds)
        if application.access_log is not None and not (name in OPEN and code == "OK"):
            address = urllib.parse.unquote(peer).partition(":")[2].rpartition(":")[0].strip("[]")
            client = (address, 0) if address else None
            application.access_log.log_request("POST", f"/{SERVICE}/{name}", status, seconds, identity, client)

    def _open_grpc_span(self, name: str, headers: dict[bytes, bytes]) -> AbstractContextManager[Callable[[str], None]]:
        tracing = self._application.tracing
        if tracing is None:
            return nullcontext(_ignore_grpc_status)
        return tracing.trace_grpc_call(f"{SERVICE}/{name}", headers.items())


def _parse_grpc_message(name: str, body: bytes) -> Any:
    """The message of a method's request.

    Raises:
        HttpError: 400, it is malformed; 413, it contains too many messages.
    """
    from google.protobuf.message import DecodeError

    wire.check_message(body)
    try:
        return find_message_class(f"{name}Request").FromString(body)
    except DecodeError:
        raise HttpError(400, f"The message is not a {name}Request.") from None


def _ignore_grpc_status(status: str) -> None:
    """Without tracing, the status of a call is not needed."""


async def _answer_grpc_server_live(application: Application, request: Any, context: Any) -> Any:
    return find_message_class("ServerLiveResponse")(live=True)


async def _answer_grpc_server_ready(application: Application, request: Any, context: Any) -> Any:
    return find_message_class("ServerReadyResponse")(ready=application.is_ready)


async def _answer_grpc_model_ready(application: Application, request: Any, context: Any) -> Any:
    open_inference.find_v2_model(application, request.name, request.version)
    return find_message_class("ModelReadyResponse")(ready=application.is_ready)


async def _answer_grpc_server_metadata(application: Application, request: Any, context: Any) -> Any:
    version = distribution.version()
    return find_message_class("ServerMetadataResponse")(name="mlapp", version=version)


async def _answer_grpc_model_metadata(application: Application, request: Any, context: Any) -> Any:
    endpoint = open_inference.find_v2_model(application, request.name, request.version)
    return find_message_class("ModelMetadataResponse")(**open_inference.make_v2_metadata(endpoint))


async def _answer_grpc_model_infer(application: Application, body: bytes, context: Any) -> Any:
    names = wire.check_message(body)
    endpoint = open_inference.find_v2_model(application, names.get(1, ""), names.get(2))
    remaining = context.time_remaining()
    timeout = endpoint.settings.timeout
    budget = Budget(endpoint.settings, timeout if remaining is None else max(min(remaining, timeout), 0.001))
    (identity, output_names), outputs, version = await open_inference.predict_tensors(
        endpoint, _decode_grpc_request, body, budget
    )
    requested = [output for output in outputs if not output_names or output.name in output_names]
    answer = find_message_class("ModelInferResponse")(model_name=endpoint.name, model_version=version, id=identity)
    for output in requested:
        answer.outputs.add(name=output.name, datatype=output.datatype, shape=output.shape)
        answer.raw_output_contents.append(output.raw_bytes())
    return answer


INFER = "ModelInfer"
METHODS: dict[str, Method] = {
    "ServerLive": _answer_grpc_server_live,
    "ServerReady": _answer_grpc_server_ready,
    "ModelReady": _answer_grpc_model_ready,
    "ServerMetadata": _answer_grpc_server_metadata,
    "ModelMetadata": _answer_grpc_model_metadata,
    INFER: _answer_grpc_model_infer,
}


def _decode_grpc_request(codec: Codec, body: bytes, budget: Budget) -> tuple[tuple[str, list[str]], Part]:
    """A request's id, its requested outputs, and the features in its tensors."""
    request = _parse_grpc_message(INFER, body)
    part = accept_v2_tensors(codec, _parse_grpc_tensors(request, budget))
    return (request.id, [output.name for output in request.outputs]), part


def _parse_grpc_tensors(request: Any, budget: Budget) -> list[Tensor]:
    raw = list(request.raw_input_contents)
    if raw and len(raw) != len(request.inputs):
        raise HttpError(400, f"{len(request.inputs)} inputs came with {len(raw)} raw_input_contents.")
    tensors = []
    for at, message in enumerate(request.inputs):
        shape = list(message.shape)
        if raw:
            tensors.append(make_tensor_from_raw(message.name, message.datatype, shape, raw[at], budget))
        else:
            contents = getattr(message.contents, CONTENTS.get(message.datatype, "bytes_contents"))
            budget.take(len(contents) * (TEXT if message.datatype == "BYTES" else 1))
            values = [value for at in range(0, len(contents), MANY) for value in contents[at : at + MANY]]
            tensors.append(make_tensor_from_values(message.name, message.datatype, shape, values, budget))
    return tensors


def _read_grpc_headers(context: Any) -> list[Header]:
    return [
        (key.encode(), value if isinstance(value, bytes) else value.encode())
        for key, value in context.invocation_metadata() or ()
    ]
