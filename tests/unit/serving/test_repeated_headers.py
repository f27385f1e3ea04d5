"""Headers that a request repeats mean the same on every path through the server, or the request is refused."""

from __future__ import annotations

import gzip
from collections.abc import Iterator

import pytest

from mlapp.serving.observability import tracing

from .test_both_protocols import JSON, PREDICT, ROWS, both, exchange, request

PACKED = gzip.compress(ROWS, mtime=0)
INFER = b"POST /v2/models/numbers/infer HTTP/1.1"
TENSOR = b'{"inputs":[{"name":"inputs","datatype":"FP64","shape":[1,2],"data":[1,2]}]}'


@pytest.fixture(scope="module")
def servers(numbers) -> Iterator[tuple]:
    with both(*numbers, api_keys=["good", "also-good"], timeout=20.0, cors=["https://shop.example"]) as servers:
        yield servers


CASES: dict[str, tuple[int, bytes]] = {
    "two types": (400, request(PREDICT, JSON, b"Content-Type: text/csv", body=ROWS)),
    "two types, the other way round": (400, request(PREDICT, b"Content-Type: text/csv", JSON, body=ROWS)),
    "one type twice": (200, request(PREDICT, JSON, JSON, body=ROWS)),
    "two keys": (400, request(PREDICT, b"X-API-Key: also-good", body=ROWS)),
    "a wrong key, then a good one": (400, request(PREDICT, b"X-API-Key: good", body=ROWS, key=b"X-API-Key: bad")),
    "a good key, then a wrong one": (400, request(PREDICT, b"X-API-Key: bad", body=ROWS)),
    "one key twice": (200, request(PREDICT, b"X-API-Key: good", body=ROWS)),
    "two tokens": (
        400,
        request(PREDICT, b"Authorization: Bearer bad", b"Authorization: Bearer good", body=ROWS, key=b""),
    ),
    "one token twice": (
        200,
        request(PREDICT, b"Authorization: Bearer good", b"Authorization: Bearer good", body=ROWS, key=b""),
    ),
    "two keys of a probe": (400, request(b"GET /livez HTTP/1.1", b"X-API-Key: bad")),
    "two timeouts": (400, request(PREDICT, b"X-Request-Timeout: 9", b"X-Request-Timeout: 8", body=ROWS)),
    "two origins": (
        400,
        request(PREDICT, b"Origin: https://evil.example", b"Origin: https://shop.example", body=ROWS),
    ),
    "two lengths of the JSON": (
        400,
        request(INFER, b"Inference-Header-Content-Length: 1", b"Inference-Header-Content-Length: 2", body=TENSOR),
    ),
    "two codings": (
        415,
        request(PREDICT, b"Content-Encoding: gzip", b"Content-Encoding: gzip", body=gzip.compress(PACKED, mtime=0)),
    ),
    "two codings in a line": (415, request(PREDICT, b"Content-Encoding: gzip, deflate", body=PACKED)),
    "no coding, then one": (
        200,
        request(PREDICT, b"Content-Encoding: identity", b"Content-Encoding: gzip", body=PACKED),
    ),
    "a coding, then none": (
        200,
        request(PREDICT, b"Content-Encoding: gzip", b"Content-Encoding: identity", body=PACKED),
    ),
    "an empty coding": (200, request(PREDICT, b"Content-Encoding: ", b"Content-Encoding: , GZip,", body=PACKED)),
    "an unknown coding, then a known one": (
        415,
        request(PREDICT, b"Content-Encoding: br", b"Content-Encoding: gzip", body=PACKED),
    ),
    "a wrong expectation, then a right one": (
        417,
        request(PREDICT, b"Expect: a-miracle", b"Expect: 100-continue", body=ROWS),
    ),
    "two ids": (200, request(PREDICT, b"X-Request-ID: yours", body=ROWS)),
    "two traces": (200, request(PREDICT, b"traceparent: 00-1-2-01", b"traceparent: 00-3-4-01", body=ROWS)),
    "two of another": (200, request(PREDICT, b"X-A: 1", b"X-A: 2", body=ROWS)),
    "two accepted types": (200, request(PREDICT, b"Accept: text/html", b"Accept: */*", body=ROWS)),
}


@pytest.mark.parametrize(("status", "sent"), CASES.values(), ids=CASES)
def test_repeated_headers_mean_the_same_in_both_protocols(servers, status: int, sent: bytes) -> None:
    own, uvicorns = (exchange(address, sent) for address in servers)
    assert [answer[0] for answer in own] == [status], own
    assert own == uvicorns


def test_neither_of_two_ids_is_used(servers) -> None:
    """A log of a proxy may have the first, and one behind the server the last."""
    for address in servers:
        assert exchange(address, CASES["two ids"][1])[0][1]["x-request-id"] == "another"


@pytest.mark.parametrize(
    "lines",
    [(b"Host: x",), (b"Host: y",), (b"Content-Length: 8", b"Content-Length: 9"), (b"Content-Length: 8",) * 2],
    ids=["a host twice", "two hosts", "two lengths", "a length twice"],
)
def test_repeated_framing_is_refused(servers, lines: tuple[bytes, ...]) -> None:
    """uvicorn's own parser takes one length twice as one, as RFC 9112, 6.3 permits."""
    own, uvicorns = (exchange(address, request(PREDICT, *lines, body=ROWS)) for address in servers)
    assert [answer[0] for answer in own] == [400]
    is_one_length = lines == (b"Content-Length: 8",) * 2
    assert [answer[0] for answer in uvicorns] == [200 if is_one_length else 400]


def test_two_traces_are_not_continued_and_lists_of_a_trace_are_joined() -> None:
    """W3C Trace Context: with several traceparent headers, the server begins a new trace; tracestate is a list."""
    trace = pytest.importorskip("opentelemetry.trace")
    first, second = (b"00-%032x-%016x-01" % (number, number) for number in (1, 2))

    def read(*lines: tuple[bytes, bytes]):
        return trace.get_current_span(tracing._extract_trace_context(lines)).get_span_context()

    assert not read((b"traceparent", first), (b"traceparent", second)).is_valid
    context = read((b"traceparent", first), (b"tracestate", b"a=1"), (b"tracestate", b"b=2"))
    assert context.trace_id == 1
    assert dict(context.trace_state) == {"a": "1", "b": "2"}
