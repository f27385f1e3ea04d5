"""New projects from cookiecutter templates."""

from __future__ import annotations

import json
import os
import re
import shutil
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from mlapp import column_roles, distribution, foreign_template
from mlapp.bundle import self_wheel
from mlapp.errors import DataError, MissingExtraError, MlappError, UsageError, list_names, suggest_nearest
from mlapp.provenance import read_installed_versions, strip_build_version
from mlapp.reporting import Reporter
from mlapp.temporary_folders import open_temporary_folder

NAME = re.compile(r"[A-Za-z0-9]([A-Za-z0-9._-]{0,62}[A-Za-z0-9])?")
COPIED = 100 * 1024 * 1024
"""Maximum bytes of a data file that is copied into the project. A larger one stays where it is."""

WHEELS = "wheels"
"""The project's folder of wheels that no package index has."""

SEPARATORS = ",;\t|"


@dataclass(frozen=True)
class Template:
    """One of mlapp's own templates."""

    name: str
    description: str
    folder: Path


def list_templates() -> list[Template]:
    """The templates that come with mlapp."""
    templates = []
    for folder in sorted(_find_templates_folder().iterdir()):
        file = folder / "cookiecutter.json"
        if file.is_file():
            templates.append(
                Template(folder.name, json.loads(file.read_text(encoding="utf-8"))["_description"], folder)
            )
    return templates


Consent = Callable[[Sequence[str]], bool]
"""Receives a list of the code in a template, and returns whether it may run. False runs the template in a sandbox."""


def scaffold_project(
    name: str | None,
    template: str,
    values: Mapping[str, str],
    parent: Path,
    consent: Consent = lambda code: False,
    report: Reporter = lambda text: None,
) -> Path:
    """Create a project folder in `parent`, atomically and without overwriting anything.

    Args:
        name: of the project and its folder; the template's own when absent.
        template: one of `list_templates()`, a folder, or a git URL.
        values: of the template's variables.
        consent: called before code of a third-party template runs: its hooks and Jinja extensions.
        report: receives a line about the columns of a table that the project leaves out.

    Raises:
        UsageError: an unknown template or variable, an invalid name, a folder that exists; code of
            a template without consent.
        DataError: the data file of the template `tabular` cannot be used.
    """
    own_templates = {own_template.name: own_template for own_template in list_templates()}
    if template not in own_templates and not Path(template).exists() and not re.search(r"[:/]", template):
        raise UsageError(
            f"There is no template '{template}'.{suggest_nearest(template, own_templates)}",
            f"Choose one of {', '.join(own_templates)}; or give a folder or a git URL.",
        )
    context: dict[str, Any] = dict(values)
    if name is not None:
        if not NAME.fullmatch(name):
            raise UsageError(
                f"'{name}' cannot name a project.",
                "Use letters, digits, '.', '_' and '-', beginning with a letter or digit.",
            )
        context["name"] = name
    data: Path | None = None
    if template in own_templates:
        defaults = json.loads((own_templates[template].folder / "cookiecutter.json").read_text(encoding="utf-8"))
        _refuse_unknown_template_values(values, defaults, template)
        name = name or str(defaults["name"])
        _refuse_existing_project(parent / name)
        if "data" in defaults:
            data, variables = _describe_scaffold_table(values)
            context.update(variables)
            if variables["left_out"]:
                report(f"Columns left out of the features: {variables['left_out']}.")
    with open_temporary_folder("init", parent) as temporary:
        project = _render_template_asking(own_templates.get(template), template, context, temporary, consent)
        for compiled in list(project.rglob("__pycache__")):  # pip compiles mlapp's own templates when it installs them
            shutil.rmtree(compiled)
        if data is not None and not Path(context["data"]).is_absolute():
            (project / context["data"]).parent.mkdir(exist_ok=True)
            shutil.copyfile(data, project / context["data"])
        for file in project.rglob("requirements*.txt"):
            _pin_template_requirements(file, project)
        target = parent / project.name
        _refuse_existing_project(target)
        project.rename(target)
    return target


