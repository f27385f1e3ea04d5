"""The same app in each framework: made from its template, trained, stored, loaded by a clean process and served."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
import urllib.request
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from difflib import unified_diff
from pathlib import Path

import pytest

from tests.preloaded import preload_commands

# Template → the parameters of a short training.
TEMPLATES = {
    "xgboost": ["n_estimators=20"],
    "lightgbm": ["n_estimators=20"],
    "pytorch": ["epochs=30"],
    "keras": ["epochs=30"],
    "onnx": ["n_estimators=20"],
}
SOURCE = Path(__file__).parents[3] / "templates"


@pytest.mark.parametrize("template", TEMPLATES)
def test_trained_stored_loaded_served(mlapp: Callable, tmp_path: Path, template: str) -> None:
    assert mlapp("init", "digits", "--template", template, cwd=tmp_path).code == 0
    root = tmp_path / "digits"
    given = [part for parameter in ("limit=600", *TEMPLATES[template]) for part in ("-p", parameter)]
    train = preload_commands().run(["mlapp", "train", "--json", *given], root, os.environ)
    assert train.returncode == 0, train.stderr
    manifest = json.loads(train.stdout)
    assert manifest["metrics"]["test"]["accuracy"] > 0.8
    assert not {Path(name).suffix for name in manifest["files"]} & {".pkl", ".joblib", ".pickle"}

    answers = answer_in_every_program(root)
    assert all(digit in range(10) for digit in answers[1]["predictions"])
    assert len(answers[1]["predictions"]) == 3
    assert answers[0]["version"] == "1"
    if template == "xgboost":
        rows = [[0.0] * 64, [field["example"] for field in manifest["schema"]["features"]["fields"]]]
        with serving(root) as url, serving(root, "--runtime", "onnx") as other:
            assert post(url, {"inputs": rows}) == post(other, {"inputs": rows})


def test_a_transformer_trained_stored_loaded_served(mlapp: Callable, tmp_path: Path) -> None:
    assert mlapp("init", "messages", "--template", "huggingface", cwd=tmp_path).code == 0
    root = tmp_path / "messages"
    # In this process, as importing transformers takes longer than all else; what serves is a clean one.
    train = mlapp("train", "--json", cwd=root)
    assert train.code == 0, train.err
    manifest = json.loads(train.out)
    assert manifest["metrics"]["test"]["accuracy"] > 0.5  # of three kinds
    assert {Path(name).suffix for name in manifest["files"]} == {".json", ".safetensors"}
    answer = answer_in_every_program(root)[1]
    assert set(answer["predictions"]) <= {"billing", "delivery", "technical"}
    assert len(answer["predictions"]) == 3


@pytest.mark.parametrize("template", TEMPLATES)
def test_differs_from_basic_by_the_model_function_alone(template: str) -> None:
    inner = "{{ cookiecutter.name }}"
    basic, other = ((SOURCE / name / inner / "app.py").read_text().splitlines() for name in ("basic", template))
    changed = [line[1:] for line in unified_diff(basic, other, n=0) if re.match(r"[+-](?![+-])", line)]
    built = other[next(at for at, line in enumerate(other) if line.startswith("@app.model")) :]
    model = set(built[: built.index("")] if "" in built else built)
    # Beside the model function: imports, the model's type in annotations, and for a model without the methods of
    # scikit-learn's the framework's own predictor and evaluator in the place of the template's.
    # Keras's backend is chosen before the import.
    aside = re.compile(r"(from|import) |os\.environ\.setdefault\(.KERAS_BACKEND.")
    rest = [line for line in changed if line not in model and not aside.match(line) and line.strip()]
    written = {re.sub(r"\w*(Regression|Classifier)\b", "Model", line) for line in basic}
    assert {re.sub(r"\w*(Regression|Classifier)\b", "Model", line) for line in rest} <= written


def answer_in_every_program(root: Path) -> list[dict]:
    """The server's answers to the model's example in a clean process, which those of WSGI, Flask, Django and Lambda
    must equal bit by bit.
    """
    done = preload_commands().run(["tests.template_answers", str(root)], Path(__file__).parents[3], os.environ)
    assert done.returncode == 0, done.stderr
    answers_by_program = json.loads(done.stdout.splitlines()[-1])["programs"]
    server = answers_by_program.pop("server")
    assert [status for status, _ in server] == [200, 200, 422, 422, 400]
    assert answers_by_program == dict.fromkeys(("wsgi", "flask", "django", "lambda"), server)
    return [json.loads(text) for _, text in server]


def command(*arguments: str) -> list[str]:
    return [sys.executable, "-m", "mlapp", *arguments]


@contextmanager
def serving(root: Path, *options: str) -> Iterator[str]:
    """The address of a server for the project, in a process of its own."""
    process = subprocess.Popen(
        command("serve", "--port", "0", *options),
        cwd=root,
        stderr=subprocess.PIPE,
        stdout=subprocess.DEVNULL,
        text=True,
    )
    assert process.stderr is not None
    output = ""
    try:
        for line in process.stderr:
            output += line
            if match := re.search(r"answers at (http://\S+)", line):
                yield match.group(1)
                return
        pytest.fail(output)
    finally:
        process.terminate()
        process.stderr.close()
        process.wait(100)


def post(url: str, body: object) -> dict:
    request = urllib.request.Request(f"{url}predict", json.dumps(body).encode(), {"Content-Type": "application/json"})
    with urllib.request.urlopen(request, timeout=100) as response:
        return json.load(response)
