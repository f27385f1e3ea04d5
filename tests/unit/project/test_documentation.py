"""The documentation: every link leads somewhere, and its search needs no network."""

from __future__ import annotations

import ast
import re
from pathlib import Path

import pytest
import yaml

ROOT = Path(__file__).parents[3]
PAGES = [*ROOT.glob("*.md"), *ROOT.glob("docs/**/*.md"), *ROOT.glob("benchmarks/*.md")]


@pytest.mark.parametrize("page", PAGES, ids=lambda page: str(page.relative_to(ROOT)))
def test_every_link_leads_somewhere(page: Path) -> None:
    for link in re.findall(r"\]\((?!https?:|mailto:)([^)\s]+)\)", page.read_text(encoding="utf-8")):
        file, _, anchor = link.partition("#")
        target = page.parent / file if file else page
        assert target.exists(), f"{page.name} links to {link}"
        if anchor and target.suffix == ".md":
            headings = re.findall(r"^#+ (.+)$", target.read_text(encoding="utf-8"), re.MULTILINE)
            anchors = {re.sub(r"[^\w\- ]", "", heading.lower()).replace(" ", "-") for heading in headings}
            assert anchor in anchors, f"{page.name} links to {link}"


def test_the_search_of_the_site_needs_no_network() -> None:
    (script,) = yaml.safe_load((ROOT / "mkdocs.yml").read_text(encoding="utf-8"))["extra"]["polyfills"]
    assert "window.Worker" in (ROOT / "docs" / script).read_text(encoding="utf-8")


def test_no_message_names_a_page_of_the_repository() -> None:
    """Users who installed with pip have the commands, not the folder docs/."""
    for file in [*ROOT.glob("mlapp/**/*.py"), *ROOT.glob("templates/**/mlapp.yaml")]:
        text = file.read_text(encoding="utf-8")
        if not (pages := re.findall(r"docs/[\w/-]+\.md", text)):
            continue
        tree = ast.parse(text) if file.suffix == ".py" else None
        strings = {node.value for node in ast.walk(tree) if isinstance(node, ast.Constant)} if tree else {text}
        documentation = (
            {
                node.value.value
                for node in ast.walk(tree)
                if isinstance(node, ast.Expr) and isinstance(node.value, ast.Constant)
            }
            if tree
            else set()
        )
        for string in strings - documentation:
            assert not any(page in str(string) for page in pages), f"{file.relative_to(ROOT)}: {string}"


DECISIONS = sorted(path for path in (ROOT / "docs/decisions").glob("*.md") if path.name != "index.md")


@pytest.mark.parametrize("page", DECISIONS, ids=lambda page: page.stem)
def test_each_decision_has_a_date_a_status_and_its_alternatives(page: Path) -> None:
    _, *records = re.split(r"^## ", page.read_text(encoding="utf-8"), flags=re.M)
    for record in records:
        title, _, text = record.partition("\n")
        assert re.match(r"\n\d{4}-\d\d-\d\d · (accepted|\S.*superseded|superseded)", text), title
        for part in ("Context", "Decision", "Alternatives"):
            assert text.count(f"- **{part}**: ") == 1, f"{title}: {part}"
