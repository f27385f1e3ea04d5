"""A transformer on disk: its configuration, its weights as safetensors, its tokenizer, and what mlapp knows of it."""

from __future__ import annotations

import logging
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import msgspec

from mlapp.errors import MissingExtraError, ModelError

TASK_FILE = "task.json"
TOKENIZER_FILE = "tokenizer_config.json"
ADAPTER_FILE = "adapter_config.json"


class Task(msgspec.Struct, frozen=True):
    """What the transformer's own files do not hold.

    Attributes:
        pipeline: the task of the pipeline that the model was in; None for a model by itself.
        labels: of the target's classes, in the order of the model's outputs; None where it was not trained on classes.
        words: that the tokenizer knows: transformers makes up an empty one where a file of it is missing.
    """

    pipeline: str | None
    labels: list[Any] | None
    words: int


def save_transformer(model: Any, tokenizer: Any, task: Task, folder: Path) -> None:
    """Write the files.

    Raises:
        ModelError: the model's class is not one of transformers': its code would have to be loaded with it.
    """
    import transformers

    kind = type(model).__name__
    if getattr(transformers, kind, None) is not type(model):
        raise ModelError(
            f"The model, a {kind}, is not of a class of transformers: loading it would run code that is kept with it.",
            "Use one of transformers' classes, or write an @app.saver and an @app.loader.",
        )
    with quiet_transformers():
        model.save_pretrained(folder)
        tokenizer.save_pretrained(folder)
    (folder / TASK_FILE).write_bytes(msgspec.json.encode(task))
    _require_data_only(folder)


def load_transformer(folder: Path) -> tuple[Any, Any, Task]:
    """Model, tokenizer and task of a folder that `save` wrote. Nothing is fetched, and no code in the folder is run.

    Raises:
        MissingExtraError: transformers is not installed. ModelError: a file is missing, cut off or damaged; or
            refers to code, or to what is outside the folder.
    """
    try:
        import transformers
    except ImportError:
        raise MissingExtraError("Loading Hugging Face models", "huggingface") from None
    _require_data_only(folder)
    try:
        task = msgspec.json.decode((folder / TASK_FILE).read_bytes(), type=Task)
        (folder / TOKENIZER_FILE).stat()  # without it transformers guesses
        [name] = msgspec.json.decode((folder / "config.json").read_bytes())["architectures"]
        kind: Any = getattr(transformers, name)
        is_model = isinstance(kind, type) and issubclass(kind, transformers.PreTrainedModel)
        if not is_model:
            raise TypeError(f"'{name}' is no model of transformers")
        with quiet_transformers():
            model, told = kind.from_pretrained(
                folder, local_files_only=True, trust_remote_code=False, use_safetensors=True, output_loading_info=True
            )
            tokenizer = transformers.AutoTokenizer.from_pretrained(
                folder, local_files_only=True, trust_remote_code=False
            )
    except Exception as error:  # tokenizers raises nothing more specific
        reason = next((line.strip() for line in str(error).splitlines() if line.strip()), type(error).__name__)
        raise ModelError(
            f"The model in {folder} is cut off, damaged or not whole: {reason}", "Train again here, or restore it."
        ) from error
    if len(tokenizer) != task.words:
        raise ModelError(
            f"The tokenizer in {folder} knows {len(tokenizer)} words in the place of {task.words}: a file is missing.",
            "Train again here, or restore it.",
        )
    if told["missing_keys"]:  # transformers would draw them at random
        raise ModelError(
            f"The weights in {folder} lack {sorted(told['missing_keys'])[0]}.", "Train again here, or restore them."
        )
    return model.eval(), tokenizer, task


def _require_data_only(folder: Path) -> None:
    """Check that the files of a model refer to no code, and to nothing outside their folder.

    transformers reads no file of Python here, and no pickle: one that lies in the folder is never opened.

    Raises:
        ModelError: a file does; names it.
    """
    for file in sorted(folder.rglob("*")):
        if file.name == ADAPTER_FILE:
            raise _refusal_error(file, "refers to the weights of another model")
        if file.suffix != ".json":
            continue
        try:
            content = msgspec.json.decode(file.read_bytes())
        except msgspec.DecodeError as error:
            raise ModelError(f"{file} is cut off or damaged: {error}", "Train again here, or restore it.") from None
        if isinstance(content, dict):
            _require_inside(file, content)


def _require_inside(file: Path, content: dict[str, Any]) -> None:
    if file.name.endswith(".index.json"):
        names = content.get("weight_map")
        if not isinstance(names, dict) or any(not is_plain_name(name) for name in names.values()):
            raise _refusal_error(file, "refers to weights outside its folder")
    if file.name == TOKENIZER_FILE and any(key.endswith("_file") and content[key] for key in content):
        raise _refusal_error(file, "refers to a file by its path")
    # A name with a slash is a repository of the hub, whose code transformers would fetch and run.
    if file.name == "config.json" and any("/" in name for name in _implementations(content)):
        raise _refusal_error(file, "refers to code of the hub")


def is_plain_name(name: object) -> bool:
    """Whether this is the name of a file directly in a folder."""
    return isinstance(name, str) and name not in ("", ".", "..") and not set(name) & set("/\\\0")


def _implementations(content: Any) -> Iterator[str]:
    """What a configuration, and those inside it, name as the implementation of a part of the model."""
    for key, value in content.items() if isinstance(content, dict) else ():
        if "_implementation" in key:
            yield from (str(part) for part in (value.values() if isinstance(value, dict) else [value]))
        for part in value if isinstance(value, list) else [value]:
            yield from _implementations(part)


def _refusal_error(file: Path, why: str) -> ModelError:
    return ModelError(
        f"{file} {why}: a model's files must hold data alone.",
        "Save the model as safetensors of one of transformers' classes, without files of code.",
    )


@contextmanager
def quiet_transformers() -> Iterator[None]:
    """transformers draws no bars and says nothing below an error in this block."""
    import transformers

    messages: Any = transformers.utils.logging  # untyped
    drawn, level = messages.is_progress_bar_enabled(), messages.get_verbosity()
    messages.disable_progress_bar()
    messages.set_verbosity(logging.ERROR)
    try:
        yield
    finally:
        messages.set_verbosity(level)
        if drawn:
            messages.enable_progress_bar()
