"""Which files of a project are shipped."""

import os
from pathlib import Path

import pytest

from mlapp.bundle import BundleError
from mlapp.bundle.project_files import find_project_files
from mlapp.project_outputs import record_project_outputs


@pytest.fixture
def root(tmp_path):
    (tmp_path / ".gitignore").write_text("*.log\ndata/\n")
    for name in ("app.py", "features/clean.py", "notes.log", "data/big.csv", "tests/test_app.py", ".env", "a b ü.txt"):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).write_text(name)
    return tmp_path


def names(root, **options):
    return {path.as_posix() for path in find_project_files(root, warn=options.pop("warn", lambda _: None), **options)}


def test_what_git_does_not_ignore_is_shipped_with_or_without_a_repository(root):
    assert names(root) == {".gitignore", "app.py", "features/clean.py", "tests/test_app.py", "a b ü.txt"}
    os.system(f"git init -q {root}")
    assert names(root) == {".gitignore", "app.py", "features/clean.py", "tests/test_app.py", "a b ü.txt"}


def test_a_tracked_file_is_shipped_though_ignored_and_a_deleted_one_is_not(root):
    os.system(f"cd {root} && git init -q && git add -f notes.log app.py && rm app.py")
    assert "notes.log" in names(root)
    assert "app.py" not in names(root)


@pytest.mark.parametrize(
    ("dockerignore", "left_out"),
    [
        ("tests", {"tests/test_app.py"}),
        ("/tests/", {"tests/test_app.py"}),
        ("*.py", {"app.py"}),
        ("**/*.py", {"app.py", "features/clean.py", "tests/test_app.py"}),
        ("**/*.py\n!features/*.py", {"app.py", "tests/test_app.py"}),
        ("# tests\n", set()),
        ("tests/test_?pp.py", {"tests/test_app.py"}),
        ("test", set()),
    ],
)
def test_dockerignore_leaves_out_by_dockers_rules(root, dockerignore, left_out):
    before = names(root)
    (root / ".dockerignore").write_text(dockerignore)
    assert before - names(root) == left_out


def test_include_ships_what_is_ignored(root):
    assert "data/big.csv" in names(root, include=["data/*.csv"])
    with pytest.raises(BundleError, match="nothing matches 'nowhere/\\*'"):
        names(root, include=["nowhere/*"])


def test_an_untracked_secret_is_left_out_and_named(root):
    warnings = []
    names(root, warn=warnings.append)
    assert warnings == [
        ".env looks like a secret and is left out. To ship it, list it under image.include in mlapp.yaml."
    ]
    assert ".env" in names(root, include=[".env"])


def test_a_link_that_leaves_the_project_is_left_out_and_named(root, tmp_path_factory):
    outside = tmp_path_factory.mktemp("outside") / "secret.txt"
    outside.write_text("secret")
    (root / "out").symlink_to(outside)
    (root / "nowhere").symlink_to(root / "missing")
    (root / "inside").symlink_to(root / "features" / "clean.py")
    (root / "self").symlink_to("self")
    warnings = []
    files = names(root, warn=warnings.append)
    assert "inside" in files
    assert files.isdisjoint({"out", "nowhere", "self"})
    assert any("out is a link to" in warning for warning in warnings)
    assert any("nowhere is a link" in warning for warning in warnings)


def test_a_large_file_is_named_and_a_huge_one_left_out(root):
    with (root / "large.bin").open("wb") as file:
        file.truncate(200 * 1024**2)
    warnings = []
    assert "large.bin" in names(root, warn=warnings.append)
    assert "large.bin has 200 MiB. If the server does not need it, list it in .dockerignore." in warnings
    with (root / "huge.bin").open("wb") as file:
        file.truncate(20 * 1024**3)
    assert "huge.bin" not in names(root, warn=warnings.append)
    assert any("huge.bin has 20.0 GiB, which looks like a mistake" in warning for warning in warnings)
    assert "huge.bin" in names(root, include=["huge.bin"])
    (root / ".dockerignore").write_text("*.bin\n.env")
    assert names(root, warn=pytest.fail)


def test_what_commands_write_is_left_out_unless_git_tracks_it_or_it_is_included(root, tmp_path_factory):
    written = [root / "new.csv", root / "deploy/service.yaml", root / "deploy/job.yaml", root / "deploy/pod.yaml"]
    for file in written:
        file.parent.mkdir(exist_ok=True)
        file.write_text("a: 1")
    record_project_outputs(root, [*written, tmp_path_factory.mktemp("elsewhere") / "other.csv", root / "app.py"])
    warnings = []

    file_names = names(root, needed=[Path("app.py")], warn=warnings.append)

    assert file_names == {".gitignore", "app.py", "features/clean.py", "tests/test_app.py", "a b ü.txt"}
    assert (
        "Written by mlapp and left out: deploy/job.yaml, deploy/pod.yaml, deploy/service.yaml and 1 more" in warnings[0]
    )
    assert "new.csv" in names(root, include=["new.csv"])
    os.system(f"cd {root} && git init -q . && git add deploy")
    assert "deploy/job.yaml" in names(root)


def test_exported_data_is_no_part_of_the_next_image(root, mlapp):
    (root / "app.py").write_text("from mlapp import App\napp = App('a')\napp.data_reader(lambda: {'a': [1, 2]})\n")

    ran = mlapp("data", "export", "--to", "new.csv", cwd=root)

    assert ran.code == 0, ran.err
    assert (root / "new.csv").exists()
    assert "new.csv" not in names(root)


def test_a_name_that_is_not_utf8_is_refused(root):
    with open(os.fsencode(root) + b"/caf\xe9.py", "w"):
        pass
    with pytest.raises(BundleError, match="is not UTF-8"):
        names(root)
