"""A command that is typed at the wrong level, or wrongly: the error names the right one."""

from __future__ import annotations

import pytest

from mlapp.cli.main import run


@pytest.mark.parametrize(
    ("line", "todo"),
    [
        ("promote 1", "Did you mean `mlapp models promote`? Otherwise, see `mlapp promote --help`."),
        ("evaluate 1", "Did you mean `mlapp models evaluate`? Otherwise, see `mlapp --help`."),
        ("compare 1 2", "Did you mean `mlapp models compare`?"),
        ("comapre 1 2", "Did you mean `mlapp models compare`?"),
        ("rules", "Did you mean `mlapp eject rules`?"),
        ("wait", "Did you mean `mlapp runs wait`?"),
        ("models deploy", "Did you mean `mlapp deploy`? Otherwise, see `mlapp models --help`."),
        ("status 3", "See `mlapp status --help`."),
        ("models list 1", "See `mlapp models list --help`."),
        ("xyzzy", "See `mlapp --help`."),
    ],
)
def test_a_command_of_another_level_is_suggested(line, todo, capsys) -> None:
    with pytest.raises(SystemExit) as ended:
        run(line.split())
    assert ended.value.code == 2
    first, second = capsys.readouterr().err.splitlines()
    assert first.startswith("Error: ")
    assert second.startswith(todo)


def test_every_subcommand_is_found_from_the_top(capsys) -> None:
    import typer

    from mlapp.cli.commands import cli

    commands = typer.main.get_command(cli).commands
    below = {name: group for group, found in commands.items() for name in getattr(found, "commands", ())}
    for name in set(below) - set(commands):
        with pytest.raises(SystemExit):
            run([name])
        assert f"`mlapp {below[name]} {name}`" in capsys.readouterr().err
