"""Hugging Face: tiny transformers made here, without a hub: trained, kept, loaded, refused."""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
import torch
from transformers import (
    BertTokenizer,
    DistilBertConfig,
    DistilBertForMaskedLM,
    DistilBertForSequenceClassification,
    pipeline,
)

from mlapp import App, frameworks
from mlapp.errors import DataError, MissingExtraError, ModelError
from mlapp.prediction import load_predictor
from mlapp.progress import Progress, listen_progress

HUGGING_FACE = frameworks.get_framework("huggingface")
FRUIT, TOOLS = ["an apple", "one pear", "red plum", "some figs"], ["a hammer", "this saw", "two nails", "blue drill"]
TABLE = pd.DataFrame({"text": (FRUIT + TOOLS) * 5, "kind": (["fruit"] * 4 + ["tool"] * 4) * 5})
FEATURES, TARGET = TABLE[["text"]], TABLE["kind"]


def tokenizer() -> Any:
    words = sorted(set(" ".join(TABLE["text"]).split()))
    vocabulary = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", *words]
    return BertTokenizer(vocab={word: number for number, word in enumerate(vocabulary)})


def config(**more: Any) -> DistilBertConfig:
    torch.manual_seed(0)
    small = {"dim": 16, "hidden_dim": 16, "n_layers": 1, "n_heads": 2, "initializer_range": 0.2, "dropout": 0.0}
    return DistilBertConfig(vocab_size=100, max_position_embeddings=16, **small, **more)


def classifier(classes: int = 2) -> Any:
    model = DistilBertForSequenceClassification(config(num_labels=classes))
    return pipeline("text-classification", model=model, tokenizer=tokenizer(), device="cpu")


def trained(model: Any = None, target: Any = TARGET, **given: Any) -> Any:
    return HUGGING_FACE.trainer(model or classifier(), FEATURES, target, **{"learning_rate": 0.02, **given})


@pytest.fixture
def saved_folder(tmp_path: Path) -> Path:
    """The folder of a saved classifier."""
    HUGGING_FACE.save(classifier(), tmp_path, "safetensors", ())
    return tmp_path


