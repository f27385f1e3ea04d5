"""The pages about Flyte say what the code does: their blocks run, their commands exist, their messages are printed,
and sentences.yaml names a test for each of their sentences.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pandas as pd
import pytest
import typer.main
import yaml
from sklearn.linear_model import LogisticRegression

from mlapp import App, Resources, training
from mlapp.cli.commands import cli
from mlapp.config import Store
from mlapp.flyte import promotion
from mlapp.flyte.registration import render_documents
from mlapp.pipeline.stage_tasks import Task
from mlapp.project import Project
from tests.conftest import FLOWERS

ROOT = Path(__file__).parents[3]
PAGES = ("flyte-schedules.md", "explanation/flyte.md", "flyte-workflows.md", "flyte.md")
PAGE = "\n".join((ROOT / "docs" / name).read_text() for name in PAGES)
SOURCES = "\n".join(path.read_text() for path in (ROOT / "mlapp").rglob("*.py"))
MESSAGES = re.findall(r"^\| (.+?) \| .+ \|$", PAGE.partition("| message | solution |")[2], re.MULTILINE)
SENTENCES: dict[str, str] = yaml.safe_load((Path(__file__).parent / "sentences.yaml").read_text())
SENTENCE_END = re.compile(r"(?<=[.?!])\s+(?=[A-Z`*]|mlapp |pyflyte)")
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
    named = [known.commands[name] for name in known.commands] if hasattr(known, "commands") else [known]
    assert all(any("--env" in parameter.opts for parameter in one.params) for one in named)


@pytest.mark.parametrize("message", MESSAGES)
def test_each_message_on_the_page_is_one_that_is_printed(message: str) -> None:
    parts = [part.strip() for part in re.split(r"…|'x'|'train'|\btrain\b|\bread\b|7:00:00|memory 8Gi|1Gi", message)]
    for part in filter(None, parts):
        words = r"[\s\"f]*".join(re.escape(word) for word in part.split())
        assert re.search(words, SOURCES), part


def test_registering_an_app_takes_as_many_calls_as_the_page_says(project: Callable[..., Path]) -> None:
    opened = Project.find(project(FLOWERS))
    asking_and_uploading = 2
    calls = len(render_documents(opened, "registry.example/flowers:1")) + asking_and_uploading
    assert f"Registering an app takes {calls} API calls" in PAGE


def split_sentences(page: str) -> list[str]:
    """The sentences of a page's paragraphs and lists, and the rows of its tables, without its code and messages."""
    page = re.sub(r"```.*?```", "", page.partition("## Troubleshooting")[0], flags=re.DOTALL)
    blocks = re.split(r"\n\s*\n|\n(?=- |\| )", page)
    texts = [" ".join(block.split()).removeprefix("- ") for block in blocks if block.strip() and block[:4].strip()]
    texts = [text for text in texts if not text.startswith(("#", "| object"))]
    return [sentence for text in texts for sentence in ([text] if text.startswith("|") else SENTENCE_END.split(text))]


@pytest.mark.parametrize("sentence", split_sentences(PAGE))
def test_each_sentence_on_the_page_has_a_test(sentence: str) -> None:
    begin = [begin for begin in SENTENCES if sentence.startswith(begin)]
    assert begin, f"no test of {sentence!r} in sentences.yaml"
    for place in (SENTENCES[name] for name in begin if SENTENCES[name] != "advice"):
        file, _, name = place.partition("::")
        assert f"def {name}(" in (ROOT / file).read_text()


def test_the_table_of_sentences_has_none_that_the_page_has_not() -> None:
    sentences = split_sentences(PAGE)
    assert [begin for begin in SENTENCES if not any(sentence.startswith(begin) for sentence in sentences)] == []


def test_a_local_run_ignores_the_options_of_tasks() -> None:
    app = App("flowers", target="y")

    @app.data_reader(resources=Resources(cpu=4000, memory="9Ti"), timeout=1, retries=9, secrets=["no/such"])
    def read() -> pd.DataFrame:
        return pd.DataFrame({"x": range(40), "y": [0, 1] * 20})

    app.model(LogisticRegression)
    assert training.run(app).metrics


@pytest.mark.parametrize(("url", "kept"), [(".mlapp/store", []), ("s3://bucket/models", ["accuracy"])])
def test_a_run_promotes_only_in_a_store_that_it_can_reach(
    url: str, kept: list[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    taken: list[str] = []
    monkeypatch.setattr(promotion, "open_store", lambda settings, root: settings.url)
    monkeypatch.setattr(promotion, "save_and_promote", lambda store, version, metric: taken.append(metric))
    promotion.save_if_store_is_shared(Store(url=url), tmp_path, None, "accuracy")  # type: ignore[arg-type]
    assert taken == kept


def test_containers_run_the_command_on_the_page(project: Callable[..., Path]) -> None:
    documents = render_documents(Project.find(project(FLOWERS)), "registry.example/flowers:1")
    (task,) = (document for document in documents if document["id"]["name"] == "flowers.train.train-evaluate-save")
    arguments = task["spec"]["template"]["container"]["args"]
    (command,) = re.findall(r"`(pyflyte-fast-execute .+?)`", PAGE)
    first, _, rest = command.partition(" … ")
    assert arguments[0] == first
    assert " ".join(arguments).endswith(rest)


def test_pyflyte_has_the_defaults_that_the_page_says() -> None:
    from flytekit.clis.sdk_in_container.register import register
    from flytekit.clis.sdk_in_container.run import RunLevelParams

    options = {parameter.name: parameter.default for parameter in register.params}
    assert options["destination_dir"] == "/root"
    assert str(RunLevelParams().copy) == "auto", "copies the modules that are loaded, and not all files"
