"""Real servers on free ports of this machine's loopback, for tests and benchmarks: each a context manager.

Without a server's binary a test is skipped on a laptop, and fails in CI.
"""

from __future__ import annotations

import os
import pwd
import random
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path

import pytest

from tests.core_install import leave_out

HANDED_OUT: set[int] = set()
PASSWORD = "p@ss/word:1%"  # every character that an address must escape
ENCODED = "p%40ss%2Fword%3A1%25"


@contextmanager
def postgres() -> Iterator[str]:
    """The address of a PostgreSQL with the database `postgres`, for its superuser."""
    initdb = binary("initdb", "/usr/lib/postgresql/*/bin")
    with folder_of("postgres") as folder, as_user("postgres") as user:
        (folder / "password").write_text(PASSWORD)
        data = folder / "data"
        run([*user, initdb, "-D", data, "-A", "scram-sha-256", "-U", "postgres", "-N", f"--pwfile={folder}/password"])
        port = free_port()
        server = [*user, Path(initdb).with_name("postgres"), "-D", data, "-p", port, "-k", folder, "-c", "fsync=off"]
        with running(server, folder, lambda: is_open(port), stop=signal.SIGINT):
            wait(lambda: psql_ready(initdb, port), folder)
            yield f"postgresql://postgres:{ENCODED}@127.0.0.1:{port}/postgres"


@contextmanager
def mariadb() -> Iterator[str]:
    """The address of a MariaDB with the database `shop`, for a user who may do everything in it."""
    server = binary("mariadbd", "/usr/sbin")
    install = binary("mariadb-install-db")
    with folder_of("mysql") as folder, as_user("mysql") as user:
        data = folder / "data"
        run([*user, install, "--no-defaults", f"--datadir={data}", "--auth-root-authentication-method=normal"])
        (folder / "init.sql").write_text(
            "CREATE DATABASE shop;\n"
            f"CREATE USER 'reader'@'localhost' IDENTIFIED BY '{PASSWORD}';\n"
            "GRANT ALL ON shop.* TO 'reader'@'localhost';\n"
        )
        port = free_port()
        options = [f"--datadir={data}", f"--port={port}", f"--socket={folder}/socket", f"--init-file={folder}/init.sql"]
        command = [*user, server, "--no-defaults", *options, "--bind-address=127.0.0.1", f"--pid-file={folder}/pid"]
        with running(command, folder, lambda: is_open(port)):
            yield f"mysql://reader:{ENCODED}@127.0.0.1:{port}/shop"


@contextmanager
def redis() -> Iterator[str]:
    """The address of a Redis with a password."""
    server = binary("redis-server")
    port = free_port()
    with folder_of() as folder:
        options = ["--port", port, "--bind", "127.0.0.1", "--requirepass", PASSWORD, "--save", "", "--dir", folder]
        with running([server, *options], folder, lambda: is_open(port)):
            yield f"redis://:{ENCODED}@127.0.0.1:{port}/0"


@contextmanager
def mongo() -> Iterator[str]:
    """The address of a SecantusDB: MongoDB's wire protocol over WiredTiger, MongoDB's own storage engine."""
    port = free_port()
    with folder_of() as folder:
        server = [binary("secantusd-py"), "--port", port, "--storage-path", folder / "data", "--enable-test-commands"]
        with running(server, folder, lambda: is_open(port), stop=signal.SIGKILL):  # on SIGTERM it waits for 15 s
            yield f"mongodb://127.0.0.1:{port}/?directConnection=true"


@contextmanager
def dynamodb() -> Iterator[str]:
    """The endpoint of moto's server, the usual stand-in for AWS."""
    port = free_port()
    with folder_of() as folder, running([binary("moto_server"), "-p", port], folder, lambda: is_open(port)):
        yield f"http://127.0.0.1:{port}"


