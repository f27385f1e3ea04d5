"""HTTPS: clients that misuse TLS, refusals of large bodies, and a certificate that is renewed."""

from __future__ import annotations

import socket
import ssl
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import httpx
import pytest
import trustme

from mlapp.serving.web.tls_files import TlsFiles
from tests.servers import free_port

from .conftest import PATIENCE, Server, serving, until

BODY = {"inputs": [{"a": 1.0, "b": 2.0}]}
LIMIT = 1_000_000
AUTHORITY = trustme.CA()


def write_certificate(folder: Path) -> int:
    """A new certificate for this machine's loopback, as `cert.pem` and `key.pem`; returns its serial number."""
    certificate = AUTHORITY.issue_cert("localhost", "127.0.0.1")
    certificate.private_key_pem.write_to_path(folder / "key.pem")
    for at, part in enumerate(certificate.cert_chain_pems):
        part.write_to_path(folder / "cert.pem", append=at > 0)
    from cryptography import x509

    return x509.load_pem_x509_certificate(certificate.cert_chain_pems[0].bytes()).serial_number


@pytest.fixture(scope="module")
def server(new_project, tmp_path_factory) -> Iterator[Server]:
    folder = tmp_path_factory.mktemp("tls")
    write_certificate(folder)
    settings = {
        "MLAPP_SERVE__TLS_CERT": str(folder / "cert.pem"),
        "MLAPP_SERVE__TLS_KEY": str(folder / "key.pem"),
        "MLAPP_SERVE__MAX_BODY": str(LIMIT),
    }
    with serving(new_project(), **settings) as server:
        yield server


@pytest.fixture
def context() -> ssl.SSLContext:
    context = ssl.create_default_context()
    AUTHORITY.configure_trust(context)
    return context


def address(server: Server) -> tuple[str, int]:
    return "127.0.0.1", int(server.url.rpartition(":")[2])


def connect(server: Server, context: ssl.SSLContext) -> ssl.SSLSocket:
    connection = socket.create_connection(address(server), timeout=PATIENCE)
    return context.wrap_socket(connection, server_hostname="127.0.0.1")


def is_answering(server: Server, context: ssl.SSLContext) -> bool:
    answer = httpx.post(f"{server.url}/predict", json=BODY, verify=context, timeout=PATIENCE)
    return answer.json()["predictions"] == [3.0]


