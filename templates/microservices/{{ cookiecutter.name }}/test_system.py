"""Train and serve both models and the gateway in separate processes, and request predictions from the gateway."""

import json
import os
import re
import subprocess
import sys
import urllib.request
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path

HERE = Path(__file__).parent
BLANK, FULL = [0] * 64, [16] * 64


def test_the_gateway_answers_from_both_models(tmp_path: Path) -> None:
    with ExitStack() as stack:
        urls = {}
        for name in ("digits", "oddity"):
            train(name, tmp_path, "-p", "limit=600")
            urls[f"{name.upper()}_URL"] = stack.enter_context(serving(name, tmp_path))
        metrics = train("gateway", tmp_path, "-p", "limit=400", **urls)["metrics"]["test"]
        assert metrics["accuracy"] > 0.9
        assert metrics["refused"] < 0.2

        url = stack.enter_context(serving("gateway", tmp_path, **urls))
        example = get(f"{url}/model")["example"]
        (answer,) = get(f"{url}/predict", example)["predictions"]
        assert answer["digit"] in range(10)
        (odd,) = get(f"{url}/predict", {"inputs": [FULL]})["predictions"]
        assert odd["digit"] is None
        assert odd["oddity"] > answer["oddity"]


def train(name: str, store: Path, *arguments: str, **environ: str) -> dict:
    command = [sys.executable, "-m", "mlapp", "train", "--json", *arguments]
    ran = subprocess.run(
        command, cwd=HERE / name, env=variables(name, store, environ), stdout=subprocess.PIPE, check=True
    )
    return json.loads(ran.stdout)


@contextmanager
def serving(name: str, store: Path, **environ: str) -> Iterator[str]:
    command = [sys.executable, "-m", "mlapp", "serve", "--port", "0"]
    server = subprocess.Popen(
        command,
        cwd=HERE / name,
        env=variables(name, store, environ),
        stdout=subprocess.DEVNULL,
        stderr=subprocess.PIPE,
        text=True,
    )
    told = ""
    try:
        for line in server.stderr:
            told += line
            if found := re.search(r"answers at (http://\S+?)/?$", line):
                break
        else:
            raise AssertionError(told)
        yield found.group(1)
    finally:
        server.terminate()
        server.stderr.close()
        server.wait(30)


def variables(name: str, store: Path, environ: dict[str, str]) -> dict[str, str]:
    """The test's versions are in a separate store."""
    return {**os.environ, **environ, "MLAPP_STORE": str(store / name)}


def get(url: str, body: object = None) -> dict:
    content = None if body is None else json.dumps(body).encode()
    request = urllib.request.Request(url, content, {"Content-Type": "application/json"})
    with urllib.request.urlopen(request, timeout=30) as response:
        return json.load(response)