@contextmanager
def s3(address: str = "127.0.0.1") -> Iterator[str]:
    """The endpoint of a SeaweedFS, with the keys `key` and `secret` for everything and none for `stranger`."""
    weed = binary("weed")
    ports = [free_port() for _ in range(4)]
    with folder_of() as folder:
        (folder / "s3.json").write_text(
            '{"identities": [{"name": "key", "credentials": [{"accessKey": "key", "secretKey": "secret"}],'
            ' "actions": ["Admin", "Read", "List", "Tagging", "Write"]},'
            ' {"name": "stranger", "credentials": [{"accessKey": "stranger", "secretKey": "secret"}], "actions": []}]}'
        )
        options = [
            f"-dir={folder}", f"-ip={address}", "-s3", f"-s3.config={folder}/s3.json", "-volume.max=20",
            f"-s3.port={ports[0]}", f"-master.port={ports[1]}", f"-volume.port={ports[2]}", f"-filer.port={ports[3]}",
            f"-s3.port.grpc={free_port()}", f"-master.port.grpc={free_port()}", f"-volume.port.grpc={free_port()}",
            f"-filer.port.grpc={free_port()}", "-master.volumeSizeLimitMB=64",
            "-s3.port.iceberg=0", "-s3.port.lance=0",  # else each server wants the same two ports
        ]  # fmt: skip
        with running([weed, "server", *options], folder, lambda: is_open(ports[0], address), stop=signal.SIGKILL):
            yield f"http://{address}:{ports[0]}"


@contextmanager
def gcs(bucket: str) -> Iterator[str]:
    """The endpoint of a server with the JSON API of Google Cloud Storage, and one bucket."""
    port = free_port()
    command = [binary("gcp-storage-emulator"), "start", "--host", "127.0.0.1", "--port", port, "--in-memory"]
    with folder_of() as folder, running([*command, "--default-bucket", bucket], folder, lambda: is_open(port)):
        yield f"http://127.0.0.1:{port}"


class Nginx:
    """An nginx before servers, with connections that it keeps and `Upgrade` passed on."""

    def __init__(self, folder: Path) -> None:
        self.port = free_port()
        self.url = f"http://127.0.0.1:{self.port}"
        self._folder = folder

    def remove_first(self) -> None:
        """Send no more requests to the first server, as an ingress does when a pod leaves its endpoints."""
        (self._folder / "removed").touch()


@contextmanager
def nginx(*upstreams: str) -> Iterator[Nginx]:
    """A running nginx before servers, by their addresses."""
    program = binary("nginx", "/usr/sbin", script="serving.sh")
    with folder_of() as folder:
        front = Nginx(folder)
        servers = [f"server {upstream};" for upstream in upstreams]
        settings = {"servers": " ".join(servers), "rest": " ".join(servers[1:] or servers)}
        (folder / "nginx.conf").write_text(NGINX.format(folder=folder, port=front.port, **settings))
        command = [program, "-p", folder, "-e", folder / "log", "-c", folder / "nginx.conf"]
        with running(command, folder, lambda: is_open(front.port)):
            yield front


@contextmanager
def alertmanager(receiver: str) -> Iterator[str]:
    """The address of an Alertmanager that sends everything to a webhook at once."""
    program = binary("prometheus-alertmanager", script="monitoring.sh")
    port = free_port()
    with folder_of() as folder:
        (folder / "config.yml").write_text(
            "route: {receiver: hook, group_by: ['...'], group_wait: 0s, group_interval: 1s}\n"
            f"receivers: [{{name: hook, webhook_configs: [{{url: '{receiver}', send_resolved: true}}]}}]\n"
        )
        options = [f"--config.file={folder}/config.yml", f"--storage.path={folder}/data", "--cluster.listen-address="]
        command = [program, *options, f"--web.listen-address=127.0.0.1:{port}"]
        with running(command, folder, lambda: is_open(port)):
            yield f"http://127.0.0.1:{port}"


@contextmanager
def prometheus(target: str, rules: Path, alertmanager: str) -> Iterator[str]:
    """The address of a Prometheus that scrapes a target (host:port) every second and sends alerts on."""
    program = binary("prometheus", script="monitoring.sh")
    port = free_port()
    with folder_of() as folder:
        (folder / "config.yml").write_text(
            "global: {scrape_interval: 1s, evaluation_interval: 1s}\n"
            f"rule_files: ['{rules}']\n"
            f"alerting: {{alertmanagers: [{{static_configs: [{{targets: ['{alertmanager.partition('//')[2]}']}}]}}]}}\n"
            f"scrape_configs: [{{job_name: models, static_configs: [{{targets: ['{target}']}}]}}]\n"
        )
        options = [f"--config.file={folder}/config.yml", f"--storage.tsdb.path={folder}/data"]
        command = [program, *options, f"--web.listen-address=127.0.0.1:{port}"]
        with running(command, folder, lambda: is_open(port)):
            yield f"http://127.0.0.1:{port}"


