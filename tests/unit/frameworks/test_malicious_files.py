"""One malicious file for each loader and trick: none runs code, reads another file, or ends the process."""

from __future__ import annotations

import base64
import json
import os
import pickle
import re
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import h5py
import lightgbm
import numpy as np
import onnx
import pytest
import torch
import xgboost
from onnx import TensorProto, helper
from transformers import BertTokenizer, DistilBertConfig, DistilBertForSequenceClassification

from mlapp import frameworks
from mlapp.errors import ModelError

os.environ.setdefault("KERAS_BACKEND", "torch")
import keras

ROWS = np.random.default_rng(0).random((60, 4))
CLASSES = (ROWS[:, 0] > 0.5).astype(int)


class Bomb:
    """A pickle of this object makes a file when it is loaded."""

    def __init__(self, file: Path) -> None:
        self.file = file

    def __reduce__(self) -> Any:
        return Path.touch, (self.file,)


@pytest.fixture
def marker_file(tmp_path: Path) -> Path:
    """The file that code of an attacker would make."""
    return tmp_path / "ran"


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """The folder of a version's files."""
    path = tmp_path / "files"
    path.mkdir()
    return path


def assert_refused(framework: str, folder: Path, match: str) -> None:
    adapter = frameworks.get_framework(framework)
    with pytest.raises(ModelError, match=match):
        adapter.load(folder, adapter.formats[0], ())


# XGBoost


def xgboost_file(folder: Path, change: Callable[[Any], None] = lambda model: None, **attributes: str) -> None:
    model = xgboost.XGBClassifier(n_estimators=2).fit(ROWS, CLASSES)
    content = json.loads(model.get_booster().save_raw("json"))
    change(content["learner"])
    booster = xgboost.Booster(model_file=bytearray(json.dumps(content).encode()))
    booster.set_attr(**{"class": "XGBClassifier", **attributes})
    booster.save_model(folder / "model.ubj")


@pytest.mark.parametrize("name", ["train", "DMatrix", "RabitTracker", "core", "no_such_thing", "__builtins__"])
def test_an_xgboost_file_names_no_class_but_a_models(name: str, folder: Path) -> None:
    xgboost_file(folder, **{"class": name})
    assert_refused("xgboost", folder, f"names '{name}' as its class")


def first_tree(learner: Any) -> Any:
    return learner["gradient_booster"]["model"]["trees"][0]


XGBOOST: dict[str, Callable[[Any], Any]] = {
    "a child out of bounds": lambda learner: first_tree(learner)["left_children"].__setitem__(0, 10**7),
    "a child that is its own parent": lambda learner: first_tree(learner)["right_children"].__setitem__(0, 0),
    "a feature that no row has": lambda learner: first_tree(learner)["split_indices"].__setitem__(0, 10**8),
    "an output that does not exist": lambda learner: learner["gradient_booster"]["model"]["tree_info"].__setitem__(
        0, 10**6
    ),
}


@pytest.mark.parametrize("trick", XGBOOST)
def test_an_xgboost_tree_that_would_end_the_process(trick: str, folder: Path) -> None:
    xgboost_file(folder, XGBOOST[trick])
    assert_refused("xgboost", folder, "does not exist")


def test_a_pickle_in_the_place_of_an_xgboost_file(folder: Path, marker_file: Path) -> None:
    (folder / "model.ubj").write_bytes(pickle.dumps(Bomb(marker_file)))
    assert_refused("xgboost", folder, "is not an XGBoost model")
    assert not marker_file.exists()


# LightGBM


def lightgbm_folder(folder: Path, change: Callable[[str], str] = str, kind: str = "LGBMClassifier") -> None:
    model = lightgbm.LGBMClassifier(n_estimators=2, min_child_samples=2, verbose=-1).fit(ROWS, CLASSES)
    frameworks.get_framework("lightgbm").save(model, folder, "txt", ())
    text = (folder / "model.txt").read_text()
    (folder / "model.txt").write_text(_with_sizes(change(text)))
    wrapper = json.loads((folder / "wrapper.json").read_text())
    (folder / "wrapper.json").write_text(json.dumps({**wrapper, "kind": kind}))


def _with_sizes(text: str) -> str:
    """The text with the sizes of its trees corrected, as an attacker does."""
    trees = text[text.index("Tree=0") : text.index("end of trees")]
    sizes = [len(tree) for tree in re.split(r"(?=Tree=)", trees)[1:]]
    return re.sub(r"tree_sizes=.*", "tree_sizes=" + " ".join(map(str, sizes)), text)


