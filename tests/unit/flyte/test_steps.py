"""How a task runs, as the stages that meet in it declare it."""

from __future__ import annotations

from typing import Any

from sklearn.linear_model import LogisticRegression

from mlapp import App, Resources
from mlapp.flyte.task_specs import list_task_spec_stages, make_task_spec_options

SMALL, LARGE = Resources(memory="1Gi"), Resources(memory="16Gi", gpu=1)


def app() -> App:
    made = App("flowers", target="y")

    @made.data_reader
    def read() -> Any: ...

    return made


def test_a_plain_stage_leaves_the_word_to_those_that_declare() -> None:
    made = app()

    @made.data_loader(resources=SMALL, secrets=["bucket/key"])
    def load(data: Any) -> Any: ...

    assert make_task_spec_options(made, "read").resources == SMALL
    assert make_task_spec_options(made, "read").secrets == ("bucket/key",)
    assert make_task_spec_options(made, "split").resources == SMALL


def test_an_app_without_a_trainer_declares_its_training_at_the_model() -> None:
    made = app()
    made.model(LogisticRegression, resources=LARGE, cache=True, retries=2)
    train, evaluate = make_task_spec_options(made, "train"), make_task_spec_options(made, "evaluate")
    assert (train.resources, train.cache, train.retries) == (LARGE, True, 2)
    assert evaluate.resources == Resources(memory="16Gi")
    assert not evaluate.cache


def test_batch_prediction_runs_as_the_predictor_declares_and_saving_is_never_cached() -> None:
    made = app()

    @made.predictor(resources=LARGE)
    def predict(model: Any, features: Any) -> Any: ...

    @made.saver(cache=True, secrets=["store/key"])
    def save(model: Any, path: Any) -> None: ...

    assert make_task_spec_options(made, "batch").resources == LARGE
    assert make_task_spec_options(made, "save").secrets == ("store/key",)
    assert not make_task_spec_options(made, "save").cache


def test_a_cached_task_depends_on_every_function_that_runs_in_it() -> None:
    made = app()

    @made.saver
    def save(model: Any, path: Any) -> None: ...

    @made.predictor
    def predict(model: Any, features: Any) -> Any: ...

    assert [stage.function for stage in list_task_spec_stages(made, "train")] == [predict, save]
    assert predict in [stage.function for stage in list_task_spec_stages(made, "batch")]
