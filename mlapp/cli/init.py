"""`mlapp init`"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Annotated

import typer

from mlapp.cli import output
from mlapp.cli.options import Json, Yes
from mlapp.cli.parameters import parse_parameters


def init_project(
    name: Annotated[
        str | None, typer.Argument(help="Name of the project and its folder. By default the template's name.")
    ] = None,
    template: Annotated[str, typer.Option(help="A template of --list, a folder, or a Git URL.")] = "basic",
    values: Annotated[
        list[str] | None, typer.Option("--set", metavar="KEY=VALUE", help="Set a variable of the template.")
    ] = None,
    ci: Annotated[
        str | None, typer.Option(help="Add the pipelines of a CI system: github or gitlab; see `mlapp eject ci`.")
    ] = None,
    is_list: Annotated[bool, typer.Option("--list", help="List the templates.")] = False,
    yes: Yes = False,
    json: Json = False,
) -> None:
    """Create a project from a template. Never overwrites files.

    A template from a URL can have hooks, which run on this machine. mlapp asks before it runs them.

    Examples:

      mlapp init digits

      mlapp init churn --template tabular --set data=churn.csv --set target=churned

      mlapp init digits --ci github

      mlapp init --list
    """
    from mlapp import scaffold
    from mlapp.ci import add_pipeline_environments, check_ci_pipeline_format, write_pipeline_files
    from mlapp.project import Project

    if ci is not None:
        check_ci_pipeline_format(ci)

    if is_list:
        _print_templates(json)
        return

    def ask_to_run_code(code: Sequence[str]) -> bool:
        if code and not yes:
            output.print_note(f"{template} runs code on this machine:\n  " + "\n  ".join(code))
            output.ask_confirmation("Run it?", yes=False)
        return bool(code) or yes

    folder = scaffold.scaffold_project(
        name, template, parse_parameters(values), Path.cwd(), ask_to_run_code, output.print_note
    )
    if ci is not None:
        add_pipeline_environments(Project.find(folder))
        write_pipeline_files(Project.find(folder), ci)
    if json:
        output.print_json({"folder": str(folder)})
        return
    steps = [f"cd {folder.name}"]
    if scaffold.has_missing_requirements(folder):
        steps.append("pip install -r requirements-dev.txt")
    steps.append("mlapp train" if (folder / "mlapp.yaml").is_file() else "follow README.md")
    output.print_note(f"{folder.name} is ready. Next:\n  " + "\n  ".join(steps))


def _print_templates(json: bool) -> None:
    from mlapp import scaffold

    templates = scaffold.list_templates()
    if json:
        output.print_json([{"name": template.name, "description": template.description} for template in templates])
    else:
        output.print_table(["template", ""], [[template.name, template.description] for template in templates])