def _find_templates_folder() -> Path:
    shipped = Path(__file__).parent / "templates"
    return shipped if shipped.is_dir() else Path(__file__).parent.parent / "templates"


def _render_template_asking(
    own_template: Template | None, template: str, context: Mapping[str, Any], folder: Path, consent: Consent
) -> Path:
    if own_template is not None:
        return _render_template(str(own_template.folder), context, folder)
    if Path(template).exists():  # the user's own
        return _render_template(template, context, folder)
    with foreign_template.fetch_template(template) as place:
        code = foreign_template.find_template_code(place)
        if consent(code):
            return _render_template(str(place), context, folder)
        if code:
            raise UsageError(
                f"Template '{template}' runs code on this machine: {', '.join(code)}.",
                "Read the code; if you trust it, allow it: mlapp init … --yes.",
            )
        with foreign_template.render_in_sandbox(folder):
            return _render_template(str(place), context, folder)


def _render_template(template: str, context: Mapping[str, Any], folder: Path) -> Path:
    from cookiecutter.exceptions import CookiecutterException
    from cookiecutter.main import cookiecutter

    try:
        project = cookiecutter(
            template, no_input=True, extra_context=dict(context), output_dir=str(folder), default_config=True
        )
    except CookiecutterException as error:
        raise UsageError(
            f"Template '{template}' cannot be used: {error}",
            "Check the folder or URL; a template has a cookiecutter.json.",
        ) from error
    return Path(project)


def _refuse_unknown_template_values(values: Mapping[str, str], defaults: Mapping[str, Any], template: str) -> None:
    names = [key for key in defaults if not key.startswith("_")]
    for key in values:
        if key not in names:
            raise UsageError(
                f"Template '{template}' has no variable '{key}'.{suggest_nearest(key, names)}",
                f"It has: {', '.join(names)}.",
            )


def _refuse_existing_project(target: Path) -> None:
    if target.is_dir() and not any(target.iterdir()):
        return
    if target.exists():
        raise UsageError(f"{target} already exists.", "Choose another name: `mlapp init` never overwrites files.")


def _describe_scaffold_table(values: Mapping[str, str]) -> tuple[Path, dict[str, Any]]:
    """The path of the user's table, and the variables of the template `tabular` for it."""
    if not values.get("data") or not values.get("target"):
        raise UsageError(
            "Template 'tabular' needs a table and its target column.",
            "Give both: mlapp init NAME --template tabular --set data=table.csv --set target=column.",
        )
    path, target = Path(values["data"]).expanduser(), values["target"]
    form = _detect_scaffold_table_format(path)
    if path.suffix.lower() != ".parquet":
        form = {**form, **column_roles.infer_column_read_options(_read_scaffold_table(path, {**form, "dtype": "str"}))}
    table = _read_scaffold_table(path, {name: value for name, value in form.items() if name != "date_format"})
    if target not in table.columns:
        raise UsageError(
            f"'{path}' has no column '{target}'.{suggest_nearest(target, map(str, table.columns))}",
            f"It has: {list_names(table.columns)}.",
        )
    odd = next((str(name) for name in table.columns if re.search(r"\{[{%#]", str(name))), None)
    if odd is not None:  # the names are rendered into the project's files
        raise DataError(
            f"'{path}' has the column {odd!r}, which looks like template code.", "Rename it, without braces."
        )
    dates = [str(name) for name in table.columns if name != target and _is_scaffold_date_column(table[name])]
    dates += [name for name in form.get("date_format", {}) if name != target and name not in dates]
    left_out = column_roles.find_identifier_columns(table.drop(columns=dates), target)
    column = table[target]
    is_number = column.dtype.kind in "if"
    is_class = not is_number or (column.dtype.kind == "i" and column.nunique() <= 20)
    used = [str(name) for name in table.columns if name != target and name not in left_out]
    where = f"data/{path.name}" if path.stat().st_size <= COPIED else str(path.resolve())
    return path, {
        "data": where,
        "target": target,
        "task": "classification" if is_class else "regression",
        "dates": ", ".join(repr(name) for name in dates),
        "features": f", features={used!r}" if left_out else "",
        "left_out": ", ".join(f"{name!r} ({reason})" for name, reason in left_out.items()),
        "csv": "".join(f", {option}={value!r}" for option, value in form.items()),
    }


