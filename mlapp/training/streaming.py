"""Training on data that is larger than memory: a trainer that takes iterators gets one part after another.

    app.data_reader.sql("${DB_URL}", "SELECT * FROM orders", chunks=50_000)

    @app.trainer
    def train(model: SGDClassifier, features: Iterator[pd.DataFrame], target: Iterator[pd.Series]) -> SGDClassifier:
        for x, y in zip(features, target):
            model.partial_fit(x, y, classes=[0, 1])
        return model

Each part is split separately. The held-out rows of the first parts, up to `HELD_OUT_ROWS`, are kept for the evaluation.
Later parts are used entirely for training. Schema and fingerprint cover all parts that the trainer consumed.
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

HELD_OUT_ROWS = 100_000
"""Maximum number of rows of each evaluated split, except the first."""
BASELINE_ROWS = 100_000
"""Number of rows of the baseline, after which no more are added."""
BASELINE_PART_ROWS = 5_000
"""Maximum number of rows of the baseline from one part."""


class TrainingStream:
    """Like `Splits`, for data that arrives in parts: the first split is a pair of iterators, which can be used once.

    Args:
        parts: the parts that the reader yields.
        bound: stage → name → value of its parameters.

    Raises:
        DataError: the data has no rows. UserCodeError: the reader raised.
    """

    def __init__(
        self,
        pipeline: Pipeline,
        parts: Iterator[Any],
        bound: Mapping[str, Mapping[str, Any]],
    ) -> None:
        self._pipeline, self._bound = pipeline, bound
        self._baseline_pairs: list[tuple[Any, Any]] = []
        self._baseline_row_count = 0
        self._digest = hashlib.sha256()
        self._held_out: dict[str, list[tuple[Any, Any]]] = {}
        self._held_out_rows: dict[str, int] = {}
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
        """Transformed features and target of the first part of the training data."""
        del features
        others = ((stage_calls.call_transformer(pipeline, features), target) for features, target in pairs)
        self.training: tuple[Any, Any] = _split_streamed_pairs(chain([self.first], others))
        """The trainer's input: the features and the targets of all parts, as iterators."""

    @property
    def identity(self) -> tuple[str, int, int]:
        """Fingerprint, rows and columns of the consumed parts. The fingerprint depends on the size of the parts."""
        return self._digest.hexdigest(), self._rows, self._columns

    @property
    def baseline_sample(self) -> Any:
        """A sample of the rows that the baseline describes."""
        import pandas as pd

        return draw_baseline_rows(pd.concat([features for features, _ in self._baseline_pairs]), PREDICTED_ROWS)

    @property
    def baseline(self) -> Baseline:
        """The baseline of a sample of all parts so far."""
        import pandas as pd

        features = pd.concat([features for features, _ in self._baseline_pairs], ignore_index=True)
        targets = [target for _, target in self._baseline_pairs]
        target = None if targets[0] is None else pd.concat(targets, ignore_index=True)
        transformed = stage_calls.call_transformer(self._pipeline, features)
        baseline = describe_split(self._pipeline, features, transformed, target)
        return msgspec.structs.replace(baseline, rows=self._rows, classes=[])  # a sample can lack classes

    @property
    def schema(self) -> Schema:
        """The schema of the features of all parts so far."""
        assert self._schema is not None
        return self._schema

    def iterate_splits(self) -> Iterator[tuple[str, Any, Any]]:
        """Name, transformed features and target of each evaluated split: the first part, and the held-out rows."""
        import pandas as pd

        yield self._name, *self.first
        for name in list(self._held_out):
            features, targets = zip(*self._held_out.pop(name), strict=True)
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
        if others and all(self._held_out_rows.get(name, 0) >= HELD_OUT_ROWS for name in others):
            splits = {self._name: table}
            others = []
        parameters, columns = self._bound.get("data_parser", {}), list_split_columns(table)
        features, target = stage_calls.call_parser(self._pipeline, splits[self._name], parameters)
        schema = infer_schema(features, columns)
        self._schema = schema if self._schema is None else merge_schemas(self._schema, schema)
        if self._baseline_row_count < BASELINE_ROWS and hasattr(features, "iloc"):
            sampled_rows = copy_split_rows(draw_baseline_rows(features, BASELINE_PART_ROWS))
            self._baseline_pairs.append(
                (
                    sampled_rows,
                    None if target is None else copy_split_rows(draw_baseline_rows(target, BASELINE_PART_ROWS)),
                )
            )
            self._baseline_row_count += len(sampled_rows)
        for name in others:
            pair = stage_calls.call_parser(self._pipeline, splits[name], parameters)
            self._held_out.setdefault(name, []).append(pair)
            self._held_out_rows[name] = self._held_out_rows.get(name, 0) + len(splits[name])
        return features, target


def _split_streamed_pairs(pairs: Iterator[tuple[Any, Any]]) -> tuple[Iterator[Any], Iterator[Any]]:
    """Split an iterator of pairs into two. Unlike `itertools.tee`, it keeps no parts that both have consumed."""
    queues: tuple[deque[Any], deque[Any]] = (deque(), deque())

    def iterate_half(side: int) -> Iterator[Any]:
        while True:
            if not queues[side]:
                pair = next(pairs, None)
                if pair is None:
                    return
                queues[0].append(pair[0])
                queues[1].append(pair[1])
                del pair
            yield queues[side].popleft()

    return iterate_half(0), iterate_half(1)
