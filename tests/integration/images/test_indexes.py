"""Packages from a private index, and packages that have no wheel."""

from __future__ import annotations

import base64
import functools
import http.server
import io
import tarfile
import threading

import pytest

from mlapp.images.engine import connect_image_engine
from mlapp.images.project_image import build_project_image
from mlapp.project import Project
from tests.integration.images.conftest import SETTINGS

pytestmark = [pytest.mark.xdist_group("docker"), pytest.mark.timeout(600)]
TOKEN = "hush-4f2c91"
SETUP = "from setuptools import setup, Extension\nsetup(name='{name}', version='1.0', {what})\n"
C = """
#include <Python.h>
static struct PyModuleDef module = {PyModuleDef_HEAD_INIT, "compiled_one", 0, -1, 0};
PyMODINIT_FUNC PyInit_compiled_one(void) { return PyModule_Create(&module); }
"""


class Private(http.server.SimpleHTTPRequestHandler):
    """Answers those who know the token."""

    def do_GET(self):
        expected = "Basic " + base64.b64encode(f"me:{TOKEN}".encode()).decode()
        if self.headers.get("Authorization") == expected:
            super().do_GET()
        else:
            self.send_response(401)
            self.send_header("WWW-Authenticate", "Basic")
            self.end_headers()

    def log_message(self, *arguments):
        pass


@pytest.fixture
def index(tmp_path):
    """The address of an index that holds two packages as sources alone; one is written in C."""
    sources = {
        "pure-one": {"setup.py": SETUP.format(name="pure-one", what="py_modules=['pure_one']"), "pure_one.py": "A = 1"},
        "compiled-one": {
            "setup.py": SETUP.format(name="compiled-one", what="ext_modules=[Extension('compiled_one', ['one.c'])]"),
            "one.c": C,
        },
    }
    for name, files in sources.items():
        place = tmp_path / "simple" / name
        place.mkdir(parents=True)
        stem = f"{name.replace('-', '_')}-1.0"
        with tarfile.open(place / f"{stem}.tar.gz", "w:gz") as archive:
            for path, text in {**files, "PKG-INFO": f"Metadata-Version: 2.1\nName: {name}\nVersion: 1.0\n"}.items():
                entry = tarfile.TarInfo(f"{stem}/{path}")
                entry.size = len(text)
                archive.addfile(entry, io.BytesIO(text.encode()))
        (place / "index.html").write_text(f'<a href="{stem}.tar.gz">{stem}.tar.gz</a>')
    handler = functools.partial(Private, directory=str(tmp_path))
    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), handler) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        yield f"http://me:${{INDEX_TOKEN}}@127.0.0.1:{server.server_address[1]}/simple"
        server.shutdown()


def test_packages_without_wheels_are_built_and_the_token_stays_here(root, index, monkeypatch):
    monkeypatch.setenv("INDEX_TOKEN", TOKEN)
    (root / "requirements.txt").write_text(f"--extra-index-url {index}\npandas\npure-one\ncompiled-one\n")
    extra = "base: 'mlapp-test/python-dev:3.11'"
    (root / "mlapp.yaml").write_text(SETTINGS.replace("base: 'mlapp-test/python:3.11'", extra))
    left = {"ancestor": "mlapp-test/python-dev:3.11"}
    with connect_image_engine() as client:
        before = client.api.containers(all=True, quiet=True, filters=left)
    warned = []
    image = build_project_image(Project.find(root), warn=warned.append)[0]
    assert warned == [
        "compiled-one 1.0 has no wheel for linux/amd64: built from its source on the base image.",
        "pure-one 1.0 has no wheel for linux/amd64: built from its source on this machine.",
    ]
    with connect_image_engine() as client:
        command = ["python", "-c", "import pure_one, compiled_one; print(compiled_one.__file__)"]
        output = client.containers.run(image.id, entrypoint=command, remove=True)
        assert output.startswith(b"/opt/venv/lib/python3.11/site-packages/compiled_one")
        kept = b""
        for chunk in client.api.get_image(image.id):
            assert TOKEN.encode() not in kept + chunk, "in no layer, and not in the history"
            kept = chunk[-100:]
        assert client.api.containers(all=True, quiet=True, filters=left) == before