def replace_first(name: str, value: int) -> Callable[[str], str]:
    return lambda text: re.sub(rf"\n{name}=\S+", f"\n{name}={value}", text, count=1)


LIGHTGBM = {
    "a child out of bounds": replace_first("left_child", 10**7),
    "a leaf out of bounds": replace_first("right_child", -(10**7)),
    "a child that is its own parent": replace_first("left_child", 0),
    "a feature that no row has": replace_first("split_feature", 10**7),
    "more leaves than values": replace_first("num_leaves", 10**6),
    "outputs that read the memory": replace_first("num_class", 100),
    "more outputs than trees": replace_first("num_tree_per_iteration", 1000),
    "a number that is none": lambda text: text.replace("\nsplit_feature=", "\nsplit_feature=x", 1),
}


@pytest.mark.parametrize("trick", LIGHTGBM)
def test_a_lightgbm_tree_that_would_end_the_process(trick: str, folder: Path) -> None:
    lightgbm_folder(folder, LIGHTGBM[trick])
    assert_refused("lightgbm", folder, "does not exist|number of outputs|cannot be read")


def test_lightgbm_trees_of_wrong_sizes(folder: Path) -> None:
    lightgbm_folder(folder)
    file = folder / "model.txt"
    file.write_text(re.sub(r"tree_sizes=\d+", "tree_sizes=7", file.read_text()))
    assert_refused("lightgbm", folder, "sizes of the model's trees are wrong")


@pytest.mark.parametrize("name", ["train", "Dataset", "plot_tree", "register_logger", "no_such_thing"])
def test_a_lightgbm_file_names_no_class_but_a_models(name: str, folder: Path) -> None:
    lightgbm_folder(folder, kind=name)
    assert_refused("lightgbm", folder, f"names '{name}' as the class")


# ONNX


def onnx_model(tensor: TensorProto, *, in_attribute: bool = False) -> bytes:
    value = helper.make_tensor_value_info
    first = [helper.make_node("Constant", [], ["w"], value=tensor)] if in_attribute else []
    graph = helper.make_graph(
        [*first, helper.make_node("Add", ["x", "w"], ["y"])],
        "graph",
        [value("x", TensorProto.FLOAT, [None, 4])],
        [value("y", TensorProto.FLOAT, [None, 4])],
        [] if in_attribute else [tensor],
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 15)], ir_version=8)
    content: bytes = model.SerializeToString()
    return content


