"""Parses YAML files of the user, and refuses duplicate keys, of which PyYAML silently uses the last."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

from mlapp.errors import ConfigError

if TYPE_CHECKING:
    import yaml


def parse_yaml(text: str, file: Path) -> Any:
    """The value of a YAML document; None if it is empty.

    Args:
        file: the file of the text, for errors.

    Raises:
        ConfigError: the text is not YAML, or a mapping has a duplicate key.
    """
    import yaml

    loader = yaml.SafeLoader(text)
    try:
        node = loader.get_single_node()
        if node is None:
            return None
        _check_duplicate_keys(node, file, set())
        return loader.construct_document(node)
    except yaml.YAMLError as error:
        mark = getattr(error, "problem_mark", None)
        line = f":{mark.line + 1}" if mark else ""
        raise ConfigError(f"{file}{line} is not YAML: {getattr(error, 'problem', error)}", "Fix that line.") from None
    finally:
        loader.dispose()


def _check_duplicate_keys(node: yaml.Node, file: Path, checked: set[int]) -> None:
    """Check a node recursively. Each node is checked once, because aliases repeat nodes."""
    import yaml

    if id(node) in checked or isinstance(node, yaml.ScalarNode):
        return
    checked.add(id(node))
    if isinstance(node, yaml.SequenceNode):
        for item in node.value:
            _check_duplicate_keys(item, file, checked)
        return
    lines: dict[tuple[str, str], int] = {}
    for key, value in node.value:
        line = key.start_mark.line + 1
        if isinstance(key, yaml.ScalarNode):
            first = lines.get((key.tag, key.value))
            if first is not None:
                where = f"on line {line}" if first == line else f"on lines {first} and {line}"
                raise ConfigError(
                    f"{file} has the key `{key.value}` twice, {where}.",
                    "Keep one of them: YAML would use only the last one.",
                )
            lines[key.tag, key.value] = line
        _check_duplicate_keys(value, file, checked)
