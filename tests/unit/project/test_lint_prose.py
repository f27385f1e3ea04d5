"""scripts/lint_prose.py."""

import subprocess
import sys
from pathlib import Path

import pytest

pytestmark = pytest.mark.needs("harper")

LINTER = Path(__file__).parents[3] / "scripts" / "lint_prose.py"


def lint(page: Path, text: str) -> subprocess.CompletedProcess[str]:
    page.write_text(text)
    return subprocess.run([sys.executable, LINTER, page], capture_output=True, text=True)


def test_a_phrase_to_avoid_is_reported_with_its_replacement(tmp_path):
    result = lint(tmp_path / "page.md", "# Page\n\nThe pod is told the version, in `a is told b` too.\n")
    assert result.returncode == 1
    assert "page.md:3:9: Style::" in result.stdout
    assert "Avoid `is told`. Write: learns" in result.stdout
    assert result.stdout.count("Avoid") == 1, "code is not prose"


def test_a_sentence_of_more_than_40_words_is_reported(tmp_path):
    result = lint(tmp_path / "page.md", "# Page\n\n" + "The server reads one row and " * 7 + "stops.\n")
    assert result.returncode == 1
    assert "This sentence is 43 words long." in result.stdout


def test_plain_prose_passes(tmp_path):
    result = lint(tmp_path / "page.md", "# Page\n\nThe server reads a row. The client gets an answer.\n")
    assert (result.returncode, result.stdout) == (0, "")
