"""Bad input: an error of two lines with the place and the remedy, exit 1 or 2, and no partial files."""

from __future__ import annotations

import re
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pandas as pd
import pytest
from sklearn.dummy import DummyClassifier

from mlapp import App, training
from mlapp.errors import DataError, MlappError, UserCodeError

APP = "from mlapp import App\napp = App('flowers', target='target')\n"


@pytest.mark.parametrize(
    ("source", "what", "todo"),
    [
        (None, "There is no app.py in", "mlapp init NAME"),
        ("import (\n", "app.py:1: ", "Fix that line."),
        (
            "x = 1\nimport pandaz\n",
            "app.py:2 imports 'pandaz', which is not installed.",
            "Add its package to requirements.txt if it is not there, and run: pip install -r requirements.txt.",
        ),
        ("x = 1\n", "app.py contains no App.", "Create one"),
        (
            APP + "@app.modell\ndef build(): ...\n",
            "app.py:3: an App has no 'modell'. Did you mean 'model'?",
            "Its decorators are: data_reader, ",
        ),
        (APP + "other = App('other')\n", "app.py contains 2 Apps: app, other.", "`app: app.py:app`"),
        ("x = 1\n1 / 0\n", "Importing app.py raised ZeroDivisionError: division by zero", "app.py:2"),
        (APP, "App 'flowers' has no data_reader.", "@app.data_reader"),
        (
            APP + "@app.trainer\ndef fit(model): ...\n",
            "trainer 'fit' in app.py:3 takes (model).",
            "Change its parameters to",
        ),
        ("import sys\nsys.exit(3)\n", "Importing app.py raised SystemExit: 3", "app.py:2"),
    ],
)
def test_an_app_that_cannot_be_used(mlapp: Callable, project: Callable, source: str, what: str, todo: str) -> None:
    project(source, mlapp__yaml="app: app.py\n")
    ran = mlapp("train")
    lines = ran.err.splitlines()
    assert ran.code == 1
    assert len(lines) == 2
    assert lines[0].startswith("Error: ")
    assert what in lines[0]
    assert todo in lines[1]
    assert ran.out == ""


@pytest.mark.parametrize(
    ("arguments", "what"),
    [
        (["train", "-p", "D=1"], "No stage takes a parameter 'D'."),
        (["train", "-p", "C=strong"], "Parameter 'C' of model takes float, not 'strong'."),
        (["train", "-p", "C"], "-p C has no '='."),
        (["train", "-p", "C=1", "-p", "C=2"], "-p C is given twice."),
        (["predict", "--features", "none.csv"], "There is no features file 'none.csv'."),
        (["predict", "--features", "app.py"], "'app.py' has a format that cannot be read."),
        (["predict"], "'flowers' has no version in"),
        (["models", "show", "7"], "'flowers' has no version 7; it has none."),
        (["models", "show", "prod"], "'flowers' has no alias 'prod'; it has none."),
        (["models", "compare", "1"], "mlapp models compare needs two or more versions."),
        (["models", "list", "--where", "accuracy"], "--where 'accuracy' is not a condition."),
        (["init", "a b"], "'a b' cannot name a project."),
        (["init", "x", "--template", "basik"], "There is no template 'basik'. Did you mean 'basic'?"),
        (["init", "x", "--set", "nam=y"], "Template 'basic' has no variable 'nam'. Did you mean 'name'?"),
        (["init", "x", "--template", "tabular"], "Template 'tabular' needs a table and its target column."),
        (["train", "--env", "prod"], "mlapp.yaml has no environment 'prod'; it has none."),
    ],
)
def test_a_command_that_is_used_wrongly_exits_with_2(
    mlapp: Callable, project: Callable, arguments: list[str], what: str
) -> None:
    root = project()
    before = sorted(root.iterdir())
    ran = mlapp(*arguments)
    assert ran.code == 2
    assert what in ran.err
    assert "Traceback" not in ran.err
    assert [path for path in sorted(root.iterdir()) if path.name not in (".mlapp", "__pycache__")] == before


@pytest.mark.parametrize("given", [["C=1"], ["--C", "1"]])
def test_a_parameter_without_its_option_is_told_of_it(mlapp: Callable, project: Callable, given: list[str]) -> None:
    project()
    assert "train -p NAME=VALUE`" in mlapp("train", *given).err
    assert "-p NAME=VALUE" not in mlapp("train", "--remot").err
    assert "-p NAME=VALUE" not in mlapp("serve", "C=1").err


