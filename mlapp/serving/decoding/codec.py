"""Converts request bodies to features, one table or array per batch.

`mlapp.schema.row_codec` decodes the common forms. All other bodies, and wrong ones, go through the general code.
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
from mlapp.schema.feature_containers import concatenate_features, count_feature_rows
from mlapp.schema.part import Part
from mlapp.schema.row_codec import RowCodec
from mlapp.serving.decoding.body_parts import Parts
from mlapp.serving.decoding.json_body import (
    FEATURES,
    INPUTS,
    MAX_VALUES_AT_ONCE,
    check_business_keys,
    extract_named_inputs,
)
from mlapp.serving.web.problems import HttpError

MAX_COLUMNS = 1000
"""Maximum columns or tensors of a body, unless the model takes more."""
MAX_LOADER_COLUMNS = 10_000
"""The same for an app with a feature_loader, whose inputs can have more columns than the model's features."""


@dataclass(frozen=True)
class Recipe:
    """Data to create the same codec in another process: the schema and the format of features, without code.

    Attributes:
        schema: a `ModelSchema` as MessagePack.
        takes_array, ignores_extra: as of `Predictor`.
        targets, features: as of `Pipeline`.
        is_raw: as of `Codec`.
        has_loader: whether the app has a feature_loader.
    """

    schema: bytes
    takes_array: bool
    ignores_extra: bool
    targets: tuple[str, ...]
    features: tuple[str, ...] | None
    is_raw: bool
    has_loader: bool

    def make_codec(self) -> Codec:
        """A codec without a model."""
        schema = msgspec.msgpack.decode(self.schema, type=ModelSchema)
        pipeline = Pipeline("decoder", target=self.targets or None, features=self.features)
        predictor = Predictor(
            pipeline, None, frameworks.get_framework("python"), schema, ignores_extra=self.ignores_extra
        )
        predictor.__dict__["takes_array"] = self.takes_array
        return Codec(predictor, is_raw=self.is_raw, has_loader=self.has_loader)


