"""What the image of the tasks contains beside the project's requirements."""

from __future__ import annotations

from datetime import date

import pytest
from sklearn.linear_model import LogisticRegression

from mlapp import App
from mlapp.bundle.requirements import DeclaredRequirements
from mlapp.flyte.task_image import list_task_extras
from mlapp.flyte.task_specs import choose_default_resources
from mlapp.frameworks import get_framework
from mlapp.pipeline import Resources


def flowers() -> App:
    app = App("flowers", target="kind")
    app.model(LogisticRegression)
    return app


def test_the_framework_the_source_and_the_store_bring_their_packages() -> None:
    app = flowers()
    app.data_reader.sql("postgresql://db/shop", "SELECT * FROM flowers WHERE day = :day", day=date)
    assert list_task_extras(app, get_framework("sklearn"), ".mlapp/store", None) == ["flyte", "sklearn", "sql"]
    assert list_task_extras(app, get_framework("sklearn"), "s3://models/team", None) == [
        "flyte",
        "s3",
        "sklearn",
        "sql",
    ]


def test_a_build_of_xgboost_that_the_project_names_is_not_joined_by_another() -> None:
    own = DeclaredRequirements("requirements.txt", "xgboost==3.1\npandas\n", ("xgboost==3.1", "pandas"))
    assert list_task_extras(flowers(), get_framework("xgboost"), ".mlapp/store", own) == ["flyte"]
    other = DeclaredRequirements("requirements.txt", "xgboost-cpu\n", ("xgboost-cpu",))
    assert list_task_extras(flowers(), get_framework("xgboost"), ".mlapp/store", other) == ["flyte", "xgboost"]


@pytest.mark.parametrize(
    ("declared", "size", "resources"),
    [
        (None, None, Resources(cpu=1, memory="1Gi")),
        (None, 1_000_000, Resources(cpu=1, memory="1Gi")),
        (None, 50_000_000, Resources(cpu=1, memory="4Gi")),
        (Resources(gpu=1), None, Resources(cpu=1, memory="1Gi", gpu=1)),
        (Resources(cpu=4, memory="500Mi"), 50_000_000, Resources(cpu=4, memory="500Mi")),
    ],
)
def test_a_task_without_resources_gets_a_cpu_and_memory_for_its_data(
    declared: Resources | None, size: int | None, resources: Resources
) -> None:
    assert choose_default_resources(declared, size) == resources
