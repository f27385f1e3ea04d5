"""OpenTelemetry traces, as a collector receives them: OTLP over HTTP, through two servers."""

from __future__ import annotations

import http.server
import threading
from collections.abc import Iterator
from typing import Any

import httpx
import pytest

from tests.servers import free_port

pytestmark = pytest.mark.xdist_group("serving")
GATEWAY = """
import os

import pandas as pd

from mlapp import App

app = App("gateway", target="y")
sums = app.remote(os.environ["SUMS_URL"])


@app.data_reader
def read() -> pd.DataFrame:
    return pd.DataFrame({"a": [1.0, 2.0, 3.0, 4.0], "b": 0.5, "y": [True, False] * 2})


class Nothing:
    def fit(self, features, target=None):
        return self


app.model(Nothing)


@app.saver
def save(model, path) -> None:
    (path / "nothing").write_text("")


@app.loader
def load(path) -> Nothing:
    return Nothing()


@app.evaluator
def evaluate(model: Nothing, features: pd.DataFrame, target: pd.Series) -> float:
    return 0.0


@app.predictor
def predict(model: Nothing, features: pd.DataFrame) -> list[float]:
    return sums.predict(features)
"""


@pytest.fixture
def collector() -> Iterator[tuple[str, list[tuple[str, Any]]]]:
    """A receiver of OTLP over HTTP: its URL, and the spans that it got, each with its service's name."""
    from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import (
        ExportTraceServiceRequest,
        ExportTraceServiceResponse,
    )

    spans: list[tuple[str, Any]] = []

    class Handler(http.server.BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            assert self.path == "/v1/traces"
            body = self.rfile.read(int(self.headers["content-length"]))
            for resource in ExportTraceServiceRequest.FromString(body).resource_spans:
                (name,) = (at.value.string_value for at in resource.resource.attributes if at.key == "service.name")
                spans.extend((name, span) for scope in resource.scope_spans for span in scope.spans)
            answer = ExportTraceServiceResponse().SerializeToString()
            self.send_response(200)
            self.send_header("content-length", str(len(answer)))
            self.end_headers()
            self.wfile.write(answer)

        def log_message(self, *arguments: Any) -> None:
            pass

    receiver = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    threading.Thread(target=receiver.serve_forever, daemon=True).start()
    yield f"http://127.0.0.1:{receiver.server_address[1]}", spans
    receiver.shutdown()


def test_one_trace_goes_from_the_caller_through_the_gateway_to_the_model(
    serve, mlapp, new_project, tmp_path, collector, monkeypatch
) -> None:
    url, spans = collector
    trace, caller = "4bf92f3577b34da6a3ce929d0e0e4736", "00f067aa0ba902b7"
    traced = {"OTEL_EXPORTER_OTLP_ENDPOINT": url}
    project = tmp_path / "gateway"
    project.mkdir()
    (project / "app.py").write_text(GATEWAY)
    with serve(new_project(), **traced) as sums:
        monkeypatch.setenv("SUMS_URL", sums.url)
        assert mlapp(project, "train").returncode == 0
        with serve(project, OTEL_SERVICE_NAME="the-gateway", **traced) as gateway:
            headers = {"traceparent": f"00-{trace}-{caller}-01"}
            body = {"inputs": [{"a": 1, "b": 2}]}
            assert httpx.post(f"{gateway.url}/predict", json=body, headers=headers).json()["predictions"] == [3.0]
            assert httpx.post(f"{gateway.url}/predict", json=body).status_code == 200
            assert httpx.get(f"{gateway.url}/v2/models/none").status_code == 404
            gateway.stop()
        sums.stop()

    mine = [(service, span) for service, span in spans if span.trace_id.hex() == trace]
    names = {(service, span.name): span for service, span in mine}
    order = [
        ("the-gateway", "POST /predict"),
        ("the-gateway", "predict gateway"),
        ("sums", "POST /predict"),
        ("sums", "predict sums"),
    ]
    assert sorted(names) == sorted(order)
    parent = caller
    for step in order:
        span = names[step]
        assert span.parent_span_id.hex() == parent, step
        parent = span.span_id.hex()
    batch = names["sums", "predict sums"]
    assert [link.span_id for link in batch.links] == [names["sums", "POST /predict"].span_id]
    request = {at.key: at.value for at in names["sums", "POST /predict"].attributes}
    assert request["http.route"].string_value == "/predict"
    assert request["http.response.status_code"].int_value == 200
    assert "GET /v2/models/*" in {span.name for _, span in spans}


def test_a_grpc_call_continues_the_callers_trace(serve, new_project, collector) -> None:
    import numpy as np
    import tritonclient.grpc as triton

    url, spans = collector
    trace, caller = "5bf92f3577b34da6a3ce929d0e0e4736", "10f067aa0ba902b7"
    headers = {"traceparent": f"00-{trace}-{caller}-01"}
    rows = triton.InferInput("inputs", [1, 2], "FP64")
    rows.set_data_from_numpy(np.array([[1.0, 2.0]]))
    port = free_port()
    with serve(new_project(), "--grpc-port", str(port), OTEL_EXPORTER_OTLP_ENDPOINT=url) as server:
        with triton.InferenceServerClient(f"127.0.0.1:{port}") as client:
            assert client.infer("sums", [rows], headers=headers).as_numpy("predictions").tolist() == [3.0]
            with pytest.raises(triton.InferenceServerException):
                client.infer("other", [rows], headers=headers)
        server.stop()

    mine = sorted((span for _, span in spans if span.trace_id.hex() == trace), key=lambda span: span.end_time_unix_nano)
    batch, call, refused = mine
    assert call.name == refused.name == "inference.GRPCInferenceService/ModelInfer"
    assert call.parent_span_id.hex() == refused.parent_span_id.hex() == caller
    assert (batch.name, batch.parent_span_id) == ("predict sums", call.span_id)
    statuses = [{at.key: at.value.string_value for at in span.attributes} for span in (call, refused)]
    assert [attributes["rpc.response.status_code"] for attributes in statuses] == ["OK", "NOT_FOUND"]