NGINX = """
user root; daemon off; worker_processes 1; pid {folder}/pid; events {{}}
http {{
  access_log off; sendfile on; client_body_buffer_size 1k;
  client_body_temp_path {folder}/body; proxy_temp_path {folder}/proxy; fastcgi_temp_path {folder}/fastcgi;
  uwsgi_temp_path {folder}/uwsgi; scgi_temp_path {folder}/scgi;
  upstream model {{ {servers} keepalive 32; }}
  upstream rest {{ {rest} keepalive 32; }}
  map $http_upgrade $connection_upgrade {{ default upgrade; '' ''; }}
  server {{
    listen 127.0.0.1:{port};
    proxy_http_version 1.1;
    proxy_set_header Host $http_host;
    proxy_set_header Upgrade $http_upgrade;
    proxy_set_header Connection $connection_upgrade;
    set $pool model;
    if (-f {folder}/removed) {{ set $pool rest; }}
    location / {{ proxy_pass http://$pool; }}
  }}
}}
"""


def binary(name: str, *places: str, script: str = "data.sh") -> str:
    """The path of a program; skips the test when it is not installed, and fails it in CI."""
    folders = [str(folder) for place in places for folder in Path("/").glob(place[1:])]
    found = shutil.which(name, path=os.pathsep.join([str(Path(sys.executable).parent), *folders, os.environ["PATH"]]))
    if found is None:
        leave_out(f"{name} is not installed: scripts/ci/{script} installs it")
    return found


@contextmanager
def folder_of(user: str | None = None) -> Iterator[Path]:
    """A temporary folder that belongs to a user, if there is one of that name and we may give it away."""
    folder = Path(tempfile.mkdtemp(prefix="mlapp-"))
    try:
        if user and os.geteuid() == 0:
            shutil.chown(folder, user)
        yield folder
    finally:
        shutil.rmtree(folder, ignore_errors=True)


@contextmanager
def as_user(user: str) -> Iterator[list[str]]:
    """The start of a command that runs as the user: databases refuse to run as root."""
    if os.geteuid() != 0:
        yield []
        return
    pwd.getpwnam(user)
    yield [shutil.which("runuser") or "runuser", "-u", user, "--"]


@contextmanager
def running(
    command: Sequence[object], folder: Path, ready: Callable[[], bool], stop: int = signal.SIGTERM
) -> Iterator[None]:
    with (folder / "log").open("wb") as log:
        process = subprocess.Popen(
            list(map(str, command)),
            stdout=log,
            stderr=log,
            stdin=subprocess.DEVNULL,
            cwd=folder,
            start_new_session=True,
        )
    try:
        wait(ready, folder, process)
        yield
    finally:
        os.killpg(process.pid, stop)
        try:
            process.wait(15)
        except subprocess.TimeoutExpired:
            os.killpg(process.pid, signal.SIGKILL)
            process.wait()


def wait(ready: Callable[[], bool], folder: Path, process: subprocess.Popen[bytes] | None = None) -> None:
    deadline = time.monotonic() + 120
    while not ready():
        ended = process is not None and process.poll() is not None
        if ended or time.monotonic() > deadline:
            pytest.fail(f"a server did not start:\n{(folder / 'log').read_text(errors='replace')[-3000:]}")
        time.sleep(0.1)


def run(command: Sequence[object]) -> None:
    done = subprocess.run(list(map(str, command)), capture_output=True, text=True, cwd="/")
    assert done.returncode == 0, done.stdout + done.stderr


def psql_ready(initdb: str, port: int) -> bool:
    ready = Path(initdb).with_name("pg_isready")
    return subprocess.run([ready, "-q", "-h", "127.0.0.1", "-p", str(port)]).returncode == 0


def free_port(count: int = 1) -> int:
    """The first of so many free ports in a row, for a server that starts later.

    Outside the range that the kernel takes ports of outgoing connections from: one could take the port meanwhile. Each
    worker draws its own.
    """
    while True:
        first = random.SystemRandom().randrange(10_000, 22_000)
        ports = range(first, first + count)
        if HANDED_OUT.isdisjoint(ports) and all(map(_can_bind, ports)):
            HANDED_OUT.update(ports)
            return first


def _can_bind(port: int) -> bool:
    with socket.socket() as probe, suppress(OSError):
        probe.bind(("127.0.0.1", port))
        return True
    return False


def is_open(port: int, address: str = "127.0.0.1") -> bool:
    with socket.socket() as probe:
        probe.settimeout(1)
        return probe.connect_ex((address, port)) == 0
