"""The pipeline as Flyte sees it: tasks with typed interfaces and what their stages declare."""

from __future__ import annotations

from collections.abc import Callable
from datetime import datetime, timedelta
from pathlib import Path
from typing import Any

import pandas as pd
import pytest
import yaml

from mlapp.errors import DeclarationError
from mlapp.flyte import app_source, launch_plans, workflow
from mlapp.flyte.task_graph import TaskGraph, app_tasks, get_task_graph
from mlapp.flyte.tasks import StageTask
from mlapp.project import Project

APP = """
import pandas as pd
from sklearn.datasets import load_iris
from sklearn.linear_model import LogisticRegression

from mlapp import App
from mlapp.pipeline import Resources

app = App("flowers", target="target")


@app.data_reader(cache=True, resources=Resources(cpu=2, memory="4Gi"))
def read(limit: int | None = None) -> pd.DataFrame:
    return load_iris(as_frame=True).frame.head(limit)


@app.model
def build(C: float = 1.0, penalty=None) -> LogisticRegression:
    return LogisticRegression(C=C)


@app.trainer(
    resources=Resources(cpu=4, memory="8Gi", gpu=1), retries=2, timeout=3600, secrets=["database/password"]
)
def fit(model, features, target):
    return model.fit(features, target)
"""


@pytest.fixture
def tasks(project: Callable[..., Path]) -> dict[str, StageTask]:
    origin = app_source.make_flyte_app_source(Project.find(project(APP)))
    return {
        step: get_task_graph(origin).get_task(step) for step in ("read", "split", "train", "evaluate-save", "batch")
    }


def test_a_task_has_what_its_stage_declares(tasks: dict[str, StageTask]) -> None:
    train = tasks["train"]
    assert train.name == "flowers.train.train"
    assert (train.resources.requests.cpu, train.resources.requests.mem, train.resources.limits.gpu) == ("4", "8Gi", "1")
    assert (train.metadata.retries, train.metadata.timeout) == (2, timedelta(hours=1))
    (secret,) = train.security_context.secrets
    assert (secret.group, secret.key, secret.env_var) == ("database", "password", "PASSWORD")
    assert tasks["read"].metadata.cache
    assert len(tasks["read"].metadata.cache_version) == 16
    assert not train.metadata.cache


def test_what_is_not_declared_is_taken_from_the_task_with_the_same_data(tasks: dict[str, StageTask]) -> None:
    assert tasks["split"].resources.requests.mem == "4Gi"
    assert tasks["evaluate-save"].resources.requests.mem == "8Gi"
    assert tasks["evaluate-save"].resources.requests.gpu is None
    assert (tasks["batch"].resources.requests.cpu, tasks["batch"].resources.requests.mem) == ("2", "4Gi")


def test_the_settings_of_an_environment_hold_in_the_tasks_too(
    project: Callable[..., Path], mlapp: Callable[..., Any]
) -> None:
    project(APP, mlapp__yaml="environments: {staging: {flyte: {domain: staging}, store: elsewhere}}")
    ran = mlapp("deploy", "--target", "flyte", "--env", "staging", "--dry-run")
    assert ran.code == 0, ran.err
    documents = list(yaml.safe_load_all(ran.out))
    assert {document["id"]["domain"] for document in documents} == {"staging"}
    container = documents[0]["spec"]["template"]["container"]
    assert container["image"] == "built-when-applied:new"
    arguments = container["args"]
    named = arguments[arguments.index("app") :]
    assert named == ["app", "app.py", "env", "staging", "task", "read"]
    assert app_tasks.load_task(named).source.settings.store.url == "elsewhere"


def test_an_image_without_a_tag_is_reported(project: Callable[..., Path], mlapp: Callable[..., Any]) -> None:
    project(APP, mlapp__yaml="flyte: {image: registry.example/a}")
    ran = mlapp("deploy", "--target", "flyte", "--dry-run")
    assert (ran.code, ran.err.splitlines()[-2]) == (
        2,
        "Error: The image 'registry.example/a' has no tag or digest, which Flyte needs.",
    )


def test_the_time_of_a_schedule_may_be_left_out(project: Callable[..., Path]) -> None:
    reader = "def read(limit: int | None = None, now: datetime.datetime | None = None)"
    scheduled = APP.replace("def read(limit: int | None = None)", reader).replace(
        "import pandas", "import datetime\nimport pandas"
    )
    scheduled += "\napp.schedule('often', every=datetime.timedelta(hours=6), time='now')\n"
    origin = app_source.make_flyte_app_source(Project.find(project(scheduled)))
    (plan,) = launch_plans.make_launch_plans(origin)
    assert plan.schedule.to_flyte_idl().cron_schedule.schedule == "0 */6 * * *"  # rates are told no time
    assert plan.schedule.to_flyte_idl().kickoff_time_input_arg == "now"
    input = next(input for input in get_task_graph(origin).inputs if input.name == "now")
    assert input.kind is datetime  # Flyte's scheduler fills no input that may be None
    assert input.decode_value(input.default) is None

    origin.app.schedule("odd", every=timedelta(hours=7), time="now")
    with pytest.raises(DeclarationError, match=r"every 7:00:00 get no time"):
        launch_plans.make_launch_plans(origin)


