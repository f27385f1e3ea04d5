"""Saves and loads a transformer: its configuration, weights as safetensors, tokenizer, and mlapp's own data."""

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
    """Data that the transformer's own files do not contain.

    Attributes:
        pipeline: the task of the model's pipeline; None for a model without a pipeline.
        labels: the target's classes in the order of the outputs; None if it was not trained on classes.
        words: the size of the tokenizer's vocabulary, because transformers creates an empty tokenizer if a file is
            missing.
    """

    pipeline: str | None
    labels: list[Any] | None
    words: int


def save_transformer(model: Any, tokenizer: Any, task: Task, folder: Path) -> None:
    """Write the files.

    Raises:
        ModelError: the model's class is not part of transformers, so loading requires its code.
    """
    import transformers

    kind = type(model).__name__
    if getattr(transformers, kind, None) is not type(model):
        raise ModelError(
            f"The model, a {kind}, is not a class of the transformers library: loading it would run code stored "
            f"with the model.",
            "Use one of transformers' classes, or write an @app.saver and an @app.loader.",
        )
    with quiet_transformers():
        model.save_pretrained(folder)
        tokenizer.save_pretrained(folder)
    (folder / TASK_FILE).write_bytes(msgspec.json.encode(task))
    _require_transformer_without_code(folder)


def load_transformer(folder: Path) -> tuple[Any, Any, Task]:
    """Load the model, tokenizer and task from a folder. Downloads nothing, and runs no code in the folder.

    Raises:
        MissingExtraError: transformers is not installed. ModelError: a file is missing, truncated or damaged, or
            refers to code, or to files outside the folder.
    """
    try:
        import transformers
    except ImportError:
        raise MissingExtraError("Loading Hugging Face models", "huggingface") from None
    _require_transformer_without_code(folder)
    try:
        task = msgspec.json.decode((folder / TASK_FILE).read_bytes(), type=Task)
        (folder / TOKENIZER_FILE).stat()  # otherwise transformers guesses
        [name] = msgspec.json.decode((folder / "config.json").read_bytes())["architectures"]
        kind: Any = getattr(transformers, name)
        is_model = isinstance(kind, type) and issubclass(kind, transformers.PreTrainedModel)
        if not is_model:
            raise TypeError(f"'{name}' is not a model class of transformers")
        with quiet_transformers():
            model, loading_info = kind.from_pretrained(
                folder, local_files_only=True, trust_remote_code=False, use_safetensors=True, output_loading_info=True
            )
            tokenizer = transformers.AutoTokenizer.from_pretrained(
                folder, local_files_only=True, trust_remote_code=False
            )
    except Exception as error:  # tokenizers raises nothing more specific
        reason = next((line.strip() for line in str(error).splitlines() if line.strip()), type(error).__name__)
        raise ModelError(
            f"The model in {folder} is truncated, damaged or incomplete: {reason}", "Train again here, or restore it."
        ) from error
    if len(tokenizer) != task.words:
        raise ModelError(
            f"The tokenizer in {folder} has {len(tokenizer)} tokens instead of {task.words}: a file is missing.",
            "Train again here, or restore it.",
        )
    if loading_info["missing_keys"]:  # transformers initializes them at random
        raise ModelError(
            f"The weights in {folder} lack {sorted(loading_info['missing_keys'])[0]}.",
            "Train again here, or restore them.",
        )
    return model.eval(), tokenizer, task


def _require_transformer_without_code(folder: Path) -> None:
    """Check that the files of a model refer to no code, and to no files outside their folder.

    Python files and pickles in the folder are never opened.

    Raises:
        ModelError: names the file with such a reference.
    """
    for file in sorted(folder.rglob("*")):
        if file.name == ADAPTER_FILE:
            raise _refused_huggingface_file_error(file, "refers to the weights of another model")
        if file.suffix != ".json":
            continue
        try:
            content = msgspec.json.decode(file.read_bytes())
        except (msgspec.DecodeError, RecursionError) as error:
            raise ModelError(f"{file} is truncated or damaged: {error}", "Train again here, or restore it.") from None
        if isinstance(content, dict):
            _require_inside_model_folder(file, content)


def _require_inside_model_folder(file: Path, content: dict[str, Any]) -> None:
    if file.name.endswith(".index.json"):
        names = content.get("weight_map")
        if not isinstance(names, dict) or any(not is_plain_file_name(name) for name in names.values()):
            raise _refused_huggingface_file_error(file, "refers to weights outside its folder")
    if file.name == TOKENIZER_FILE and any(key.endswith("_file") and content[key] for key in content):
        raise _refused_huggingface_file_error(file, "refers to a file by its path")
    # A name with a slash is a repository of the hub, whose code transformers would download and run.
    if file.name == "config.json" and any("/" in name for name in _list_transformer_implementations(content)):
        raise _refused_huggingface_file_error(file, "refers to code on the hub")


def is_plain_file_name(name: object) -> bool:
    """Whether this is the name of a file directly in a folder."""
    return isinstance(name, str) and name not in ("", ".", "..") and not set(name) & set("/\\\0")


def _list_transformer_implementations(content: Any) -> Iterator[str]:
    """The implementations of the model's parts that a configuration names, also in nested configurations."""
    for key, value in content.items() if isinstance(content, dict) else ():
        if "_implementation" in key:
            yield from (str(part) for part in (value.values() if isinstance(value, dict) else [value]))
        for part in value if isinstance(value, list) else [value]:
            yield from _list_transformer_implementations(part)


def _refused_huggingface_file_error(file: Path, problem: str) -> ModelError:
    return ModelError(
        f"{file} {problem}: a model's files must contain only data.",
        "Save a model of a transformers class as safetensors, without code files.",
    )


@contextmanager
def quiet_transformers() -> Iterator[None]:
    """Turn off transformers' progress bars and its messages below errors in this block."""
    import transformers

    messages: Any = transformers.utils.logging  # untyped
    had_progress_bar, level = messages.is_progress_bar_enabled(), messages.get_verbosity()
    messages.disable_progress_bar()
    messages.set_verbosity(logging.ERROR)
    try:
        yield
    finally:
        messages.set_verbosity(level)
        if had_progress_bar:
            messages.enable_progress_bar()