class Codec:
    """Bodies and features of one loaded model.

    Args:
        is_raw: a body is decoded to its inputs, not to features, without the app's code.
        has_loader: whether the app has a feature_loader; None to ask the predictor's pipeline.
    """

    def __init__(self, predictor: Predictor, *, is_raw: bool = False, has_loader: bool | None = None) -> None:
        self.predictor = predictor
        self.is_raw = is_raw
        pipeline_has_loader = predictor.pipeline.stage("feature_loader") is not None
        self.has_loader = pipeline_has_loader if has_loader is None else has_loader
        self.on_refusal: Callable[[InputError], None] | None = None
        """Called for inputs that do not fit the schema."""
        self.create_collector: Callable[[Codec], Parts] = Parts
        """Creates the collector of the parts of a large body."""
        self._rows = (
            None
            if self.has_loader or is_raw
            else RowCodec(predictor.schema.features, (INPUTS,), takes_array=predictor.takes_array)
        )

    @cached_property
    def reader(self) -> Codec:
        """The codec that decodes a body without the app's code: a raw one if the features need it, otherwise this one.

        `load_part` converts the result of a raw codec to features.
        """
        needs_app = self.has_loader or self.predictor.schema.features.container
        return Codec(self.predictor, is_raw=True) if needs_app and not self.is_raw else self

    @property
    def is_by_row(self) -> bool:
        """Whether the features of a list of inputs are the concatenated features of its parts."""
        schema = self.predictor.schema.features
        if schema.kind == "any" or self.has_loader or self.is_raw:
            return False
        return all(field.type != "any" for field in schema.fields)  # its column's type depends on all the values

    @cached_property
    def recipe(self) -> Recipe | None:
        """Data to decode in the same way in another process; None if that needs the app's code."""
        predictor = self.predictor
        pipeline, schema = predictor.pipeline, predictor.schema
        if self.reader is not self:
            return None
        return Recipe(
            msgspec.msgpack.encode(schema),
            predictor.takes_array,
            predictor.ignores_extra,
            pipeline.targets,
            pipeline.features,
            self.is_raw,
            self.has_loader,
        )

    @property
    def width(self) -> int:
        """The number of cells per row."""
        schema = self.predictor.schema.features
        return max(len(schema.fields), math.prod(schema.shape), 1)

    @property
    def max_columns(self) -> int:
        """The maximum number of columns of a body. A column costs as much as thousands of rows."""
        return max(
            MAX_LOADER_COLUMNS if self.has_loader else MAX_COLUMNS, 2 * len(self.predictor.schema.features.names)
        )

    def decode_json(self, body: bytes, first_row: int = 0) -> Part:
        """The features in the JSON body of `/predict`.

        Args:
            first_row: the number of its first row, if it is a part of a larger body.

        Raises:
            HttpError: 400, it is not JSON; 422, it is neither a list nor an object with `inputs`.
            InputError: the inputs do not fit the schema. UserCodeError: the feature_loader raised.
        """
        part = self._rows.decode(body) if self._rows is not None else None
        if part is not None:
            return part
        inputs, key, keys = extract_named_inputs(body)
        part = self.accept_inputs(self._extract_features(inputs) if key == FEATURES else inputs, first_row)
        part.is_unionml = key == FEATURES
        if keys is not None:
            part.keys = keys if self.is_raw else check_business_keys(keys, part.rows)
        return part

    def decode_several(self, bodies: list[bytes]) -> list[Part | None]:
        """The features in each of several short JSON bodies; None for a body that only `decode_json` reads."""
        return [None] * len(bodies) if self._rows is None else self._rows.decode_several(bodies)

    def load_part(self, raw: Part) -> Part:
        """The features in the result of `reader`.

        Raises:
            InputError: they do not fit the schema. UserCodeError: the feature_loader raised.
        """
        if self.reader is self:
            return raw
        part = self.accept_inputs(raw.features)
        part.is_unionml = raw.is_unionml
        if raw.keys is not None:
            part.keys = check_business_keys(raw.keys, part.rows)
        return part

    def decode_numbers(self, body: bytes) -> Part | None:
        """`decode_json` for rows of numbers that are read faster than a thread starts; otherwise None."""
        return self._rows.decode_numbers(body) if self._rows is not None else None

    def accept_inputs(self, inputs: Any, first_row: int = 0) -> Part:
        """Convert plain inputs, a DataFrame or an array to features.

        Args:
            first_row: as for `decode`.

        Raises:
            InputError: they do not fit the schema. UserCodeError: the feature_loader raised.
        """
        if self.is_raw:
            count_json_objects(inputs)
            return Part(1, features=inputs)
        rows = self._rows
        if rows is not None:
            part = rows.convert(inputs) if isinstance(inputs, list) else rows.from_matrix(inputs)
            if part is not None:
                return part
        try:
            features = self.predictor.accept_inputs(self._name_array_columns(inputs), first_row)
        except InputError as error:
            if self.on_refusal is not None:
                self.on_refusal(error)
            raise
        count = count_feature_rows(features)
        count = 1 if count is None else count
        if not count:
            raise InputError([Problem("inputs is empty: there is nothing to predict")])
        part = rows.from_matrix(features) if rows is not None else None
        return part or Part(count, features=features)

    def _extract_features(self, inputs: Any) -> Any:
        """The features in a UnionML client's inputs: whole rows, as a reader returns them."""
        pipeline = self.predictor.pipeline
        if self.has_loader:
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

    def _name_array_columns(self, inputs: Any) -> Any:
        """An array as a table, if its columns can only be the schema's."""
        schema = self.predictor.schema.features
        if schema.kind != "table" or getattr(inputs, "ndim", 0) != 2 or not hasattr(inputs, "strides"):
            return inputs
        if inputs.shape[1] != len(schema.fields) or self.has_loader:
            return inputs
        import pandas as pd

        return pd.DataFrame(inputs, columns=schema.names)

    def combine_parts(self, parts: list[Part]) -> Any:
        """The features of several requests as one table, array or list."""
        join = self._rows.join if self._rows is not None else None
        if join is not None and len(parts) == 1 and parts[0].features is None:
            return join(parts)
        if join is None:
            features = [part.features for part in parts]
        elif all(part.features is None for part in parts):
            return join(parts)
        else:
            features = []
            for is_encoded, group in itertools.groupby(parts, lambda part: part.features is None):
                members = list(group)
                features += [join(members)] if is_encoded else [part.features for part in members]
        return features[0] if len(features) == 1 else concatenate_features(features)

    @staticmethod
    def join_parts(parts: list[Part], rows: int) -> list[Part]:
        """One part with all `rows` rows, if all parts are packed; otherwise the same parts."""
        if len(parts) == 1:
            return parts
        try:
            return [Part(rows, b"".join([part.packed for part in parts]))]  # type: ignore[misc]
        except TypeError:
            return parts

    def can_slice(self, part: Part) -> bool:
        """Whether `slice_part` supports the part's features."""
        features = part.features
        return (
            features is None or isinstance(features, list) or hasattr(features, "iloc") or hasattr(features, "strides")
        )

    def slice_part(self, part: Part, start: int, end: int) -> Part:
        """The rows of a part from `start` to the one before `end`, or to the last one."""
        count = min(end, part.rows) - start
        if part.packed is not None:
            size = len(part.packed) // part.rows
            return Part(count, memoryview(part.packed)[start * size : end * size])
        if part.tuples is not None:
            return Part(count, tuples=part.tuples[start:end])
        features = part.features
        rows = features.iloc[start:end].reset_index(drop=True) if hasattr(features, "iloc") else features[start:end]
        return Part(count, features=rows)

    @staticmethod
    def strip_parts(parts: Sequence[Part]) -> Sequence[Any]:
        """The input of `combine_stripped`: the packed cells of all parts in one piece, or the parts if one has none."""
        packed: list[Any] = [part.packed for part in parts]
        return [b"".join(packed)] if all(packed) else parts

    def combine_stripped(self, parts: list[Any]) -> Any:
        """The features of stripped parts as one table, array or list."""
        try:
            return self.combine_parts([Part(0, bytearray().join(parts))])  # type: ignore[arg-type]
        except TypeError:  # not all are packed
            return self.combine_parts([part if isinstance(part, Part) else Part(0, part) for part in parts])


def count_json_objects(inputs: Any, before: int = 0) -> int:
    """The number of Python objects in the columns of a table, plus `before`.

    Raises:
        HttpError: 413, there are too many to transfer without blocking the server.
    """
    if hasattr(inputs, "iloc"):
        before += len(inputs) * sum(dtype.kind == "O" for dtype in inputs.dtypes)
    if before > MAX_VALUES_AT_ONCE:
        raise HttpError(
            413, f"The body has more than {MAX_VALUES_AT_ONCE} strings for a feature_loader. Send fewer rows."
        )
    return before
