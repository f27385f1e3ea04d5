"""Keeps the parts of a pandas table that Parquet loses: column labels, lists in cells, sparse columns."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import msgspec

from mlapp.errors import DataError

if TYPE_CHECKING:
    import pandas as pd

Label = str | int | float | bool | None


class FrameDetails(msgspec.Struct, frozen=True, omit_defaults=True):
    """Details of a table that its Parquet file cannot hold. Columns are identified by position.

    Attributes:
        labels: the column labels, if they are not distinct strings.
        cells: `list` or `tuple`, by column. Parquet returns arrays.
        sparse: the value's dtype and the fill value, None for NaN, by column.
    """

    labels: list[Label] | None = None
    cells: dict[int, str] = {}
    sparse: dict[int, tuple[str, int | float | bool | None]] = {}


def encode_frame(frame: pd.DataFrame, name: str) -> tuple[pd.DataFrame, FrameDetails | None]:
    """A table that Parquet can store without loss, and the details to restore; None if nothing is lost.

    Raises:
        DataError: a column label is neither a string nor a number.
    """
    import numpy as np
    import pandas as pd

    labels = None
    dense = frame
    if frame.columns.nlevels == 1 and not _has_plain_frame_labels(frame):
        labels = [_check_frame_format_label(label, name) for label in frame.columns.tolist()]
        dense = frame.set_axis([str(position) for position in range(len(labels))], axis=1)
    cells: dict[int, str] = {}
    sparse: dict[int, tuple[str, int | float | bool | None]] = {}
    for position, dtype in enumerate(frame.dtypes):
        if isinstance(dtype, pd.SparseDtype):
            fill = dtype.fill_value
            sparse[position] = (
                str(dtype.subtype),
                None if pd.isna(fill) else getattr(fill, "item", lambda value=fill: value)(),
            )
        elif dtype.kind == "O" and (kind := _find_frame_cell_type(frame.iloc[:, position])):
            cells[position] = kind
    if sparse:
        dense = dense.copy(deep=False)
        for position in sparse:
            dense.isetitem(position, np.asarray(dense.iloc[:, position]))
    details = FrameDetails(labels, cells, sparse)
    return dense, None if details == FrameDetails() else details


def decode_frame(frame: pd.DataFrame, details: FrameDetails) -> pd.DataFrame:
    """The table as it was before `encode_frame`."""
    import numpy as np
    import pandas as pd

    for position, kind in details.cells.items():
        convert = tuple if kind == "tuple" else list
        values = [
            cell if cell is None else convert(_convert_frame_format_arrays(cell)) for cell in frame.iloc[:, position]
        ]
        column = np.empty(len(values), dtype=object)
        for row, value in enumerate(
            values
        ):  # `column[:] = values` would turn lists of equal length into a second dimension
            column[row] = value
        frame.isetitem(position, column)
    for position, (subtype, fill) in details.sparse.items():
        dtype = pd.SparseDtype(np.dtype(subtype), np.nan if fill is None else fill)
        frame.isetitem(position, frame.iloc[:, position].astype(dtype).array)
    return frame if details.labels is None else frame.set_axis(pd.Index(details.labels), axis=1)


def _has_plain_frame_labels(frame: pd.DataFrame) -> bool:
    return frame.columns.is_unique and all(isinstance(label, str) for label in frame.columns)


def _check_frame_format_label(label: Any, name: str) -> Label:
    if not isinstance(label, (str, int, float, bool, type(None))):
        raise DataError(
            f"'{name}' has the column label {label!r}, a {type(label).__name__}, which tasks cannot exchange.",
            "Use strings as column names in the data_reader: table.columns = table.columns.map(str).",
        )
    return label


def _find_frame_cell_type(column: pd.Series) -> str | None:
    """`list` or `tuple` if every cell that is not missing is one, otherwise None."""
    kinds = {type(cell) for cell in column if cell is not None}
    return "list" if kinds == {list} else "tuple" if kinds == {tuple} else None


def _convert_frame_format_arrays(cell: Any) -> list[Any]:
    """Convert arrays from Parquet to lists, at any depth."""
    import numpy as np

    return [_convert_frame_format_arrays(item) if isinstance(item, np.ndarray) else item for item in cell.tolist()]