def test_a_pipeline_is_trained_kept_loaded_and_continues(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    app = App("things", target="kind")
    app.data_reader(lambda: TABLE)
    app.model(classifier)

    found = app.train(learning_rate=0.02)
    assert found.metrics["test"] == {"accuracy": 1.0, "f1_macro": 1.0}
    version = app.save(found)
    assert set(version.manifest.files) == {
        "baseline.json",
        "config.json",
        "model.safetensors",
        "task.json",
        "tokenizer.json",
        "tokenizer_config.json",
    }
    loaded = load_predictor(app, version)
    assert loaded.predict([{"text": "red plum"}, {"text": "a hammer"}]).tolist() == ["fruit", "tool"]
    assert loaded.estimator("red plum")[0]["label"] == "fruit"  # the pipeline itself knows the labels too

    further = app.train(from_=version.version, epochs=1, learning_rate=1e-6)
    assert further.metrics["test"]["accuracy"] == 1.0
    with pytest.raises(ModelError, match="cannot be trained further: it does not know the class 'animal'"):
        HUGGING_FACE.trainer(loaded.estimator, FEATURES, TARGET.replace("tool", "animal"))
    with pytest.raises(ModelError, match="do not fit those of the version"):
        HUGGING_FACE.proceed(classifier(3), loaded.estimator, FEATURES, TARGET)


def test_numbers_as_classes_and_as_quantities() -> None:
    years = TARGET.map({"fruit": 1990, "tool": 2005})
    assert HUGGING_FACE.predictor(trained(target=years), ["red plum", "a hammer"]).tolist() == [1990, 2005]

    model = trained(classifier(1), TARGET.eq("tool").astype(float))
    assert HUGGING_FACE.evaluator(model, FEATURES, TARGET.eq("tool"))["r2"] > 0.5


def test_two_columns_are_pairs() -> None:
    pairs = FEATURES.assign(answer=FEATURES["text"].to_numpy()[::-1])
    model = HUGGING_FACE.trainer(classifier(), pairs, TARGET, learning_rate=0.02, epochs=4)
    assert HUGGING_FACE.evaluator(model, pairs, TARGET)["accuracy"] > 0.9


def test_texts_are_batched_without_changing_answers_and_cut_at_the_models_length() -> None:
    model = trained(epochs=3)
    long = pd.DataFrame({"text": [*(TABLE["text"] + " hammer" * 3), "a saw " * 100]})
    together = HUGGING_FACE.predictor(model, long).tolist()
    assert together == [HUGGING_FACE.predictor(model, [text])[0] for text in long["text"]]


def test_weights_of_a_folder_are_fine_tuned_gently_with_its_tokenizer(tmp_path: Path) -> None:
    first = classifier()
    first.model.config.id2label, first.model.config.label2id = {0: "tool", 1: "fruit"}, {"tool": 0, "fruit": 1}
    first.save_pretrained(tmp_path)
    model = DistilBertForSequenceClassification.from_pretrained(tmp_path)  # by itself: no pipeline around it
    before = model.classifier.weight.detach().clone()
    HUGGING_FACE.trainer(model, FEATURES, TARGET, epochs=1)
    assert 0 < (model.classifier.weight - before).abs().max() < 1e-3
    assert model.config.id2label == {0: "tool", 1: "fruit"}  # those of the folder, not in alphabetic order

    HUGGING_FACE.save(model, tmp_path / "kept", "safetensors", ())
    again = HUGGING_FACE.load(tmp_path / "kept", "safetensors", ())
    assert HUGGING_FACE.predictor(again, FEATURES).tolist() == HUGGING_FACE.predictor(model, FEATURES).tolist()


def test_a_pipeline_of_another_task_answers_as_it_does(tmp_path: Path) -> None:
    words = tokenizer()
    mask = pipeline("fill-mask", model=DistilBertForMaskedLM(config()), tokenizer=words, device="cpu", top_k=1)
    texts = pd.DataFrame({"text": ["a [MASK]", "red [MASK]"]})
    expected = [row["token_str"] for row in HUGGING_FACE.predictor(mask, texts)]
    HUGGING_FACE.save(mask, tmp_path, "safetensors", ())
    again = HUGGING_FACE.predictor(HUGGING_FACE.load(tmp_path, "safetensors", ()), texts)
    assert [row["token_str"] if isinstance(row, dict) else row[0]["token_str"] for row in again] == expected
    assert HUGGING_FACE.evaluator(mask, texts, ["a", "b"]) == {}
    with pytest.raises(ModelError, match="A DistilBertForMaskedLM does not return a score for each class"):
        trained(mask)


def test_a_training_that_stopped_continues(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)

    class Stop(Exception):
        pass

    def stop(progress: Progress) -> None:
        if progress.step == 3:
            raise Stop

    with pytest.raises(Stop), listen_progress(stop):
        trained(checkpoint_every=0)
    messages: list[Progress] = []
    with listen_progress(messages.append):
        trained(checkpoint_every=0)
    assert messages[0].step == 3


def test_features_that_are_no_texts() -> None:
    with pytest.raises(DataError, match="Column 'text' of the features contains missing values"):
        HUGGING_FACE.trainer(classifier(), FEATURES.assign(text=[None, *TABLE["text"][1:]]), TARGET)
    with pytest.raises(DataError, match="Column 'text' of the features contains missing values"):
        HUGGING_FACE.trainer(classifier(), FEATURES.assign(text=[np.nan, *TABLE["text"][1:]]), TARGET)
    with pytest.raises(DataError, match="Column 'price' of the features contains a float"):
        HUGGING_FACE.predictor(classifier(), FEATURES.assign(price=1.5))
    with pytest.raises(DataError, match="3 columns: a text model takes one"):
        HUGGING_FACE.predictor(classifier(), FEATURES.assign(a="x", b="y"))


def test_a_model_that_does_not_fit() -> None:
    with pytest.raises(ModelError, match="8 classes, but the model has 2 outputs"):
        trained(target=TABLE["text"])
    alone = DistilBertForSequenceClassification(config())
    with pytest.raises(ModelError, match="has no tokenizer") as raised:
        trained(alone)
    assert "pipeline('text-classification', model=model, tokenizer=tokenizer)" in raised.value.todo


@pytest.mark.parametrize("labels", [["fruit"], ("fruit", "red"), {"fruit"}, np.array(["fruit"])], ids=repr)
def test_several_labels_per_row_are_named(labels: Any) -> None:
    target = pd.Series([labels if at else "tool" for at in range(len(TABLE))])
    with pytest.raises(DataError, match="Row 1 of the target is .*fruit.*, but the default trainer needs one class"):
        trained(target=target)


def test_code_is_not_kept(tmp_path: Path) -> None:
    class Own(DistilBertForSequenceClassification):
        pass

    own = pipeline("text-classification", model=Own(config()), tokenizer=tokenizer(), device="cpu")
    with pytest.raises(ModelError, match="an? Own, is not a class of the transformers library"):
        HUGGING_FACE.save(own, tmp_path, "safetensors", ())


def test_weights_that_are_cut_off(saved_folder: Path) -> None:
    file = saved_folder / "model.safetensors"
    file.write_bytes(file.read_bytes()[:-100])
    with pytest.raises(ModelError, match="is truncated, damaged or incomplete"):
        HUGGING_FACE.load(saved_folder, "safetensors", ())


def test_weights_that_are_not_all_there(saved_folder: Path) -> None:
    from safetensors.torch import load_file, save_file

    weights = load_file(saved_folder / "model.safetensors")
    del weights["classifier.weight"]
    save_file(weights, saved_folder / "model.safetensors", {"format": "pt"})
    with pytest.raises(ModelError, match=r"lack classifier\.weight"):
        HUGGING_FACE.load(saved_folder, "safetensors", ())


@pytest.mark.parametrize("missing", ["tokenizer_config.json", "tokenizer.json", "config.json", "task.json"])
def test_a_file_that_is_missing(saved_folder: Path, missing: str) -> None:
    (saved_folder / missing).unlink()
    with pytest.raises(ModelError, match="tokenizer" if "tokenizer" in missing else missing):
        HUGGING_FACE.load(saved_folder, "safetensors", ())


def test_code_beside_the_weights_is_not_run(saved_folder: Path) -> None:
    (saved_folder / "evil.py").write_text("raise SystemExit('it ran')\n")
    settings = json.loads((saved_folder / "config.json").read_text())
    settings |= {"auto_map": {"AutoConfig": "evil.Config", "AutoModelForSequenceClassification": "evil.Model"}}
    (saved_folder / "config.json").write_text(json.dumps(settings))
    words = json.loads((saved_folder / "tokenizer_config.json").read_text())
    words |= {"auto_map": {"AutoTokenizer": ["evil.Tokenizer", None]}}
    (saved_folder / "tokenizer_config.json").write_text(json.dumps(words))
    assert len(HUGGING_FACE.predictor(HUGGING_FACE.load(saved_folder, "safetensors", ()), FEATURES)) == len(FEATURES)


def test_settings_that_are_nested_too_deeply(saved_folder: Path) -> None:
    (saved_folder / "config.json").write_text("[" * 100_000)
    with pytest.raises(ModelError, match=r"config\.json is truncated or damaged"):
        HUGGING_FACE.load(saved_folder, "safetensors", ())


def test_transformers_that_is_not_installed(saved_folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "transformers", None)
    with pytest.raises(MissingExtraError) as raised:
        HUGGING_FACE.load(saved_folder, "safetensors", ())
    assert "mlapp-kit[huggingface]" in raised.value.todo