@pytest.mark.parametrize(
    ("name", "content", "says"),
    [
        ("empty.csv", b"", "'empty.csv' is empty."),
        ("header.csv", b"a,b\n", "has a header and no rows"),
        ("ragged.csv", b"a,b\n1,2\n1,2,3\n", "row 1 has 3 cells instead of 2"),
        pytest.param(
            "cut.parquet",
            b"PAR1\x00\x00",
            "is not a Parquet file, or is truncated",
            marks=pytest.mark.needs("pyarrow"),
        ),
        ("cut.json", b'[{"a": 1', "cut.json is not JSON"),
        ("deep.json", b"[" * 10_000, "deep.json is not JSON"),
        ("lines.jsonl", b'{"a": 1}\n{"a":\n', "lines.jsonl:2 is not JSON"),
        ("latin.csv", b"a,b\n\xff,1\n", "is not a CSV file"),
        ("wrong.csv", b"a,b\n1,2\n", "column 'sepal length (cm)' is missing"),
    ],
)
def test_a_features_file_that_cannot_be_used(
    mlapp: Callable, project: Callable, name: str, content: bytes, says: str
) -> None:
    root = project()
    mlapp("train")
    (root / name).write_bytes(content)
    ran = mlapp("predict", "--features", name)
    assert ran.code == 1
    assert says in ran.err
    assert "Traceback" not in ran.err


def test_an_unknown_setting_names_the_nearest(mlapp: Callable, project: Callable) -> None:
    project(mlapp__yaml="serve:\n  prot: 80\n")
    ran = mlapp("train")
    assert ran.code == 2
    assert "'serve.prot' is not a setting. Did you mean 'port'?" in ran.err


def test_debug_shows_the_traceback(mlapp: Callable, project: Callable) -> None:
    from mlapp.errors import UsageError

    project()
    with pytest.raises(UsageError):
        mlapp("train", "-p", "D=1", "--debug")


def test_a_store_that_cannot_be_written_is_found_before_training(mlapp: Callable, project: Callable) -> None:
    root = project()
    source = (root / "app.py").read_text()
    (root / "app.py").write_text(source.replace("load_iris(as_frame=True).frame", "1 / 0"))
    (root / ".mlapp").write_text("a file where the store should be")
    ran = mlapp("train")
    assert ran.code == 1
    assert "store: mlapp cannot use" in ran.err


@pytest.mark.parametrize("also", [["--remote"], ["--model", "1"], ["--url", "http://127.0.0.1:9"]])
def test_predict_asks_one_place(mlapp: Callable, project: Callable, also: list[str]) -> None:
    project()
    ran = mlapp("predict", "--target", "docker", *also)
    assert ran.code == 2
    assert f"--target and {also[0]} are both given." in ran.err


def test_init_overwrites_nothing(mlapp: Callable, tmp_path: Path) -> None:
    (tmp_path / "digits").mkdir()
    (tmp_path / "digits/app.py").write_text("mine")
    ran = mlapp("init", "digits", cwd=tmp_path)
    assert ran.code == 2
    assert "already exists" in ran.err
    assert (tmp_path / "digits/app.py").read_text() == "mine"
    assert sorted(path.name for path in tmp_path.iterdir()) == ["digits"]


def test_a_surprise_is_reported_without_a_traceback(mlapp: Callable, project: Callable) -> None:
    source = "from mlapp import App\nfrom sklearn.cluster import KMeans\napp = App('flowers')\n"
    source += "app.data_reader(lambda: [{'x': 1}])\napp.model(KMeans)\n"
    project(source + "app.trainer(lambda model, features: (_ for _ in ()).throw(MemoryError()))\n")
    ran = mlapp("train")
    assert (ran.code, ran.err.splitlines()[-2:]) == (
        1,
        ["Error: There is not enough memory.", "Read less data, or use a larger machine."],
    )


def exit_early(*given: object) -> None:
    sys.exit(4)