def test_the_workflow_has_the_parameters_with_their_defaults(tasks: dict[str, StageTask]) -> None:
    train = workflow.train_workflow(tasks["train"].source)
    assert train.name == "flowers.train"
    assert train.python_interface.inputs_with_defaults == {
        "limit": (int | None, None),
        "test_size": (float, 0.2),
        "shuffle": (bool, True),
        "random_state": (int, 0),
        "c": (float, 1.0),
        "penalty": (str, "null"),
        "promote_if": (str, ""),
        "tuning": (str, ""),
    }
    assert list(train.interface.outputs) == ["metrics", "model"]
    assert [node.id for node in train.nodes] == ["read", "split", "train", "evaluate-save"]


def test_a_user_s_own_workflow_can_use_it(tasks: dict[str, StageTask]) -> None:
    import flytekit

    train = workflow.train_workflow(tasks["train"].source.app)

    @flytekit.workflow
    def twice(c: float = 0.5) -> dict[str, dict[str, float]]:
        train(c=1.0)
        return train(c=c).metrics

    assert len(twice.nodes) == 2
    assert set(twice(c=0.1)) == {"train", "test"}


def test_a_schedule_that_predicts_is_a_launch_plan_of_the_predictions(project: Callable[..., Path]) -> None:
    scheduled = (
        APP
        + "\napp.schedule('daily_scores', cron='@daily', predict=True, parameters={'limit': 9}, model='production')\n"
    )
    origin = app_source.make_flyte_app_source(
        Project.find(project(scheduled, mlapp__yaml="store: s3://bucket/models\n"))
    )
    (plan,) = launch_plans.make_launch_plans(origin)
    assert plan.name == "flowers.predict.daily_scores"
    assert plan.fixed_inputs.literals["model_version"].scalar.primitive.value == "production"
    assert plan.fixed_inputs.literals["limit"].scalar.union.value.scalar.primitive.value == 9
    assert not plan.parameters.parameters["model"].required
    assert launch_plans.find_launch_plan_schedule("flowers", plan.name) == "daily_scores"


def test_a_cluster_predicts_by_models_that_it_can_read(project: Callable[..., Path]) -> None:
    scheduled = APP + "\napp.schedule('daily', cron='@daily', predict=True)\n"
    origin = app_source.make_flyte_app_source(Project.find(project(scheduled)))
    with pytest.raises(DeclarationError, match="cannot read the store .mlapp/store"):
        launch_plans.make_launch_plans(origin)


def test_the_task_of_such_a_schedule_takes_the_model_from_the_store(
    project: Callable[..., Path], mlapp: Callable[..., Any]
) -> None:
    root = project(APP)
    assert mlapp("train").code == 0
    origin = app_source.make_flyte_app_source(Project.find(root))
    outputs = workflow.predict_workflow(origin)(limit=7, model_version="latest")
    assert len(pd.read_parquet(outputs.download())) == 7


PLAIN = APP.replace('(cache=True, resources=Resources(cpu=2, memory="4Gi"))', "").replace(
    """(
    resources=Resources(cpu=4, memory="8Gi", gpu=1), retries=2, timeout=3600, secrets=["database/password"]
)""",
    "",
)


@pytest.mark.parametrize(
    ("declared", "nodes"),
    [
        ("", ["read-split", "train-evaluate-save"]),
        ("(secrets=['database/password'])", ["read-split", "train-evaluate-save"]),
        ("(cache=True)", ["read", "split-train-evaluate-save"]),
    ],
)
def test_stages_that_share_resources_share_a_task(
    project: Callable[..., Path], declared: str, nodes: list[str]
) -> None:
    text = PLAIN.replace("@app.data_reader", f"@app.data_reader{declared}")
    origin = app_source.make_flyte_app_source(Project.find(project(text)))
    assert [node.id for node in workflow.train_workflow(origin).nodes] == nodes
    task = get_task_graph(origin).get_task(nodes[0])
    assert (task.resources.requests.cpu, task.resources.requests.mem) == ("1", "1Gi")
    assert len(task.security_context.secrets if task.security_context else []) == ("secrets" in declared)


def test_a_stage_can_always_have_a_task_of_its_own(project: Callable[..., Path]) -> None:
    origin = app_source.make_flyte_app_source(Project.find(project(PLAIN, mlapp__yaml="flyte: {tasks: separate}")))
    assert [node.id for node in workflow.train_workflow(origin).nodes] == ["read", "split", "train", "evaluate", "save"]


def test_a_cached_reader_reads_again_when_a_data_file_changes(project: Callable[..., Path]) -> None:
    def cache_version() -> str:
        return TaskGraph(app_source.make_flyte_app_source(Project.find())).get_task("read").metadata.cache_version

    root = project(APP)
    (root / "flowers.csv").write_text("length,kind\n1,a\n")
    before = cache_version()
    (root / "README.md").write_text("how to")
    assert cache_version() == before
    (root / "flowers.csv").write_text("length,kind\n2,a\n")
    assert cache_version() != before


@pytest.mark.parametrize(("declared", "tasks"), [("", ["train-evaluate-save"]), ("(cache=True)", None)])
def test_a_split_that_shares_the_task_of_its_training_is_done_again(
    project: Callable[..., Path], declared: str, tasks: list[str] | None
) -> None:
    """`<app>.train_split` takes split data, so it needs a task that begins with the training."""
    text = PLAIN.replace("@app.data_reader", f"@app.data_reader{declared}")
    follows = workflow.split_workflow(app_source.make_flyte_app_source(Project.find(project(text))), "train")
    assert (None if follows is None else [node.id for node in follows.nodes]) == tasks
