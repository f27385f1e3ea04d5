"""`mlapp serve` parses plain arguments itself, and leaves errors and help to typer."""

from __future__ import annotations

import inspect
import subprocess
import sys
from pathlib import Path

import pytest

from mlapp.cli import main
from mlapp.cli.plain_serve import OPTIONS, parse_plain_serve_arguments, start_server
from mlapp.cli.serve import serve_model


@pytest.mark.parametrize(
    ("arguments", "found"),
    [
        ("", {"apps": []}),
        ("a/app.py b/app.py:app", {"apps": ["a/app.py", "b/app.py:app"]}),
        ("--port 0 --reload a.py", {"apps": ["a.py"], "port": 0, "reload": True}),
        ("--port=80 --host ::1 --workers 4", {"apps": [], "port": 80, "host": "::1", "workers": 4}),
        ("--grace 2.5 --bundle b", {"apps": [], "grace": 2.5, "bundle": Path("b")}),
        ("--runtime onnx --model 3 --env test", {"apps": [], "runtime": "onnx", "model": "3", "environment": "test"}),
        ("--grpc-port 9000", {"apps": [], "grpc_port": 9000}),
    ],
)
def test_complete_arguments_need_no_typer(arguments, found):
    assert parse_plain_serve_arguments(["serve", *arguments.split()]) == found


@pytest.mark.parametrize(
    "arguments",
    [
        "serve --help",
        "serve --port",
        "serve --port 65536",
        "serve --port x",
        "serve --port -1",
        "serve --port 1 --port 2",
        "serve --reload=yes",
        "serve --workers 0",
        "serve --grace nan",
        "serve --runtime tpu",
        "serve --wrong 1",
        "serve -- app.py",
        "-C folder serve",
        "train",
        "",
    ],
)
def test_other_arguments_are_left_to_typer(arguments):
    assert parse_plain_serve_arguments(arguments.split()) is None


def test_both_ways_have_the_same_options():
    known = inspect.signature(serve_model).parameters
    assert {name for name, _ in OPTIONS.values()} | {"apps"} == known.keys()
    assert inspect.signature(start_server).parameters.keys() == known.keys()


def test_the_command_ends_the_program_after_the_server(monkeypatch):
    given = []
    monkeypatch.setattr(main, "start_server", lambda **arguments: given.append(arguments))
    with pytest.raises(SystemExit) as ended:
        main.run(["serve", "--port", "0"])
    assert (ended.value.code, given) == (0, [{"apps": [], "port": 0}])


def test_a_server_starts_without_the_other_commands(tmp_path):
    program = """if True:
        import sys
        from mlapp.cli.main import run

        try:
            run(["serve", "none.py"])
        finally:
            print(*sys.modules)
    """
    ended = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, cwd=tmp_path, check=False)
    assert "There is no" in ended.stderr
    assert not {"typer", "click", "rich", "mlapp.cli.train"}.intersection(ended.stdout.split())
