"""docs/flyte.md says what the code does: its blocks run, its commands exist, its messages are printed."""

from __future__ import annotations

import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import typer.main

from mlapp import App, Resources
from mlapp.cli.main import cli
from mlapp.flyte.registration import render_documents
from mlapp.pipeline.resources import Task
from mlapp.project import Project
from tests.conftest import FLOWERS

ROOT = Path(__file__).parents[3]
PAGE = (ROOT / "docs/flyte.md").read_text()
SOURCES = "\n".join(path.read_text() for path in (ROOT / "mlapp").rglob("*.py"))
MESSAGES = re.findall(r"^\| (.+?) \| .+ \|$", PAGE.partition("| message | solution |")[2], re.MULTILINE)
COMMANDS = re.findall(r"^    mlapp (\S.+?)(?:  .*)?$", PAGE, re.MULTILINE)


def test_the_declarations_on_the_page_are_those_of_an_app() -> None:
    (block,) = re.findall(r"```python\n(from mlapp import App, Resources\n.*?)```", PAGE, re.DOTALL)
    names: dict[str, Any] = {"app": App("digits", target="digit")}
    exec(f"import pandas as pd\n{block}", names)
    app = names["app"]
    assert app.stages["data_reader"].options.task == Task(cache=True)
    assert app.stages["trainer"].options.task == Task(
        resources=Resources(cpu=4, memory="8Gi", gpu=1), retries=2, timeout=3600, secrets=["database/password"]
    )


def test_the_schedules_on_the_page_can_be_declared() -> None:
    app = App("digits", target="digit")
    for block in re.findall(r"```python\n((?:app\.schedule.*?))```", PAGE, re.DOTALL):
        exec(f"from datetime import timedelta\n{block}", {"app": app})
    assert list(app.schedules) == ["nightly", "often", "daily_scores"]
    assert app.schedules["daily_scores"].predict


@pytest.mark.parametrize("command", COMMANDS)
def test_each_command_on_the_page_exists(command: str) -> None:
    words, known = command.split(), typer.main.get_command(cli)
    while words and hasattr(known, "commands"):
        for name in words[0].split("|")[1:]:  # `runs list|show`: each of them
            assert name in known.commands
        known = known.commands[words.pop(0).partition("|")[0]]
    options = {option for parameter in known.params for option in (*parameter.opts, *parameter.secondary_opts)}
    assert {word.strip("[]") for word in words if word.lstrip("[").startswith("-")} <= options


@pytest.mark.parametrize("message", MESSAGES)
def test_each_message_on_the_page_is_one_that_is_printed(message: str) -> None:
    parts = [part.strip() for part in re.split(r"…|'x'|'train'|\btrain\b|\bread\b|7:00:00", message)]
    for part in filter(None, parts):
        words = r"[\s\"f]*".join(re.escape(word) for word in part.split())
        assert re.search(words, SOURCES), part


def test_registering_an_app_takes_as_many_calls_as_the_page_says(project: Callable[..., Path]) -> None:
    opened = Project.find(project(FLOWERS))
    asking_and_uploading = 2
    calls = len(render_documents(opened, "registry.example/flowers:1")) + asking_and_uploading
    assert f"Registering an app takes {calls} API calls" in PAGE
