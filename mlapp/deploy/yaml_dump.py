"""Documents as readable YAML, and diffs of them. Keys keep their order; long text is a block; there are no anchors."""

from __future__ import annotations

import difflib
import re
from collections.abc import Iterable
from typing import Any

import yaml

AMBIGUOUS_TEXT = re.compile(
    r"[yYnN]|[-+]?(0[xX][0-9a-fA-F_]+|0[bB][01_]+|0[oO][0-7_]+|(\.[0-9]+|[0-9][0-9_]*(\.[0-9_]*)?)([eE][-+]?[0-9]+)?)"
)
"""Text that kubectl, kustomize and helm parse as a number or a boolean but PyYAML does not quote: `1e3`, `y`."""


class _Dumper(yaml.SafeDumper):
    def ignore_aliases(self, data: Any) -> bool:
        return True

    def increase_indent(self, flow: bool = False, indentless: bool = False) -> None:
        super().increase_indent(flow, False)


def _represent_yaml_text(dumper: _Dumper, value: str) -> yaml.ScalarNode:
    style = "|" if "\n" in value else "'" if AMBIGUOUS_TEXT.fullmatch(value) else None
    return dumper.represent_scalar("tag:yaml.org,2002:str", value, style=style)


_Dumper.add_representer(str, _represent_yaml_text)


def dump_yaml(document: Any) -> str:
    """One document."""
    return yaml.dump(document, Dumper=_Dumper, sort_keys=False, width=120, allow_unicode=True)


def dump_yaml_documents(documents: Iterable[Any]) -> str:
    """Several documents, in kubectl's format."""
    return "".join(f"---\n{dump_yaml(document)}" for document in documents)


def diff_yaml(before: Any, after: Any, before_title: str, after_title: str) -> str:
    """A unified diff of two documents. None and an empty document mean that there is none."""
    old, new = (dump_yaml(document).splitlines(keepends=True) if document else [] for document in (before, after))
    return "".join(difflib.unified_diff(old, new, before_title, after_title))
