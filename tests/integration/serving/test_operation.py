"""Settings of an operator: TLS, CORS, a bundle with workers, gRPC's own; and the client of `app.remote`."""

from __future__ import annotations

import ssl
from pathlib import Path

import httpx
import numpy as np
import pandas as pd
import pytest

from mlapp import App
from mlapp.client import RemoteError
from mlapp.errors import InputError
from tests.servers import free_port

from .conftest import PATIENCE, until

pytestmark = pytest.mark.xdist_group("serving")
BODY = {"inputs": [{"a": 1, "b": 2}]}


@pytest.fixture(scope="module")
def authority():
    import trustme

    return trustme.CA()


@pytest.fixture(scope="module")
def tls(authority, tmp_path_factory) -> dict[str, str]:
    """A certificate for this machine's loopback, as settings, and its authority's file."""
    folder: Path = tmp_path_factory.mktemp("tls")
    certificate = authority.issue_cert("localhost", "127.0.0.1")
    certificate.private_key_pem.write_to_path(folder / "key.pem")
    for at, part in enumerate(certificate.cert_chain_pems):
        part.write_to_path(folder / "cert.pem", append=at > 0)
    authority.cert_pem.write_to_path(folder / "ca.pem")
    return {
        "MLAPP_SERVE__TLS_CERT": str(folder / "cert.pem"),
        "MLAPP_SERVE__TLS_KEY": str(folder / "key.pem"),
        "authority": str(folder / "ca.pem"),
    }


def test_tls_holds_for_http_and_grpc(serve, new_project, tls, monkeypatch) -> None:
    import tritonclient.grpc as triton

    port = free_port()
    settings = {name: value for name, value in tls.items() if name != "authority"}
    with serve(new_project(), "--grpc-port", str(port), **settings) as server:
        assert server.url.startswith("https://")
        context = ssl.create_default_context(cafile=tls["authority"])
        assert httpx.post(f"{server.url}/predict", json=BODY, verify=context).json()["predictions"] == [3.0]
        with pytest.raises(httpx.ConnectError, match="certificate"):
            httpx.get(f"{server.url}/livez")

        with triton.InferenceServerClient(f"localhost:{port}", ssl=True, root_certificates=tls["authority"]) as client:
            assert client.is_server_ready()
        with (
            triton.InferenceServerClient(f"localhost:{port}") as client,
            pytest.raises(triton.InferenceServerException),
        ):
            client.is_server_ready(client_timeout=PATIENCE)

        monkeypatch.setenv("SSL_CERT_FILE", tls["authority"])
        assert App.remote(server.url).predict([{"a": 1, "b": 2}]) == [3.0]


def test_a_bundle_is_served_by_workers(serve, mlapp, new_project, tmp_path) -> None:
    project = new_project()
    (project / "requirements.txt").write_text("pandas\n")
    made = mlapp(project, "build", "--bundle-only", "--output", str(tmp_path / "bundles"))
    assert made.returncode == 0, made.stderr
    (bundle,) = (tmp_path / "bundles").iterdir()
    with serve(tmp_path, "--bundle", str(bundle), "--workers", "2") as server:
        answer = httpx.post(f"{server.url}/predict", json=BODY).json()
        assert answer == {"predictions": [3.0], "model": "sums", "version": "1"}
        assert server.stop() == 0


def test_a_browser_of_an_allowed_origin_may_call(serve, new_project) -> None:
    with serve(new_project(), MLAPP_SERVE__CORS="https://shop.example.org") as server:
        for origin, allowed in (("https://shop.example.org", True), ("https://evil.example.org", False)):
            asked = {"Origin": origin, "Access-Control-Request-Method": "POST"}
            preflight = httpx.options(f"{server.url}/predict", headers=asked)
            assert preflight.is_success is allowed
            answer = httpx.post(f"{server.url}/predict", json=BODY, headers={"Origin": origin})
            for got in (preflight, answer):
                assert (got.headers.get("access-control-allow-origin") == origin) is allowed


def test_a_grpc_client_that_hangs_up_frees_its_place(server) -> None:
    import tritonclient.grpc as triton

    tensors = []
    for name in ("a", "b"):
        tensors.append(triton.InferInput(name, [1], "FP64"))
        tensors[-1].set_data_from_numpy(np.array([1.0]))

    def left() -> float:
        return server.metric("mlapp_errors_total", kind="client_left")

    before = left()
    with triton.InferenceServerClient(server.urls[-1]) as client, server.busy():
        waiting = client.async_infer("sums", tensors, lambda result, error: None)
        server.until_waiting(1)
        waiting.cancel()
        until(lambda: left() == before + 1)


def test_a_remote_app_answers_and_refuses_as_one_in_this_process(server) -> None:
    sums = App.remote(server.url)
    for inputs in (
        [{"a": 1, "b": 2}],
        [[1, 2]],
        {"a": [1], "b": [2]},
        np.array([[1.0, 2.0]]),
        pd.DataFrame({"a": [1.0], "b": [2.0]}),
    ):
        assert sums.predict(inputs) == [3.0]
    with pytest.raises(InputError, match="row 0 lacks 'b'"):
        sums.predict([{"a": 1}])
    with pytest.raises(RemoteError, match="answered 500"):
        sums.predict([[-1, -1]])
    with pytest.raises(RemoteError, match="answered 404"):
        App.remote(f"{server.url}/elsewhere").predict([[1, 2]])
    with pytest.raises(RemoteError, match="cannot be reached"):
        App.remote(f"http://127.0.0.1:{free_port()}").predict([[1, 2]])


def test_a_remote_app_is_called_with_its_key_and_again_after_a_restart(serve, new_project) -> None:
    project, port = new_project(), str(free_port())
    settings = {"MLAPP_SERVE__API_KEYS": "secret"}
    sums = App.remote(f"http://127.0.0.1:{port}", api_key="secret")
    for _ in range(2):  # the connection that it kept is gone the second time
        with serve(project, "--port", port, **settings):
            assert sums.predict([[1, 2]]) == [3.0]
            with pytest.raises(RemoteError, match="answered 401"):
                App.remote(f"http://127.0.0.1:{port}").predict([[1, 2]])
