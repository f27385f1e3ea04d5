"""Reads the data_reader's data in parts, for work that needs each row once but not the whole table."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

from mlapp.pipeline import Pipeline, bind_pipeline_parameters
from mlapp.pipeline.parameters import list_parameters
from mlapp.training import stage_calls


def iterate_reader_parts(
    pipeline: Pipeline, parameters: Mapping[str, Any] | None = None, rows: int = 50_000
) -> Iterator[Any]:
    """The table in parts of `rows` rows if the reader is a streaming source, otherwise as the reader yields it.

    Raises:
        UsageError: a parameter that neither reader nor loader takes. DataError: no data. UserCodeError: one raised.
    """
    pipeline.require_stages("data_reader")
    reader, loader = pipeline.stages["data_reader"], pipeline.stage("data_loader")
    bound = bind_pipeline_parameters(list_parameters(stage for stage in (reader, loader) if stage), parameters or {})
    values = bound.get("data_reader", {})
    parts = getattr(reader.function, "parts", None)
    if parts is not None and loader is None:
        yield from stage_calls.iterate_stage_items(reader, parts(rows, **values))
        return
    data = stage_calls.call_reader(pipeline, values)
    if isinstance(data, Iterator) and loader is None:
        for part in stage_calls.iterate_stage_items(reader, data):
            yield stage_calls.call_loader(pipeline, part, {})
        return
    yield stage_calls.call_loader(pipeline, data, bound.get("data_loader", {}))
