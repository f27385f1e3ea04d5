"""The public clients of other servers work unchanged."""

from __future__ import annotations

import json

import numpy as np
import pandas as pd
import pytest

from .conftest import PATIENCE, until

pytestmark = pytest.mark.xdist_group("serving")


def tensors(module, *, binary: bool | None = None):
    """Two columns of two rows, as the client's own tensors."""
    found = []
    for name, values in (("a", [1.0, 2.0]), ("b", [0.5, 0.25])):
        tensor = module.InferInput(name, [2], "FP64")
        array = np.array(values)
        tensor.set_data_from_numpy(array) if binary is None else tensor.set_data_from_numpy(array, binary_data=binary)
        found.append(tensor)
    return found


@pytest.mark.parametrize("binary", [True, False])
def test_triton_client_over_http(server, binary):
    import tritonclient.http as triton

    with triton.InferenceServerClient(server.url.removeprefix("http://")) as client:
        assert client.is_server_live()
        assert client.is_server_ready()
        assert client.is_model_ready("sums")
        assert client.get_server_metadata()["name"] == "mlapp"
        metadata = client.get_model_metadata("sums")
        assert [tensor["name"] for tensor in metadata["inputs"]] == ["a", "b"]
        outputs = [triton.InferRequestedOutput("predictions", binary_data=binary)]
        answer = client.infer("sums", tensors(triton, binary=binary), outputs=outputs, request_id="7")
        assert answer.as_numpy("predictions").tolist() == [1.5, 2.25]
        assert answer.get_response()["id"] == "7"
        assert client.infer("sums", tensors(triton), model_version="1").as_numpy("predictions").tolist() == [1.5, 2.25]
        rows = triton.InferInput("inputs", [3, 2], "FP32")
        rows.set_data_from_numpy(np.array([[1, 2], [3, 4], [5, 6]], dtype="float32"))
        assert client.infer("sums", [rows]).as_numpy("predictions").tolist() == [3, 7, 11]
        with pytest.raises(triton.InferenceServerException, match="no model 'other'"):
            client.infer("other", [rows])
        with pytest.raises(triton.InferenceServerException, match="column 'b' is missing"):
            client.infer("sums", tensors(triton)[:1])


def test_triton_client_lists_the_models(server):
    import tritonclient.http as triton

    with triton.InferenceServerClient(server.url.removeprefix("http://")) as client:
        assert client.get_model_repository_index() == [{"name": "sums", "version": "1", "state": "READY"}]


def test_triton_client_over_grpc(server):
    import tritonclient.grpc as triton

    with triton.InferenceServerClient(server.urls[-1]) as client:
        assert client.is_server_live()
        assert client.is_server_ready()
        assert client.is_model_ready("sums")
        assert client.get_model_metadata("sums").inputs[0].datatype == "FP64"
        answer = client.infer("sums", tensors(triton), request_id="7")
        assert answer.as_numpy("predictions").tolist() == [1.5, 2.25]
        assert answer.get_response().id == "7"
        with pytest.raises(triton.InferenceServerException, match="no model 'other'"):
            client.infer("other", tensors(triton))
        with pytest.raises(triton.InferenceServerException, match="column 'b' is missing"):
            client.infer("sums", tensors(triton)[:1])


def test_grpc_calls_are_counted_and_logged(server):
    import tritonclient.grpc as triton

    def handled(code: str) -> float:
        return server.metric("grpc_server_handled_total", grpc_method="ModelInfer", grpc_code=code)

    before = handled("OK"), handled("NOT_FOUND")
    with triton.InferenceServerClient(server.urls[-1]) as client:
        client.infer("sums", tensors(triton), headers={"x-request-id": "a-call-of-mine"})
        with pytest.raises(triton.InferenceServerException):
            client.infer("other", tensors(triton), headers={"x-request-id": "a-wrong-one"})
    assert (handled("OK"), handled("NOT_FOUND")) == (before[0] + 1, before[1] + 1)
    for identity, status in (("a-call-of-mine", 200), ("a-wrong-one", 404)):
        until(lambda identity=identity: identity in server.text())
        (line,) = [json.loads(line) for line in server.text().splitlines() if identity in line]
        assert (line["status"], line["path"]) == (status, "/inference.GRPCInferenceService/ModelInfer")
        assert line["client"] == "127.0.0.1"


def test_mlflow_scoring_client(server):
    from mlflow.pyfunc.scoring_server.client import ScoringServerClient

    client = ScoringServerClient("127.0.0.1", int(server.url.rpartition(":")[2]))
    client.wait_server_ready(timeout=PATIENCE)
    answer = client.invoke(pd.DataFrame({"b": [0.5, 0.25], "a": [1.0, 2.0]}))
    assert answer.get_predictions()[0].tolist() == [1.5, 2.25]


@pytest.mark.parametrize(
    "body",
    [
        {"dataframe_split": {"columns": ["b", "a"], "data": [[0.5, 1], [0.25, 2]]}},
        {"dataframe_records": [{"a": 1, "b": 0.5}, {"a": 2, "b": 0.25}]},
        {"instances": [{"a": 1, "b": 0.5}, {"a": 2, "b": 0.25}]},
        {"instances": [[1, 0.5], [2, 0.25]]},
        {"inputs": {"a": [1, 2], "b": [0.5, 0.25]}},
    ],
)
def test_invocations(client, body):
    assert client.get("/ping").status_code == 200
    assert client.post("/invocations", json=body).json() == {"predictions": [1.5, 2.25]}


def test_invocations_with_csv(client):
    for text in ("a,b\n1,0.5\n2,0.25\n", "1,0.5\n2,0.25\n"):
        response = client.post("/invocations", content=text, headers={"content-type": "text/csv"})
        assert response.json() == {"predictions": [1.5, 2.25]}, response.text
    assert client.post("/invocations", json={"other": 1}).status_code == 422
