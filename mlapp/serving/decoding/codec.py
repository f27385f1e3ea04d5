"""From the bodies of requests to features, one table or array for a batch.

The common forms are decoded by `mlapp.schema.rows`; any other body, and every wrong one, goes through the general way.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Callable, Sequence
from typing import Any

from mlapp.errors import InputError, Problem
from mlapp.prediction import Predictor
from mlapp.schema.container import count_rows, is_dataset
from mlapp.schema.rows import Part, RowCodec
from mlapp.serving.decoding.json_body import FEATURES, INPUTS, named_inputs_of


class Codec:
    """Bodies and features of one loaded model."""

    def __init__(self, predictor: Predictor) -> None:
        self.predictor = predictor
        self.on_refusal: Callable[[InputError], None] | None = None
        """Is told of inputs that do not fit the schema."""
        has_loader = predictor.pipeline.stage("feature_loader") is not None
        self._rows = (
            None if has_loader else RowCodec(predictor.schema.features, (INPUTS,), takes_array=predictor.takes_array)
        )

    @property
    def is_by_row(self) -> bool:
        """Whether the features of a list of inputs are those of its pieces, one behind the other."""
        schema = self.predictor.schema.features
        if schema.kind == "any" or self.predictor.pipeline.stage("feature_loader") is not None:
            return False
        return all(field.type != "any" for field in schema.fields)  # its column's type depends on all the values

    @property
    def width(self) -> int:
        """The cells of a row."""
        schema = self.predictor.schema.features
        return max(len(schema.fields), math.prod(schema.shape), 1)

    def decode_json(self, body: bytes, first: int = 0) -> Part:
        """The features in the JSON body of `/predict`.

        Args:
            first: the number of its first row, where it is a piece of a larger body.

        Raises:
            HttpError: 400, it is not JSON; 422, it is neither a list nor an object with `inputs`.
            InputError: the inputs do not fit the schema. UserCodeError: the feature_loader raised.
        """
        part = self._rows.decode(body) if self._rows is not None else None
        if part is not None:
            return part
        inputs, key, keys = named_inputs_of(body)
        part = self.accept_inputs(self._features_of(inputs) if key == FEATURES else inputs, first)
        part.is_unionml = key == FEATURES
        if keys is not None:
            part.keys = _one_a_row(keys, part.rows)
        return part

    def accept_inputs(self, inputs: Any, first: int = 0) -> Part:
        """Plain inputs, a DataFrame or an array as features.

        Args:
            first: as for `decode`.

        Raises:
            InputError: they do not fit the schema. UserCodeError: the feature_loader raised.
        """
        rows = self._rows
        if rows is not None:
            part = rows.convert(inputs) if isinstance(inputs, list) else rows.from_matrix(inputs)
            if part is not None:
                return part
        try:
            features = self.predictor.accept_inputs(self._name_columns(inputs), first)
        except InputError as error:
            if self.on_refusal is not None:
                self.on_refusal(error)
            raise
        count = count_rows(features)
        count = 1 if count is None else count
        if not count:
            raise InputError([Problem("inputs is empty: there is nothing to predict")])
        part = rows.from_matrix(features) if rows is not None else None
        return part or Part(count, features=features)

    def _features_of(self, inputs: Any) -> Any:
        """The features in what a client of UnionML sends: whole rows, as a reader reads them."""
        pipeline = self.predictor.pipeline
        if pipeline.stage("feature_loader") is not None:
            return inputs

        def is_feature(name: str) -> bool:
            return name not in pipeline.targets if pipeline.features is None else name in pipeline.features

        def select(record: Any) -> Any:
            return (
                {name: value for name, value in record.items() if is_feature(name)}
                if isinstance(record, dict)
                else record
            )

        return [select(record) for record in inputs] if isinstance(inputs, list) else select(inputs)

    def _name_columns(self, inputs: Any) -> Any:
        """An array whose columns can only be the schema's, as a table of them."""
        schema = self.predictor.schema.features
        if schema.kind != "table" or getattr(inputs, "ndim", 0) != 2 or not hasattr(inputs, "strides"):
            return inputs
        if inputs.shape[1] != len(schema.fields) or self.predictor.pipeline.stage("feature_loader") is not None:
            return inputs
        import pandas as pd

        return pd.DataFrame(inputs, columns=schema.names)

    def combine_parts(self, parts: list[Part]) -> Any:
        """The features of several requests as one table, array or list."""
        join = self._rows.join if self._rows is not None else None
        if join is None:
            features = [part.features for part in parts]
        elif all(part.features is None for part in parts):
            return join(parts)
        else:
            features = []
            for is_raw, found in itertools.groupby(parts, lambda part: part.features is None):
                group = list(found)
                features += [join(group)] if is_raw else [part.features for part in group]
        return features[0] if len(features) == 1 else _concatenate_features(features)

    def join_parts(self, parts: Sequence[Part]) -> Sequence[Part]:
        """Packed cells of several requests as one part; any others as they are."""
        packed = [part.packed for part in parts]
        if len(packed) == 1 or None in packed:
            return parts
        return [Part(sum([part.rows for part in parts]), b"".join(packed))]  # type: ignore[arg-type]

    def can_combine(self, features: Any) -> bool:
        """Whether features of that kind can be put behind those of another request."""
        if hasattr(features, "toarray"):  # a sparse matrix
            return False
        is_array = hasattr(features, "columns") or hasattr(features, "dtype")
        return is_array or isinstance(features, (list, dict)) or is_dataset(features)


def _one_a_row(keys: Any, rows: int) -> Any:
    """Business keys: one object for all rows, or a list with one a row.

    Raises:
        InputError: they are neither.
    """
    if isinstance(keys, dict) and _are_plain(keys):
        return keys
    if isinstance(keys, list) and len(keys) == rows and all(isinstance(row, dict) and _are_plain(row) for row in keys):
        return keys
    raise InputError(
        [Problem("keys is neither an object of texts and numbers nor a list of one such object a row", field="keys")]
    )


def _are_plain(keys: dict[str, Any]) -> bool:
    return all(isinstance(value, (str, int, float, bool)) or value is None for value in keys.values())


def _concatenate_features(features: list[Any]) -> Any:
    first = features[0]
    if isinstance(first, list):
        return [row for part in features for row in part]
    if isinstance(first, dict):
        return {name: _concatenate_features([part[name] for part in features]) for name in first}
    if hasattr(first, "iloc"):
        import pandas as pd

        return pd.concat(features, ignore_index=True)
    if is_dataset(first):
        from torch.utils.data import ConcatDataset

        return ConcatDataset(features)
    import numpy as np

    return np.concatenate(features)
