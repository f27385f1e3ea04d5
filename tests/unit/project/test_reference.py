"""The generated pages of the reference agree with the commands and the server."""

from __future__ import annotations

import importlib.util
from pathlib import Path
from types import ModuleType

import pytest

ROOT = Path(__file__).parents[3]


def load_script(name: str) -> ModuleType:
    spec = importlib.util.spec_from_file_location(name, ROOT / "scripts" / f"{name}.py")
    assert spec
    assert spec.loader
    script = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(script)
    return script


@pytest.mark.needs("mkdocs")  # the page is made where the site is: another typer words some lines in another way
def test_the_command_line_page_shows_every_command() -> None:
    assert (ROOT / "docs/reference/cli.md").read_text() == load_script("document_cli").render_page(), "make reference"


def test_the_http_page_shows_every_path() -> None:
    script = load_script("document_http")
    page = script.render_page(script.build_document())
    assert (ROOT / "docs/reference/http.md").read_text() == page, "run make reference"


def test_the_docker_page_shows_every_setting() -> None:
    pytest.importorskip("docker")
    for target in ("docker", "lambda"):
        page = ROOT / f"docs/reference/{target}-settings.md"
        assert page.read_text() == load_script(f"{target}_settings").render_page()


@pytest.mark.parametrize("page", sorted(ROOT.glob("docs/**/*.md")), ids=lambda page: str(page.relative_to(ROOT)))
def test_every_page_is_in_the_navigation(page: Path) -> None:
    name = str(page.relative_to(ROOT / "docs"))
    assert f": {name}\n" in (ROOT / "mkdocs.yml").read_text(), f"add {name} to nav in mkdocs.yml"


def test_the_index_of_decisions_lists_every_record() -> None:
    script = load_script("document_decisions")
    assert (ROOT / "docs/decisions/index.md").read_text(encoding="utf-8") == script.render_page(), "run make reference"
    assert {path.stem for path in (ROOT / "docs/decisions").glob("*.md")} == {"index", *script.PAGES}
