"""The interface of data sources, for mlapp's own and for custom ones.

A source is a function in the entry-point group `mlapp.sources`. Its entry-point name becomes a method of
`app.data_reader`: `app.data_reader.sql(…)` calls the entry point `sql`.

    [project.entry-points."mlapp.sources"]
    warehouse = "my_package.warehouse:source"

It receives the arguments in the app, and returns a reader: a function that reads the data and returns a table.
It must not read, connect or use the environment yet, because the app is only being declared.

    from mlapp.data.source import declared, reader

    def source(table: str, **parameters):
        return reader("warehouse", f"The rows of {table}.", lambda values: read(table, **values), declared(parameters))

All other keywords are parameters of the reader. `since=date` declares a required parameter of type date;
`since=date(2026, 1, 1)` declares an optional one with this default. The pipeline reads them from the reader's
signature: `mlapp train -p since=2026-01-01`.
"""

from __future__ import annotations

import inspect
import types
import typing
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from contextvars import ContextVar
from typing import Any

from mlapp.errors import DeclarationError, UsageError, suggest_nearest

Reader = Callable[..., Any]

_watcher: ContextVar[Callable[[int], None] | None] = ContextVar("mlapp_rows_read", default=None)


def declared(parameters: Mapping[str, Any]) -> list[inspect.Parameter]:
    """The reader's parameters: a type makes a parameter required, a value is its default and determines its type."""
    return [
        inspect.Parameter(name, inspect.Parameter.KEYWORD_ONLY, annotation=given)
        if _is_source_type(given)
        else inspect.Parameter(
            name, inspect.Parameter.KEYWORD_ONLY, default=given, annotation=Any if given is None else type(given)
        )
        for name, given in parameters.items()
    ]


def reader(
    kind: str,
    says: str,
    read: Callable[[dict[str, Any]], Any],
    parameters: list[inspect.Parameter],
    parts: Callable[[dict[str, Any], int], Iterator[Any]] | None = None,
) -> Reader:
    """A function that calls `read` with the values of its parameters, by name.

    Args:
        kind: the source's name: the function is `read_<kind>`.
        says: the reader's docstring: what it reads, in a sentence without secrets.
        read: receives the values of all parameters, including defaults, and returns the data.
        parameters: the result of `declared`.
        parts: receives the values and a number of rows, and yields DataFrames of that size. `mlapp data export` uses it
            to limit memory use for large tables. It becomes the function's attribute `parts`.
    """
    signature = inspect.Signature(parameters)

    def read_with_values(**values: Any) -> Any:
        bound = signature.bind(**values)
        bound.apply_defaults()
        return read(dict(bound.arguments))

    def read_parts_with_values(rows: int, **values: Any) -> Iterator[Any]:
        bound = signature.bind(**values)
        bound.apply_defaults()
        assert parts is not None
        return parts(dict(bound.arguments), rows)

    if parts is not None:
        read_with_values.parts = read_parts_with_values  # type: ignore[attr-defined]  # optional attribute of readers
    read_with_values.source = kind  # type: ignore[attr-defined]  # the name in messages
    read_with_values.__name__ = read_with_values.__qualname__ = f"read_{kind}"
    read_with_values.__doc__ = says
    read_with_values.__signature__ = signature  # type: ignore[attr-defined]  # used by inspect.signature
    read_with_values.__annotations__ = {parameter.name: parameter.annotation for parameter in parameters}
    return read_with_values


def refuse_undeclared_source_parameters(
    wanted: Sequence[str], parameters: Mapping[str, Any], where: str, options: Sequence[str] = ()
) -> None:
    """Check, when an app is declared, that the parameters match those in `where`, such as "the query".

    Raises:
        DeclarationError: a parameter has neither a type nor a value, or is not in `where`.
    """
    for name in wanted:
        if name not in parameters:
            raise DeclarationError(
                f"{_capitalize_text(where)} has the parameter '{name}', which has no type.",
                f"Add {name}=date (or int, str, …) to require it, or {name}=<a value> as its default.",
            )
    for name in parameters:
        if name not in wanted:
            listed = f" Options: {', '.join(options)}." if options else ""
            raise DeclarationError(
                f"'{name}' is not a parameter of {where}.{suggest_nearest(name, [*wanted, *options])}",
                f"Name it in {where}, or leave it out.{listed}",
            )


def refuse_misfit_source_parameters(wanted: Sequence[str], values: Mapping[str, Any], where: str) -> None:
    """Check, when data is read, that each parameter has a value and each value a parameter.

    Raises:
        UsageError: a parameter is missing or unknown.
    """
    for name in wanted:
        if name not in values:
            raise UsageError(
                f"{_capitalize_text(where)} has the parameter '{name}', which has no value.", f"Give it: {name}=…."
            )
    for name in values:
        if name not in wanted:
            raise UsageError(
                f"'{name}' is not a parameter of {where}.{suggest_nearest(name, wanted)}",
                f"Name it in {where}, or leave it out.",
            )


def to_data_source_value(value: Any) -> Any:
    """Convert NumPy and pandas values to plain Python values for database drivers, also in lists and dicts.

    A driver without support for NumPy integers can bind their bytes and find no rows. Missing values (NaT, NA) are
    None.
    """
    if isinstance(value, Mapping):
        return {name: to_data_source_value(item) for name, item in value.items()}
    if isinstance(value, (list, tuple, set, frozenset)):
        return type(value)(map(to_data_source_value, value))
    if type(value).__name__ in ("NaTType", "NAType"):
        return None
    for convert in ("to_pydatetime", "to_pytimedelta"):
        if hasattr(value, convert) and getattr(value, "ndim", 0) == 0:  # pandas' Timestamp and Timedelta
            return getattr(value.floor("us"), convert)()  # pandas warns when it drops nanoseconds itself
    if type(value).__module__.partition(".")[0] not in ("numpy", "pandas") or not hasattr(value, "dtype"):
        return value
    if value.dtype.kind in "mM":
        import numpy as np

        value = np.asarray(value).astype(f"{value.dtype.kind}8[us]")
    found = value.tolist()
    return [to_data_source_value(item) for item in found] if isinstance(found, list) else found


@contextmanager
def watch_source_rows(progress: Callable[[int], None]) -> Iterator[None]:
    """Within the block, every source calls `progress` with the number of rows received since the last call."""
    token = _watcher.set(progress)
    try:
        yield
    finally:
        _watcher.reset(token)


def report(rows: int) -> None:
    """Report the number of newly received rows. A source calls it for every batch."""
    progress = _watcher.get()
    if progress is not None:
        progress(rows)


def _is_source_type(given: object) -> bool:
    return isinstance(given, type | types.UnionType | types.GenericAlias) or typing.get_origin(given) is not None


def _capitalize_text(text: str) -> str:
    return text[0].upper() + text[1:]


def check_source_chunk_rows(chunks: int | None) -> None:
    """Check the number of rows per chunk.

    Raises:
        UsageError: it is not a positive integer.
    """
    if chunks is not None and (not isinstance(chunks, int) or isinstance(chunks, bool) or chunks < 1):
        raise UsageError(
            f"chunks={chunks!r} is not a number of rows.",
            "Give the number of rows of each part, such as chunks=50_000.",
        )
