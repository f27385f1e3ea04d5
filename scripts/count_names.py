"""Measure how clear the function names of a package are: `python scripts/count_names.py mlapp [PACKAGE_FOLDER ...]`.

Every `def` counts, including nested functions, methods and properties, but not `__dunder__` methods, tests and project
templates. The script prints three numbers:

- single words: the share of functions whose name is one word (`read`, `_read`), of all functions
- in several files: the share of distinct function names that more than one file defines
- participles: the number of functions with a bare participle as their name (`found`, `_listed`). Properties do not
  count, because `finished` is a predicate. `--list` prints these names.
"""

from __future__ import annotations

import argparse
import ast
from collections import Counter, defaultdict
from collections.abc import Iterator
from pathlib import Path

IRREGULAR = frozenset(
    """begun bent bound bought brought built caught chosen dealt done drawn driven eaten fallen fed felt forgotten found
    frozen given gone grown heard held hidden kept known laid led left lent lost made meant met paid said seen sent
    shown sold sought spent spoken stood stolen struck sworn taken taught told torn thought thrown understood woken won
    worn woven written""".split()  # noqa: SIM905
)
NOUNS_IN_ED = frozenset(
    """bed bleed breed creed deed embed exceed feed greed heed indeed need proceed red reed seed shed speed succeed
    weed""".split()  # noqa: SIM905
)
Function = ast.FunctionDef | ast.AsyncFunctionDef


def find_functions(folder: Path) -> Iterator[tuple[Path, Function]]:
    """Every counted function in `folder`, with its file."""
    for path in sorted(folder.rglob("*.py")):
        parts = path.relative_to(folder).parts
        if any(part in ("tests", "templates") or "{{" in part for part in parts):
            continue
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            if isinstance(node, Function) and not node.name.startswith("__"):
                yield path, node


def is_single_word(name: str) -> bool:
    return "_" not in name.strip("_")


def is_participle(name: str) -> bool:
    word = name.strip("_")
    return "_" not in word and (word in IRREGULAR or (word.endswith("ed") and word not in NOUNS_IN_ED))


def is_property(function: Function) -> bool:
    decorators = " ".join(ast.unparse(decorator) for decorator in function.decorator_list)
    return "property" in decorators or ".setter" in decorators


def count_names(folder: Path) -> dict[str, float]:
    """The three numbers for the package in `folder`, and the number of functions."""
    functions = list(find_functions(folder))
    files: dict[str, set[Path]] = defaultdict(set)
    for path, function in functions:
        files[function.name].add(path)
    return {
        "functions": len(functions),
        "single words, %": 100 * sum(is_single_word(function.name) for _, function in functions) / len(functions),
        "in several files, %": 100 * sum(len(paths) > 1 for paths in files.values()) / len(files),
        "participles": sum(is_participle(function.name) and not is_property(function) for _, function in functions),
    }


def main() -> None:
    parser = argparse.ArgumentParser(description="Count how clear the names of a package are.")
    parser.add_argument("folders", nargs="*", type=Path, default=[Path("mlapp")])
    parser.add_argument("--list", action="store_true", help="print the names that count against a package")
    options = parser.parse_args()
    for folder in options.folders:
        print(folder.name, ", ".join(f"{name} {value:.0f}" for name, value in count_names(folder).items()))
        if options.list:
            functions = list(find_functions(folder))
            for title, holds in (("single words", is_single_word), ("participles", is_participle)):
                names = Counter(function.name for _, function in functions if holds(function.name))
                print(f"  {title}:", ", ".join(f"{name} {count}" for name, count in names.most_common()))


if __name__ == "__main__":
    main()
