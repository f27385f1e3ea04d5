"""From the bodies of requests to features, one table or array for a batch.

The common forms are decoded by `mlapp.schema.rows`; any other body, and every wrong one, goes through the general way.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import msgspec

from mlapp import frameworks
from mlapp.errors import InputError, Problem
from mlapp.pipeline import Pipeline
from mlapp.prediction import Predictor
from mlapp.schema import ModelSchema
from mlapp.schema.container import count_rows, is_dataset
from mlapp.schema.rows import Part, RowCodec
from mlapp.serving.decoding.json_body import FEATURES, INPUTS, named_inputs_of


@dataclass(frozen=True)
class Recipe:
    """Data for another process to make the same codec: the schema and the format of features, without code.

    Attributes:
        schema: a `ModelSchema` as MessagePack.
        takes_array, ignores_extra: as of `Predictor`.
        targets, features: as of `Pipeline`.
    """

    schema: bytes
    takes_array: bool
    ignores_extra: bool
    targets: tuple[str, ...]
    features: tuple[str, ...] | None

    def make_codec(self) -> Codec:
        """A codec without a model."""
        schema = msgspec.msgpack.decode(self.schema, type=ModelSchema)
        pipeline = Pipeline("decoder", target=self.targets or None, features=self.features)
        predictor = Predictor(
            pipeline, None, frameworks.get_framework("python"), schema, ignores_extra=self.ignores_extra
        )
        predictor.__dict__["takes_array"] = self.takes_array
        return Codec(predictor)


class Codec:
    """Bodies and features of one loaded model."""

    def __init__(self, predictor: Predictor) -> None:
        self.predictor = predictor
        self.on_refusal: Callable[[InputError], None] | None = None
        """Called for inputs that do not fit the schema."""
        self.collect: Callable[[Codec], Parts] = Parts
        """Makes what takes the pieces of a large body."""
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

    @cached_property
    def recipe(self) -> Recipe | None:
        """Data for another process to decode in the same way; None if that needs the app's code."""
        predictor = self.predictor
        pipeline, schema = predictor.pipeline, predictor.schema
        if pipeline.stage("feature_loader") is not None or schema.features.container:
            return None
        return Recipe(
            msgspec.msgpack.encode(schema),
            predictor.takes_array,
            predictor.ignores_extra,
            pipeline.targets,
            pipeline.features,
        )

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
        return features[0] if len(features) == 1 else concatenate_features(features)

    def can_slice(self, part: Part) -> bool:
        """Whether `slice_part` can give some rows of a part."""
        features = part.features
        return (
            features is None or isinstance(features, list) or hasattr(features, "iloc") or hasattr(features, "strides")
        )

    def slice_part(self, part: Part, start: int, end: int) -> Part:
        """The rows of a part from `start` to before `end`, or to its last one."""
        count = min(end, part.rows) - start
        if part.packed is not None:
            size = len(part.packed) // part.rows
            return Part(count, memoryview(part.packed)[start * size : end * size])
        if part.tuples is not None:
            return Part(count, tuples=part.tuples[start:end])
        features = part.features
        rows = features.iloc[start:end].reset_index(drop=True) if hasattr(features, "iloc") else features[start:end]
        return Part(count, features=rows)

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


class Parts:
    """The features of the pieces of one body, as they are decoded one after the other."""

    def __init__(self, codec: Codec) -> None:
        self._codec = codec
        self._parts: list[Part] = []
        self.rows = 0

    def add(self, part: Part) -> None:
        """Take the next piece. No objects of its cells are kept."""
        self.rows += part.rows
        self._keep(part if part.tuples is None else Part(part.rows, features=self._codec.combine_parts([part])))

    def join(self) -> Part:
        """The features of all pieces."""
        parts = self._parts
        if len(parts) == 1:
            return parts[0]
        if all(part.packed is not None for part in parts):
            return Part(self.rows, b"".join([part.packed or b"" for part in parts]))
        return Part(self.rows, features=self._codec.combine_parts(parts))

    def _keep(self, part: Part) -> None:
        self._parts.append(part)


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


def concatenate_features(features: list[Any]) -> Any:
    """The rows of several tables, arrays or lists of one kind, one behind the other."""
    first = features[0]
    if isinstance(first, list):
        return [row for part in features for row in part]
    if isinstance(first, dict):
        return {name: concatenate_features([part[name] for part in features]) for name in first}
    if hasattr(first, "iloc"):
        import pandas as pd

        return pd.concat(features, ignore_index=True)
    if is_dataset(first):
        from torch.utils.data import ConcatDataset

        return ConcatDataset(features)
    import numpy as np

    return np.concatenate(features)
