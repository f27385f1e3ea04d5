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


def save(model: Any, tokenizer: Any, task: Task, folder: Path) -> None:
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
    with quiet():
        model.save_pretrained(folder)
        tokenizer.save_pretrained(folder)
    (folder / TASK_FILE).write_bytes(msgspec.json.encode(task))


def load(folder: Path) -> tuple[Any, Any, Task]:
    """Model, tokenizer and task of a folder that `save` wrote. Nothing is fetched, and no code in the folder is run.

    Raises:
        MissingExtraError: transformers is not installed. ModelError: a file is missing, cut off or damaged.
    """
    try:
        import transformers
        from safetensors import SafetensorError
    except ImportError:
        raise MissingExtraError("Loading Hugging Face models", "huggingface") from None
    try:
        task = msgspec.json.decode((folder / TASK_FILE).read_bytes(), type=Task)
        (folder / TOKENIZER_FILE).stat()  # without it transformers guesses
        [kind] = msgspec.json.decode((folder / "config.json").read_bytes())["architectures"]
        with quiet():
            model, told = getattr(transformers, kind).from_pretrained(
                folder, local_files_only=True, use_safetensors=True, output_loading_info=True
            )
            tokenizer = transformers.AutoTokenizer.from_pretrained(
                folder, local_files_only=True, trust_remote_code=False
            )
    except (SafetensorError, OSError, ValueError, KeyError, TypeError, AttributeError) as error:
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


@contextmanager
def quiet() -> Iterator[None]:
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