def test_a_client_that_still_sends_reads_why_its_body_is_refused(server, context) -> None:
    size = 9 * LIMIT

    def send(_: int) -> bytes:
        with connect(server, context) as client:
            client.sendall(b"POST /predict HTTP/1.1\r\nHost: x\r\nContent-Length: %d\r\n\r\n" % size)
            for _ in range(size // 100_000):
                client.sendall(b" " * 100_000)
            return client.recv(12)

    with ThreadPoolExecutor(8) as clients:
        assert set(clients.map(send, range(16))) == {b"HTTP/1.1 413"}


def test_clients_that_stop_in_the_handshake_delay_no_others(server, context) -> None:
    hello = ssl.MemoryBIO()
    client = context.wrap_bio(ssl.MemoryBIO(), hello, server_hostname="127.0.0.1")
    with pytest.raises(ssl.SSLWantReadError):
        client.do_handshake()
    hello_bytes = hello.read()
    stopped = []
    for at in range(100):
        connection = socket.create_connection(address(server), timeout=PATIENCE)
        connection.sendall(hello_bytes[: at * len(hello_bytes) // 100])
        stopped.append(connection)
    assert is_answering(server, context)
    for connection in stopped:
        connection.close()
    assert is_answering(server, context)


@pytest.mark.parametrize(
    "sent",
    [b"GET /livez HTTP/1.1\r\nHost: x\r\n\r\n", b"\x00" * 100, b"\x16\x03\x01\xff\xff" * 20],
    ids=["HTTP", "zeros", "a wrong record"],
)
def test_what_is_not_tls_ends_its_connection_without_a_traceback(server, context, sent: bytes) -> None:
    with socket.create_connection(address(server), timeout=PATIENCE) as connection:
        connection.sendall(sent)
        answer = b""
        try:
            while part := connection.recv(4096):
                answer += part
        except ConnectionResetError:
            pass
    assert not answer.startswith(b"HTTP")
    assert is_answering(server, context)
    assert "Traceback" not in server.text()


def test_a_client_that_ends_without_a_goodbye_is_no_error(server, context) -> None:
    for _ in range(5):
        client = connect(server, context)
        client.sendall(b"GET /livez HTTP/1.1\r\nHost: x\r\n\r\n")
        assert client.recv(12) == b"HTTP/1.1 200"
        client.close()  # no close_notify
    assert is_answering(server, context)
    assert "Traceback" not in server.text()


def test_a_renewed_certificate_is_used_by_new_connections(tmp_path: Path) -> None:
    def read_serial() -> int:
        """The serial number of the certificate that a client of the context sees."""
        trusting = ssl.create_default_context()
        AUTHORITY.configure_trust(trusting)
        to_server, to_client = ssl.MemoryBIO(), ssl.MemoryBIO()
        client = trusting.wrap_bio(to_client, to_server, server_hostname="127.0.0.1")
        server = context.wrap_bio(to_server, to_client, server_side=True)
        waiting = [client, server]
        while waiting:
            side = waiting.pop(0)
            try:
                side.do_handshake()
            except ssl.SSLWantReadError:
                waiting.append(side)
        certificate = client.getpeercert()
        assert certificate is not None
        return int(str(certificate["serialNumber"]), 16)

    first = write_certificate(tmp_path)
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(tmp_path / "cert.pem", tmp_path / "key.pem")
    files = TlsFiles(context, str(tmp_path / "cert.pem"), str(tmp_path / "key.pem"))
    assert not files.load_if_changed()
    assert read_serial() == first

    key = (tmp_path / "key.pem").read_bytes()
    second = write_certificate(tmp_path)
    new_key = (tmp_path / "key.pem").read_bytes()
    (tmp_path / "key.pem").write_bytes(key)
    assert not files.load_if_changed(), "the key does not belong to the certificate yet"
    assert read_serial() == first
    (tmp_path / "key.pem").unlink()
    assert not files.load_if_changed()
    assert read_serial() == first
    (tmp_path / "key.pem").write_bytes(new_key)
    assert files.load_if_changed()
    assert read_serial() == second


def test_a_renewed_key_with_a_password_is_refused_without_a_question(tmp_path: Path, capfd) -> None:
    from cryptography.hazmat.primitives import serialization

    write_certificate(tmp_path)
    certificate, key = tmp_path / "cert.pem", tmp_path / "key.pem"
    files = TlsFiles(ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER), str(certificate), str(key))
    secret = serialization.load_pem_private_key(key.read_bytes(), None)
    form, encoding = serialization.PrivateFormat.PKCS8, serialization.Encoding.PEM
    key.write_bytes(secret.private_bytes(encoding, form, serialization.BestAvailableEncryption(b"secret")))
    assert not files.load_if_changed()
    assert "pass phrase" not in capfd.readouterr().err


def test_a_server_loads_a_renewed_certificate(new_project, tmp_path: Path, context) -> None:
    first = write_certificate(tmp_path)
    files = {"MLAPP_SERVE__TLS_CERT": str(tmp_path / "cert.pem"), "MLAPP_SERVE__TLS_KEY": str(tmp_path / "key.pem")}
    grpc_port = free_port()
    context.set_alpn_protocols(["h2"])  # which gRPC requires
    with serving(new_project(), "--grpc-port", str(grpc_port), **files) as server:

        def read_serial(port: int) -> int:
            connection = socket.create_connection(("127.0.0.1", port), timeout=PATIENCE)
            with context.wrap_socket(connection, server_hostname="127.0.0.1") as client:
                certificate = client.getpeercert()
                assert certificate is not None
                return int(str(certificate["serialNumber"]), 16)

        ports = (address(server)[1], grpc_port)
        assert [read_serial(port) for port in ports] == [first] * 2
        second = write_certificate(tmp_path)
        until(lambda: [read_serial(port) for port in ports] == [second] * 2)
        assert is_answering(server, context)
