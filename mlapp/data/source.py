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
    """The reader's parameters. A type declares a required parameter; a value declares its type and default."""
    return [
        inspect.Parameter(name, inspect.Parameter.KEYWORD_ONLY, annotation=declaration)
        if _is_source_type(declaration)
        else inspect.Parameter(
            name,
            inspect.Parameter.KEYWORD_ONLY,
            default=declaration,
            annotation=Any if declaration is None else type(declaration),
        )
        for name, declaration in parameters.items()
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
        says: the reader's docstring: a sentence that says what it reads, without secrets.
        read: receives the values of all parameters, including defaults, and returns the data.
        parameters: the result of `declared`.
        parts: receives the values and a number of rows, and yields DataFrames of that size. `mlapp data export` uses it
            to save memory. It becomes the attribute `parts` of the returned function.
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


def make_streaming_reader(
    kind: str,
    says: str,
    read: Callable[[dict[str, Any], int | None], Any],
    *,
    parameters: Mapping[str, Any],
    placeholders: Sequence[str],
    where: str,
    chunks: int | None = None,
    options: Sequence[str] = (),
) -> Reader:
    """The reader of a source that can stream, with a parameter for each placeholder of its query or path.

    Args:
        kind, says: as for `reader`.
        read: receives the values of the parameters and a number of rows. It returns one table if the number is None,
            otherwise an iterator over parts of this size.
        parameters: the keywords in the app that declare parameters.
        placeholders, where, options: as for `refuse_undeclared_source_parameters`.
        chunks: rows per part in training; None for one table.

    Raises:
        DeclarationError: a placeholder has neither a type nor a value, or a parameter is not a placeholder.
        UsageError: `chunks` is not a number of rows.
    """
    check_source_chunk_rows(chunks)
    refuse_undeclared_source_parameters(placeholders, parameters, where, options)
    return reader(kind, says, lambda values: read(values, chunks), declared(parameters), read)


def refuse_undeclared_source_parameters(
    placeholders: Sequence[str], parameters: Mapping[str, Any], where: str, options: Sequence[str] = ()
) -> None:
    """Check, when an app is declared, that the parameters match the placeholders of a query or path.

    Args:
        placeholders: names of the placeholders.
        where: what contains the placeholders, such as "the query".
        options: other keywords of the source, for suggestions.

    Raises:
        DeclarationError: a parameter has neither a type nor a value, or is not in `where`.
    """
    for name in placeholders:
        if name not in parameters:
            raise DeclarationError(
                f"{_capitalize_text(where)} has the parameter '{name}', which has no type.",
                f"Add {name}=date (or int, str, …) to require it, or {name}=<a value> as its default.",
            )
    for name in parameters:
        if name not in placeholders:
            option_list = f" Options: {', '.join(options)}." if options else ""
            raise DeclarationError(
                f"'{name}' is not a parameter of {where}.{suggest_nearest(name, [*placeholders, *options])}",
                f"Name it in {where}, or leave it out.{option_list}",
            )


def refuse_misfit_source_parameters(placeholders: Sequence[str], values: Mapping[str, Any], where: str) -> None:
    """Check, when data is read, that each placeholder has a value and each value a placeholder.

    Raises:
        UsageError: a parameter is missing or unknown.
    """
    for name in placeholders:
        if name not in values:
            raise UsageError(
                f"{_capitalize_text(where)} has the parameter '{name}', which has no value.", f"Give it: {name}=…."
            )
    for name in values:
        if name not in placeholders:
            raise UsageError(
                f"'{name}' is not a parameter of {where}.{suggest_nearest(name, placeholders)}",
                f"Name it in {where}, or leave it out.",
            )


def to_data_source_value(value: Any) -> Any:
    """Convert NumPy and pandas values to plain Python values for database drivers, also in lists and dicts.

    A driver without support for NumPy integers can bind their bytes, and then finds no rows. Missing values (NaT, NA)
    become None.
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
    plain = value.tolist()
    return [to_data_source_value(item) for item in plain] if isinstance(plain, list) else plain


@contextmanager
def watch_source_rows(progress: Callable[[int], None]) -> Iterator[None]:
    """Report the progress of all sources in this block.

    Args:
        progress: receives the number of rows since the last call.
    """
    token = _watcher.set(progress)
    try:
        yield
    finally:
        _watcher.reset(token)


def report_source_rows(rows: int) -> None:
    """Report the number of rows in a new batch. A source calls it for every batch."""
    progress = _watcher.get()
    if progress is not None:
        progress(rows)


def _is_source_type(declaration: object) -> bool:
    return (
        isinstance(declaration, type | types.UnionType | types.GenericAlias)
        or typing.get_origin(declaration) is not None
    )


def _capitalize_text(text: str) -> str:
    return text[0].upper() + text[1:]


def check_source_chunk_rows(chunks: int | None) -> None:
    """Check the argument `chunks` of a source.

    Raises:
        UsageError: it is not a positive integer.
    """
    if chunks is not None and (not isinstance(chunks, int) or isinstance(chunks, bool) or chunks < 1):
        raise UsageError(
            f"chunks={chunks!r} is not a number of rows.",
            "Give the number of rows of each part, such as chunks=50_000.",
        )
