"""`mlapp feedback`"""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any

import typer

from mlapp.cli import output
from mlapp.cli.options import Environment, Json
from mlapp.errors import DataError, TruthError, UsageError


def send_feedback(
    file: Annotated[
        Path, typer.Argument(help="A CSV, Parquet, JSON or JSON-lines file with id and truth, or keys and truth.")
    ],
    json: Json = False,
    environment: Environment = None,
) -> None:
    """Report the true values of past predictions.

    The file has the columns `id` (the response's X-Request-ID, or REQUEST#ROW) and `truth`, or key columns and
    `truth`. A server accepts the same at POST /feedback.

    Example:

      mlapp feedback paid-loans.csv
    """
    from mlapp.monitoring.column_privacy import ColumnPrivacy
    from mlapp.monitoring.history import read_history_baselines
    from mlapp.monitoring.inspection import open_place_for_inspection
    from mlapp.monitoring.truth import Truths, describe_unknown_truth_classes, make_truths_from_table
    from mlapp.project import Project

    project = Project.find(environment=environment)
    numbers = project.store.list_numbers(project.name)
    baselines = read_history_baselines(project.store, project.name, map(str, numbers[-1:]))
    rules = ColumnPrivacy(project.settings.monitor.columns, project.name)
    truths = Truths(open_place_for_inspection(project), rules, next(iter(baselines.values()), None))
    content = _read_truths_file(file, truths.target_type)
    has_entry_form = isinstance(content, list) and all(
        isinstance(row, dict) and {"id", "keys"} & set(row) for row in content
    )
    try:
        checked = truths.check_truths(content if has_entry_form else make_truths_from_table(content))
        accepted = truths.write_truths(checked)
    except TruthError as error:
        raise DataError(f"{file}: {error.what}", "Give the columns id and truth, or key columns and truth.") from error
    summary = truths.describe_accepted(accepted, checked)
    if "unknown_classes" in summary:
        output.print_note(describe_unknown_truth_classes(summary["unknown_classes"]))
    if project.settings.monitor.logs == "off":
        output.print_warning(
            "Truths are compared with logged predictions, but monitor.log is off, so quality stays unknown. "
            "Set monitor.log in mlapp.yaml to sample or all, and restart the server."
        )
    if json:
        output.print_json(summary)
    else:
        output.print_result(f"{accepted} truth{'' if accepted == 1 else 's'} accepted")


def _read_truths_file(file: Path, kind: str | None) -> Any:
    """The content of a file. IDs and keys in CSV stay strings: `007` is not 7, and `NA` can be a country.

    Args:
        kind: JSON type of the target, if known.
    """
    from mlapp.features_file import read_features_file
    from mlapp.schema import Schema

    if not file.is_file():
        raise UsageError(f"There is no file '{file}'.", "Give the path of a CSV, Parquet, JSON or JSON-lines file.")
    if file.suffix.lower() != ".csv":
        return read_features_file(str(file), Schema(kind="any"))
    import pandas as pd

    try:
        names = pd.read_csv(file, nrows=0).columns
        types = {name: str for name in names if name != "truth" or kind == "string"}
        return pd.read_csv(file, dtype=types, keep_default_na=False, na_values={"truth": ["", "NaN", "nan"]})
    except (ValueError, UnicodeDecodeError) as error:
        raise DataError(f"'{file}' is not a CSV file: {error}", "Save it as UTF-8 CSV with a header.") from None