def _detect_scaffold_table_format(path: Path) -> dict[str, Any]:
    """The options of `pandas.read_csv` for a CSV with other separators than commas, as many spreadsheets write it."""
    import pandas as pd

    if not path.is_file() or path.suffix.lower() == ".parquet":
        return {}
    with path.open(encoding="utf-8", errors="replace") as file:
        names = file.readline(1 << 20)
    separator = max(SEPARATORS, key=names.count)
    if separator == ",":
        return {}
    forms: list[dict[str, Any]] = [{"sep": separator}, {"sep": separator, "decimal": ","}]

    def count_numbers(form: dict[str, Any]) -> int:
        table: pd.DataFrame = pd.read_csv(path, nrows=1000, **form)
        return len(table.select_dtypes("number").columns)

    try:
        return max(forms, key=count_numbers)
    except (ValueError, OSError):  # `_read_scaffold_table` reports the problem
        return forms[0]


def _read_scaffold_table(path: Path, form: Mapping[str, Any]) -> Any:
    import pandas as pd

    if not path.is_file():
        raise UsageError(f"There is no data file '{path}'.", "Give the path of a CSV or Parquet file.")
    try:
        is_parquet = path.suffix.lower() == ".parquet"
        table = pd.read_parquet(path) if is_parquet else pd.read_csv(path, nrows=10_000, **form)
    except ImportError:
        raise MissingExtraError("Reading Parquet", "parquet") from None
    except MlappError:
        raise
    except Exception as error:  # pandas and pyarrow raise many types
        raise DataError(
            f"'{path}' is not a CSV or Parquet file: {error}", "Save it as UTF-8 CSV or as Parquet."
        ) from None
    if table.empty:
        raise DataError(f"'{path}' has no rows.", "Give a table with rows.")
    return table


def _is_scaffold_date_column(column: Any) -> bool:
    import pandas as pd

    if column.dtype.kind == "M":
        return True
    values = column.dropna()
    if column.dtype.kind in "biufc" or not len(values) or not all(isinstance(value, str) for value in values.head(100)):
        return False
    if not values.str.match(r"\d{4}-\d{2}-\d{2}").all():
        return False
    return bool(pd.to_datetime(values, errors="coerce", format="ISO8601").notna().all())


def has_missing_requirements(project: Path) -> bool:
    """Whether a requirements.txt of the project names a package that is not installed."""
    lines = [line for file in project.rglob("requirements.txt") for line in file.read_text("utf-8").splitlines()]
    names = {name for line in lines if (name := _parse_requirement_name(line))}
    return len(read_installed_versions(sorted(names))) < len(names)


def _parse_requirement_name(line: str) -> str | None:
    match = re.match(r"[A-Za-z0-9._-]+", line)
    return match.group() if match and not line.startswith("-") else None


def _pin_template_requirements(file: Path, project: Path) -> None:
    """Pin each requirement to the installed version. One that is not installed keeps the template's range.

    An mlapp that is not from a package index is copied into the project as a wheel.
    """
    lines: list[str] = []
    for line in file.read_text(encoding="utf-8").splitlines():
        name = _parse_requirement_name(line)
        is_own = name == distribution.NAME
        if is_own and not self_wheel.is_installed_from_index():
            wheel = self_wheel.write_own_wheel(project / WHEELS, _find_templates_folder())
            lines.insert(0, f"--find-links {os.path.relpath(wheel.parent, file.parent)}")
        installed = read_installed_versions([name]).get(name) if name else None
        version = self_wheel.format_own_version() if is_own else installed and strip_build_version(installed)
        lines.append(re.sub(r"\s*[<>=~!].*", "", line) + f"=={version}" if version else line)
    file.write_text("\n".join(lines) + "\n", encoding="utf-8")