ROWS = [{"a": at, "t": at % 2} for at in range(60)]
READERS: dict[str, tuple[Callable[[], object], str]] = {
    "rows": (lambda: iter(ROWS), ""),
    "one row": (lambda: ROWS[0], "The data is a dict of single values."),
    "uneven columns": (lambda: {"a": [1], "t": [1, 2]}, "The data is a dict that is not a table"),
    "two targets": (lambda: pd.DataFrame([[1, 0, 1]] * 9, columns=["a", "t", "t"]), "Two columns are named 't'."),
    "levels": (lambda: pd.DataFrame({("a", "b"): [1], ("t", "c"): [1]}), "The columns are a MultiIndex"),
    "exit": (exit_early, "raised SystemExit: 4"),
}


@pytest.mark.parametrize("name", READERS)
def test_a_reader_is_named_whose_result_is_no_table(name: str) -> None:
    reader, what = READERS[name]
    app = App("rows", target="t")
    app.data_reader(reader)
    app.model(DummyClassifier)
    if not what:
        assert app.train().metrics["train"]
        return
    with pytest.raises(MlappError, match=re.escape(what)) as failed:
        app.train()
    assert failed.value.what.startswith("data_reader ")


def test_other_stages_are_named() -> None:
    app = App("rows", target="t")
    app.data_reader(lambda: ROWS)
    app.model(DummyClassifier)
    app.feature_transformer(lambda features: features.head(3))
    with pytest.raises(DataError, match=r"feature_transformer .* returned 3 rows for 48 input rows\."):
        app.train()


def exit_while_predicting(model: object, features: object) -> Iterator[int]:
    yield 0
    sys.exit(4)


@pytest.mark.parametrize(
    ("role", "function"),
    [
        ("model", exit_early),
        ("predictor", lambda model, features: sys.exit(4)),
        ("predictor", exit_while_predicting),
        ("saver", lambda model, folder: sys.exit(4)),
        ("loader", lambda folder: sys.exit(4)),
    ],
)
def test_a_stage_that_exits_is_named(role: str, function: Callable[..., object]) -> None:
    app = App("rows", target="t")
    app.data_reader(lambda: ROWS)
    stages = {
        "model": DummyClassifier,
        "saver": lambda model, folder: (folder / "model").touch(),
        "loader": lambda folder: DummyClassifier(),
        role: function,
    }
    for name, stage in stages.items():
        getattr(app, name)(stage)
    with pytest.raises(MlappError, match=f"{role} .* raised SystemExit: 4") as failed:
        app.train()
    assert failed.value.todo.startswith(f"Fix it at {__file__}:")


def break_off(rows: list[dict[str, int]]) -> Iterator[pd.DataFrame]:
    yield pd.DataFrame(rows)
    raise ConnectionResetError("the database went away")


def train_on_parts(model: object, features: Iterator[pd.DataFrame], target: Iterator[pd.Series]) -> DummyClassifier:
    parts = list(zip(features, target))
    return DummyClassifier().fit(*parts[0])


@pytest.mark.parametrize("way", ["train", "train on parts", "iterate"])
def test_a_reader_that_fails_after_its_first_part_is_named(way: str) -> None:
    app = App("rows", target="t")
    app.data_reader(lambda: break_off(ROWS))
    app.model(DummyClassifier)
    if way == "train on parts":
        app.trainer(train_on_parts)
    with pytest.raises(UserCodeError, match=r"data_reader .* raised ConnectionResetError: the database went away"):
        list(training.iterate_reader_parts(app)) if way == "iterate" else app.train()


FEW = """
import pandas as pd
from sklearn.dummy import DummyClassifier
from mlapp import App

app = App("few", target="kind")
app.model(DummyClassifier)


@app.data_reader
def read(rows: int = 12) -> pd.DataFrame:
    return pd.DataFrame({"length": range(rows), "kind": [0, 1] * (rows // 2)})
"""


def test_metrics_of_few_rows_are_said_to_say_little(mlapp: Callable, project: Callable) -> None:
    project(FEW)
    said = "The metrics come from a table of only 12 rows, so they say little about new rows."
    assert said in mlapp("train").err
    assert "rows, so they say little" not in mlapp("train", "-p", "rows=20").err


def test_an_unknown_export_format_is_answered_with_those_that_exist(mlapp: Callable[..., Any]) -> None:
    result = mlapp("export", "onnx")
    assert result.code == 2
    assert result.err.splitlines() == ["Error: There is no format 'onnx'.", "Give --onnx or mlserver."]
