"""Training on data larger than memory: a trainer that takes iterators gets the parts one after another.

    app.data_reader.sql("${DB_URL}", "SELECT * FROM orders", chunks=50_000)

    @app.trainer
    def train(model: SGDClassifier, features: Iterator[pd.DataFrame], target: Iterator[pd.Series]) -> SGDClassifier:
        for x, y in zip(features, target):
            model.partial_fit(x, y, classes=[0, 1])
        return model

Each part is split separately. The held-out rows of the first parts, up to `HELD_OUT`, are kept for the evaluation;
later parts are used entirely for training. Schema and fingerprint cover all parts that the trainer consumed.
"""

from __future__ import annotations

import hashlib
from collections import deque
from collections.abc import Iterator, Mapping
from itertools import chain
from typing import Any

import msgspec

from mlapp.baseline import Baseline, draw_baseline_rows
from mlapp.data.fingerprint import fingerprint_table
from mlapp.errors import DataError
from mlapp.pipeline import Pipeline
from mlapp.schema import Schema, infer_schema
from mlapp.schema.merge import merge_schemas
from mlapp.training import defaults, stage_calls
from mlapp.training.sampling import sample_feature_rows
from mlapp.training.splits import PREDICTED_ROWS, copy_split_rows, describe_split, list_split_columns

HELD_OUT = 100_000
"""Rows of each split but the first, kept for the evaluation."""
DESCRIBED = 100_000
DESCRIBED_PART = 5_000
"""Rows of the baseline, and of each part at most."""


class TrainingStream:
    """`Splits` of a reader's parts: the first split as iterators, once; then the other splits.

    Args:
        parts: what the reader yields.
        bound: stage → its parameters.

    Raises:
        DataError: the data have no rows. UserCodeError: the reader raised.
    """

    def __init__(
        self,
        pipeline: Pipeline,
        parts: Iterator[Any],
        bound: Mapping[str, Mapping[str, Any]],
    ) -> None:
        self._pipeline, self._bound = pipeline, bound
        self._described: list[tuple[Any, Any]] = []
        self._described_rows = 0
        self._digest = hashlib.sha256()
        self._held: dict[str, list[tuple[Any, Any]]] = {}
        self._held_rows: dict[str, int] = {}
        self._schema: Schema | None = None
        self._rows = self._columns = 0
        reader = pipeline.stages["data_reader"]
        parts = stage_calls.iterate_stage_items(reader, parts)
        tables = (table for table in map(defaults.load_default_table, parts) if len(table))
        first = next(tables, None)
        if first is None:
            raise DataError(f"{reader.title} returned no rows.", "Check its source and its parameters.")
        pairs = self._iterate_streamed_pairs(chain([first], tables))
        del first
        features, target = next(pairs)
        self.sample = sample_feature_rows(features)
        """Some rows of the features of the first part, before the transformer."""
        self.first = stage_calls.call_transformer(pipeline, features), target
        """Transformed features and target of the first part that is trained on."""
        del features
        others = ((stage_calls.call_transformer(pipeline, features), target) for features, target in pairs)
        self.training: tuple[Any, Any] = _split_streamed_pairs(chain([self.first], others))
        """The trainer's input: the features and the targets of all parts, as iterators."""

    @property
    def identity(self) -> tuple[str, int, int]:
        """Fingerprint, rows and columns of the parts that the trainer consumed, in order. The same rows in parts of
        another size have another fingerprint.
        """
        return self._digest.hexdigest(), self._rows, self._columns

    @property
    def baseline_sample(self) -> Any:
        """A sample of the rows that the baseline describes."""
        import pandas as pd

        return draw_baseline_rows(pd.concat([features for features, _ in self._described]), PREDICTED_ROWS)

    @property
    def baseline(self) -> Baseline:
        """The distribution of a sample of all parts so far, up to `DESCRIBED` rows."""
        import pandas as pd

        features = pd.concat([features for features, _ in self._described], ignore_index=True)
        targets = [target for _, target in self._described]
        target = None if targets[0] is None else pd.concat(targets, ignore_index=True)
        transformed = stage_calls.call_transformer(self._pipeline, features)
        found = describe_split(self._pipeline, features, transformed, target)
        return msgspec.structs.replace(found, rows=self._rows, classes=[])  # of a sample: others may exist

    @property
    def schema(self) -> Schema:
        """The schema of the features of all parts so far."""
        assert self._schema is not None
        return self._schema

    def iterate_splits(self) -> Iterator[tuple[str, Any, Any]]:
        """Name, transformed features and target of each evaluated split: the first part, and the held-out rows."""
        import pandas as pd

        yield self._name, *self.first
        for name in list(self._held):
            features, targets = zip(*self._held.pop(name), strict=True)
            target = None if targets[0] is None else pd.concat(targets, ignore_index=True)
            yield name, stage_calls.call_transformer(self._pipeline, pd.concat(features, ignore_index=True)), target

    def _iterate_streamed_pairs(self, tables: Iterator[Any]) -> Iterator[tuple[Any, Any]]:
        for table in tables:
            self._digest.update(fingerprint_table(table).encode())
            self._rows, self._columns = self._rows + len(table), len(table.columns)
            yield self._split_streamed_part(table)

    def _split_streamed_part(self, table: Any) -> tuple[Any, Any]:
        splits = stage_calls.call_splitter(self._pipeline, table, self._bound.get("data_splitter", {}))
        self._name, *others = splits
        if others and all(self._held_rows.get(name, 0) >= HELD_OUT for name in others):
            splits = {self._name: table}
            others = []
        parameters, columns = self._bound.get("data_parser", {}), list_split_columns(table)
        features, target = stage_calls.call_parser(self._pipeline, splits[self._name], parameters)
        found = infer_schema(features, columns)
        self._schema = found if self._schema is None else merge_schemas(self._schema, found)
        if self._described_rows < DESCRIBED and hasattr(features, "iloc"):
            some = copy_split_rows(draw_baseline_rows(features, DESCRIBED_PART))
            self._described.append(
                (some, None if target is None else copy_split_rows(draw_baseline_rows(target, DESCRIBED_PART)))
            )
            self._described_rows += len(some)
        for name in others:
            pair = stage_calls.call_parser(self._pipeline, splits[name], parameters)
            self._held.setdefault(name, []).append(pair)
            self._held_rows[name] = self._held_rows.get(name, 0) + len(splits[name])
        return features, target


def _split_streamed_pairs(pairs: Iterator[tuple[Any, Any]]) -> tuple[Iterator[Any], Iterator[Any]]:
    """The first and the second items of pairs. `itertools.tee` keeps up to 57 parts that both have consumed."""
    waiting: tuple[deque[Any], deque[Any]] = (deque(), deque())

    def iterate_half(mine: int) -> Iterator[Any]:
        while True:
            if not waiting[mine]:
                pair = next(pairs, None)
                if pair is None:
                    return
                waiting[0].append(pair[0])
                waiting[1].append(pair[1])
                del pair
            yield waiting[mine].popleft()

    return iterate_half(0), iterate_half(1)
