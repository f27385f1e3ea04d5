"""An app whose reader is a query: trained, and asked for predictions over the same rows."""

import json
import subprocess
import sys

import duckdb
import pandas as pd
import pytest

APP = """
from datetime import date
from sklearn.tree import DecisionTreeClassifier
from mlapp import App

app = App("shop", target="paid", features=["price", "visits"])
app.data_reader.sql("${SHOP_URL}", "SELECT * FROM orders WHERE day >= :since", since=date)
app.model(DecisionTreeClassifier)
"""


@pytest.fixture
def shop(tmp_path, monkeypatch):
    with duckdb.connect(str(tmp_path / "secret-place.duckdb")) as connection:
        connection.execute("""
            CREATE TABLE orders AS SELECT i AS id, (i / 7)::DECIMAL(12, 2) AS price, i % 2 = 0 AS paid,
                CASE WHEN i % 10 > 0 THEN i % 5 END AS visits, DATE '2026-01-01' + (i % 300)::INT AS day
            FROM range(2000) t(i)
        """)
    (tmp_path / "app.py").write_text(APP)
    monkeypatch.setenv("SHOP_URL", f"duckdb:///{tmp_path}/secret-place.duckdb")
    return tmp_path


def test_a_query_is_trained_on_and_predicted_over(shop, mlapp):
    trained = mlapp("train", "-p", "since=2026-02-01", "--json", cwd=shop)
    assert trained.code == 0, trained.err
    manifest = json.loads(trained.out)
    fields = {field["name"]: (field["type"], field["dtype"]) for field in manifest["schema"]["features"]["fields"]}
    assert fields == {"price": ("number", "float64"), "visits": ("integer", "Int64")}
    assert manifest["data"]["rows"] == 1783
    assert "secret-place" not in trained.out

    over_rows = mlapp("predict", "-p", "since=2026-10-01", cwd=shop)
    assert over_rows.code == 0, over_rows.err
    (shop / "one.json").write_text('[{"price": 1.5, "visits": null}]')
    one = mlapp("predict", "--features", "one.json", cwd=shop)
    assert json.loads(one.out) in ([True], [False])


def test_a_wrong_parameter_and_a_missing_variable_are_reported(shop, mlapp, monkeypatch):
    assert "'since' of data_reader has no default" in mlapp("train", cwd=shop).err
    assert "takes date, not 'soon'" in mlapp("train", "-p", "since=soon", cwd=shop).err
    monkeypatch.delenv("SHOP_URL")
    ran = mlapp("train", "-p", "since=2026-02-01", cwd=shop)
    assert ran.code == 1
    assert "needs the environment variable SHOP_URL" in ran.err


def test_data_is_shown_exported_and_checked(shop, mlapp):
    shown = json.loads(mlapp("data", "show", "-p", "since=2026-10-01", "--rows", "1", "--json", cwd=shop).out)
    assert shown["rows"] == 162
    assert {column["name"]: column["missing"] for column in shown["columns"]}["visits"] > 0
    assert isinstance(shown["head"][0]["price"], float)
    output = mlapp("data", "show", "-p", "since=2026-10-01", cwd=shop)
    assert "True ×" in output.out

    exported = mlapp("data", "export", "--to", "out.parquet", "-p", "since=2026-10-01", "--json", cwd=shop)
    assert json.loads(exported.out)["rows"] == 162
    assert len(pd.read_parquet(shop / "out.parquet")) == 162

    assert mlapp("train", "-p", "since=2026-02-01", cwd=shop).code == 0
    fits = mlapp("data", "check", "-p", "since=2026-10-01", cwd=shop)
    assert (fits.code, "fit version 1" in fits.err) == (0, True)
    app = shop / "app.py"
    app.write_text(app.read_text().replace("SELECT *", "SELECT price::VARCHAR AS price, visits, paid"))
    check = [sys.executable, "-m", "mlapp", "data", "check", "-p", "since=2026-10-01"]  # again: the app has changed
    broken = subprocess.run(check, cwd=shop, capture_output=True, text=True)
    assert broken.returncode == 1
    assert "was number, is string" in broken.stdout
    assert "does not fit version 1: price" in broken.stderr


def test_a_stream_of_parts_is_trained_on_and_exported(shop, mlapp):
    app = shop / "app.py"
    app.write_text(app.read_text().replace("since=date)", "since=date, chunks=500)"))
    assert mlapp("train", "-p", "since=2026-02-01", cwd=shop).code == 0
    assert mlapp("data", "export", "--to", "out.csv", "-p", "since=2026-02-01", cwd=shop).code == 0
    assert len(pd.read_csv(shop / "out.csv")) == 1783
