"""Reads the source of an app from a notebook: its code cells form a module."""

from __future__ import annotations

import json
from pathlib import Path

from mlapp.errors import ProjectError


def read_code_cells(path: Path) -> str:
    """The code cells of an .ipynb file as one Python source. Lines of IPython's syntax (`%…`, `!…`) become blank.

    Put cells for interactive use under `if __name__ == "__main__":`, which is true only in Jupyter.

    Raises:
        ProjectError: the file is not a notebook.
    """
    try:
        cells = json.loads(path.read_text(encoding="utf-8"))["cells"]
        codes = ["".join(cell["source"]) for cell in cells if cell["cell_type"] == "code"]
    except (ValueError, KeyError, TypeError) as error:
        raise ProjectError(f"{path} is not a notebook: {error!r}", "Save it as .ipynb again.") from None
    return "\n\n".join("\n".join(_strip_magic(line) for line in code.splitlines()) for code in codes) + "\n"


def _strip_magic(line: str) -> str:
    return "" if line.lstrip().startswith(("%", "!", "?")) else line