@pytest.mark.parametrize("in_attribute", [False, True])
@pytest.mark.parametrize("location", ["secret.bin", "../secret.bin", "/etc/hostname"])
def test_an_onnx_model_reads_no_other_file(
    location: str, in_attribute: bool, folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(folder)
    for place in (folder, folder.parent):
        (place / "secret.bin").write_bytes(np.arange(4, dtype=np.float32).tobytes())
    tensor = TensorProto(name="w", data_type=TensorProto.FLOAT, dims=[4], data_location=TensorProto.EXTERNAL)
    tensor.external_data.add(key="location", value=location)
    (folder / "model.onnx").write_bytes(onnx_model(tensor, in_attribute=in_attribute))
    assert_refused("onnx", folder, "The data of 'w' is in another file")


def test_labels_of_an_onnx_model_that_are_no_labels(folder: Path) -> None:
    model = onnx.load_model_from_string(onnx_model(helper.make_tensor("w", TensorProto.FLOAT, [4], [0.0] * 4)))
    model.metadata_props.add(key="labels", value='{"0": []}')
    (folder / "model.onnx").write_bytes(model.SerializeToString())
    assert_refused("onnx", folder, "labels in its metadata are damaged")


# PyTorch: safetensors


def header(content: dict[str, Any], data: bytes = b"", size: int | None = None) -> bytes:
    text = json.dumps(content).encode()
    return (len(text) if size is None else size).to_bytes(8, "little") + text + data


def weight(*shape: int, begin: int = 0, end: int = 16) -> dict[str, Any]:
    return {"dtype": "F32", "shape": list(shape), "data_offsets": [begin, end]}


SAFETENSORS = {
    "a header longer than the file": header({}, size=2**62),
    "a header that is no JSON": b"\x04\0\0\0\0\0\0\0nope",
    "offsets behind the end": header({"weight": weight(4, begin=0, end=2**40)}, b"\0" * 16),
    "offsets that overlap": header({"weight": weight(1, 4), "bias": weight(4)}, b"\0" * 16),
    "a shape that overflows": header({"weight": weight(2**33, 2**33)}, b"\0" * 16),
    "a type that does not exist": header({"weight": {**weight(1, 4), "dtype": "PICKLE"}}, b"\0" * 16),
    "labels that are no labels": header(
        {"__metadata__": {"labels": '{"__reduce__": []}'}, "weight": weight(1, 4), "bias": weight(1, begin=16, end=20)},
        b"\0" * 20,
    ),
    "weights of another module": header({"weight": weight(4)}, b"\0" * 16),
}


@pytest.mark.parametrize("trick", SAFETENSORS)
def test_a_header_of_safetensors_that_lies(trick: str, folder: Path) -> None:
    (folder / "model.safetensors").write_bytes(SAFETENSORS[trick])
    with pytest.raises(ModelError, match=r"truncated or damaged|do not fit"):
        frameworks.get_framework("pytorch").restore(torch.nn.Linear(4, 1), folder)


def test_a_pickle_in_the_place_of_weights(folder: Path, marker_file: Path) -> None:
    torch.save(Bomb(marker_file), folder / "model.safetensors")
    with pytest.raises(ModelError, match="truncated or damaged"):
        frameworks.get_framework("pytorch").restore(torch.nn.Linear(4, 1), folder)
    assert not marker_file.exists()


# Keras


def keras_file(folder: Path, layer: dict[str, Any] | None = None, change: Callable[[Any], None] | None = None) -> None:
    """A genuine file; its last layer, or its weights, are replaced."""
    model = keras.Sequential([keras.Input((4,)), keras.layers.Dense(2, name="dense")])
    genuine = folder.parent / "genuine.keras"
    model.save(genuine)
    with zipfile.ZipFile(genuine) as source, zipfile.ZipFile(folder / "model.keras", "w") as target:
        for name in source.namelist():
            data = source.read(name)
            if name == "config.json" and layer is not None:
                config = json.loads(data)
                config["config"]["layers"][-1] = layer
                data = json.dumps(config).encode()
            if name == "model.weights.h5" and change is not None:
                (folder.parent / "weights.h5").write_bytes(data)
                with h5py.File(folder.parent / "weights.h5", "r+") as weights:
                    change(weights)
                data = (folder.parent / "weights.h5").read_bytes()
            target.writestr(name, data)


def layer_of(place: str, kind: str, **config: Any) -> dict[str, Any]:
    return {"module": place, "class_name": kind, "config": config, "registered_name": None}


def keras_layers(marker_file: Path) -> dict[str, dict[str, Any]]:
    code = {"class_name": "__lambda__", "config": {"code": "4wAA", "defaults": None, "closure": None}}
    secret = str(marker_file.parent / "secret.txt")
    module = base64.b64encode(pickle.dumps(Bomb(marker_file))).decode()
    return {
        "a lambda": layer_of("keras.layers", "Lambda", name="evil", function=code),
        "a function of another module": layer_of("os", "system", command=f"touch {marker_file}"),
        "a module that would be imported": layer_of("antigravity", "fly"),
        "a function of Keras that fetches": layer_of(
            "keras.utils", "get_file", fname=str(marker_file), origin="file:///etc"
        ),
        "a pickled module of PyTorch": layer_of("keras.layers", "TorchModuleWrapper", name="evil", module=module),
        "a model of TensorFlow": layer_of("keras.layers", "TFSMLayer", name="evil", filepath=secret),
        "words of another file": layer_of("keras.layers", "StringLookup", name="evil", vocabulary=secret),
        "whose scope is set to unsafe": layer_of("keras.config", "enable_unsafe_deserialization"),
    }


@pytest.mark.parametrize("trick", keras_layers(Path("ran")))
def test_a_keras_layer_that_runs_code_or_reads_files(trick: str, folder: Path, marker_file: Path) -> None:
    (marker_file.parent / "secret.txt").write_text("secret\n")
    keras_file(folder, keras_layers(marker_file)[trick])
    assert_refused("keras", folder, "is not a Keras model that can be loaded safely")
    assert not marker_file.exists()


def weights_from(file: Path, *, by_link: bool) -> Callable[[Any], None]:
    def change(weights: Any) -> None:
        place = weights["layers/dense/vars"]
        shape = place["0"].shape
        del place["0"]
        if by_link:
            place["0"] = h5py.ExternalLink(str(file), "/secret")
        else:
            place.create_dataset("0", shape, "f4", external=[(str(file), 0, h5py.h5f.UNLIMITED)])

    return change


@pytest.mark.parametrize("by_link", [True, False])
def test_weights_of_keras_that_are_another_file(by_link: bool, folder: Path) -> None:
    secret = folder.parent / "secret.h5"
    with h5py.File(secret, "w") as file:
        file["secret"] = np.ones((4, 2), np.float32)
    keras_file(folder, change=weights_from(secret, by_link=by_link))
    assert_refused("keras", folder, "is not a Keras model that can be loaded safely")


@pytest.mark.parametrize("content", [b"", b"\x89HDF\r\n\x1a\n", b"PK\x05\x06" + b"\0" * 18])
def test_another_form_under_the_name_of_a_keras_file(content: bytes, folder: Path) -> None:
    (folder / "model.keras").write_bytes(content)
    assert_refused("keras", folder, "is not a Keras model that can be loaded safely")


def test_labels_of_keras_that_are_no_labels(folder: Path) -> None:
    keras_file(folder)
    (folder / "labels.json").write_text('{"a": 1}')
    assert_refused("keras", folder, "labels.json is truncated or damaged")


# Hugging Face


@pytest.fixture
def transformer(folder: Path) -> Path:
    """The folder of a genuine classifier."""
    words = BertTokenizer(vocab={word: at for at, word in enumerate(["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]"])})
    config = DistilBertConfig(vocab_size=5, dim=8, hidden_dim=8, n_layers=1, n_heads=2, num_labels=2)
    model = DistilBertForSequenceClassification(config)
    model.mlapp_tokenizer = words
    frameworks.get_framework("huggingface").save(model, folder, "safetensors", ())
    return folder


def edit(file: Path, **values: Any) -> None:
    file.write_text(json.dumps({**json.loads(file.read_text()), **values}))


@pytest.mark.parametrize(
    ("file", "values", "match"),
    [
        ("config.json", {"architectures": ["EvilModel"], "auto_map": {"AutoModel": "evil.EvilModel"}}, "EvilModel"),
        ("config.json", {"architectures": ["pipeline"]}, "'pipeline' is not a model"),
        ("config.json", {"architectures": ["AutoModel"], "auto_map": {"AutoModel": "evil.EvilModel"}}, "not a model"),
        ("config.json", {"attn_implementation": "evil/kernels"}, "refers to code on the hub"),
        ("config.json", {"sub": {"_attn_implementation": {"": "evil/kernels"}}}, "refers to code on the hub"),
        ("tokenizer_config.json", {"vocab_file": "/etc/hostname"}, "refers to a file by its path"),
        ("task.json", {"pipeline": "no-such-task"}, "cannot be loaded as a pipeline"),
        ("task.json", {"pipeline": ["text-classification"]}, "truncated, damaged or incomplete"),
    ],
)
def test_a_configuration_of_a_transformer_that_leads_outside(
    file: str, values: dict[str, Any], match: str, transformer: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("builtins.input", lambda *asked: pytest.fail("it asks whether to run code"))
    edit(transformer / file, **values)
    assert_refused("huggingface", transformer, match)


def test_weights_that_adapt_another_model(transformer: Path) -> None:
    (transformer / "adapter_config.json").write_text('{"base_model_name_or_path": "/srv/private"}')
    assert_refused("huggingface", transformer, "refers to the weights of another model")


@pytest.mark.parametrize("name", ["pytorch_model.bin", "model.pt"])
def test_a_pickle_in_the_place_of_the_weights_of_a_transformer(name: str, transformer: Path, marker_file: Path) -> None:
    (transformer / "model.safetensors").unlink()
    torch.save(Bomb(marker_file), transformer / name)
    assert_refused("huggingface", transformer, "truncated, damaged or incomplete")
    assert not marker_file.exists()


@pytest.mark.parametrize("shard", ["../outside.safetensors", "/etc/hostname", "..", "sub/one.safetensors"])
def test_weights_of_a_transformer_in_another_folder(shard: str, transformer: Path) -> None:
    (transformer / "model.safetensors").rename(transformer.parent / "outside.safetensors")
    index = {"metadata": {}, "weight_map": {"classifier.bias": shard}}
    (transformer / "model.safetensors.index.json").write_text(json.dumps(index))
    assert_refused("huggingface", transformer, "refers to weights outside its folder")
