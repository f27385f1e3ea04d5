"""gRPC messages of unknown clients are parsed after the key check, and within limits."""

from __future__ import annotations

import grpc
import pytest

from tests.servers import free_port

from .conftest import PATIENCE, serving

KEY = "s3cret"
INFER = "/inference.GRPCInferenceService/ModelInfer"
GARBAGE = b"\x2a\xff\xff\xff\xff\x0f garbage"
EMPTY_TENSORS = b"\x2a\x00" * 5_000_000
"""Ten megabytes, which would be a gigabyte of messages."""


@pytest.fixture(scope="module")
def server(new_project):
    port = free_port()
    with serving(new_project(), "--grpc-port", str(port), MLAPP_SERVE__API_KEYS=KEY) as server:
        server.urls.append(f"127.0.0.1:{port}")
        yield server


def call(server, body: bytes, key: str | None) -> grpc.StatusCode:
    metadata = () if key is None else (("x-api-key", key),)
    with grpc.insecure_channel(server.urls[1], options=[("grpc.max_send_message_length", -1)]) as channel:
        with pytest.raises(grpc.RpcError) as failed:
            channel.unary_unary(INFER)(body, metadata=metadata, timeout=PATIENCE)
        return failed.value.code()


@pytest.mark.parametrize("body", [GARBAGE, EMPTY_TENSORS], ids=["garbage", "tensors"])
def test_without_a_key_nothing_is_parsed(server, body: bytes) -> None:
    assert call(server, body, None) is grpc.StatusCode.UNAUTHENTICATED


def test_garbage_is_a_wrong_argument_and_no_error_of_the_server(server) -> None:
    for body in (GARBAGE, b"\x08\x96\x01\x0b", b"\x0a\x02\xff\xfe"):
        assert call(server, body, KEY) is grpc.StatusCode.INVALID_ARGUMENT
    assert "Traceback" not in server.text()


def test_messages_within_a_message_are_counted_before_they_are_made(server) -> None:
    assert call(server, EMPTY_TENSORS, KEY) is grpc.StatusCode.RESOURCE_EXHAUSTED
    nested = b"\x22\x00" * 50_000
    size = len(nested)
    tensor = b"\x2a" + bytes((size & 127 | 128, size >> 7 & 127 | 128, size >> 14)) + nested
    assert call(server, tensor, KEY) is grpc.StatusCode.RESOURCE_EXHAUSTED


def test_a_call_with_two_keys_is_refused(server) -> None:
    """A proxy can check one of them, and the server another."""
    describe = "/inference.GRPCInferenceService/ServerMetadata"
    with grpc.insecure_channel(server.urls[1]) as channel:
        method = channel.unary_unary(describe)
        assert b"mlapp" in method(b"", metadata=(("x-api-key", KEY), ("x-api-key", KEY)), timeout=PATIENCE)
        for keys in ((KEY, "bad"), ("bad", KEY)):
            with pytest.raises(grpc.RpcError, match="X-Api-Key headers with different values") as failed:
                method(b"", metadata=[("x-api-key", key) for key in keys], timeout=PATIENCE)
            assert failed.value.code() is grpc.StatusCode.INVALID_ARGUMENT
