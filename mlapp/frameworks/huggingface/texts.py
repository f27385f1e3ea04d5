"""Converts columns of text to the tensors of a transformer."""

from __future__ import annotations

from typing import Any

from mlapp.errors import DataError, ModelError

BATCH = 32
"""Texts per call of the model in prediction."""
NO_LIMIT = 1_000_000
"""A tokenizer without a length limit reports a number far above this one."""


def list_huggingface_texts(features: Any) -> list[list[str]]:
    """The texts of one column, or pairs of two columns. A list, an array or a Series is one column.

    Raises:
        DataError: a column has values other than texts, or missing ones; more than two columns.
    """
    if hasattr(features, "columns"):
        columns = {str(name): features[name].tolist() for name in features.columns}
    else:
        columns = {"features": list(features)}
    if not 1 <= len(columns) <= 2:
        raise DataError(
            f"The features have {len(columns)} columns: a text model takes one column of strings, or two as pairs.",
            'Name it: App(…, features=["text"]); or join columns in a feature_transformer.',
        )
    for name, values in columns.items():
        wrong = next((value for value in values if not isinstance(value, str)), None)
        if wrong is not None or any(value is None for value in values):
            content = "missing values" if wrong is None or wrong != wrong else f"a {type(wrong).__name__}"
            raise DataError(
                f"Column '{name}' of the features contains {content}, but the model takes strings.",
                "Fill, drop or convert them in the data_reader or a feature_transformer.",
            )
    return list(columns.values())


def tokenize_texts(model: Any, tokenizer: Any, columns: list[list[str]]) -> Any:
    """Token IDs, attention mask and token types as one tensor of the shape rows × inputs × tokens, padded at the end.

    Texts are truncated to the tokenizer's `model_max_length`, or to the model's number of positions.
    """
    import torch

    limit = tokenizer.model_max_length
    if limit > NO_LIMIT:
        limit = getattr(model.config, "max_position_embeddings", 512)
    encoded = tokenizer(
        *columns,
        padding=True,
        truncation=True,
        max_length=limit,
        padding_side="right",
        return_attention_mask=True,
        return_tensors="pt",
    )
    tensors = [encoded["input_ids"], encoded["attention_mask"]]
    if len(columns) == 2 and "token_type_ids" in encoded:
        tensors.append(encoded["token_type_ids"])
    return torch.stack(tensors, dim=1)


def wrap_transformer(model: Any) -> Any:
    """A module that computes a score for each class, or a number, from the result of `tokenize_texts`.

    Raises:
        ModelError: the transformer has a different output.
    """
    from torch import cat, nn

    class TextScorer(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.transformer = model

        def forward(self, encoded: Any) -> Any:
            if self.training:
                return self.scores(encoded)
            return cat([self.scores(part) for part in encoded.split(BATCH)])

        def scores(self, encoded: Any) -> Any:
            longest = int(encoded[:, 1].sum(dim=1).max())
            ids, mask, *types = encoded[:, :, :longest].unbind(dim=1)
            pairs = {"token_type_ids": types[0]} if types else {}
            output = model(input_ids=ids, attention_mask=mask, **pairs)
            if getattr(output, "logits", None) is None or output.logits.ndim != 2:
                raise ModelError(
                    f"A {type(model).__name__} does not return a score for each class.",
                    "Return a …ForSequenceClassification, or write an @app.trainer and an @app.predictor.",
                )
            return output.logits

    return TextScorer()
