"""A bundle: the same project gives the same folder, and a changed one is refused."""

import contextlib
import json
import os
import shutil
import subprocess
import sys
import threading
import zipfile

import msgspec
import pytest
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat, PublicFormat
from cyclonedx.schema import SchemaVersion
from cyclonedx.validation.json import JsonStrictValidator

from mlapp import bundle, onnx_conversion, prediction, training
from mlapp.bundle import BundleError
from mlapp.bundle.build import build_bundle
from mlapp.bundle.requirement_lines import parse_locked_requirement_lines
from mlapp.errors import ConfigError, StoreError, UsageError
from mlapp.images.build import format_image_reference
from mlapp.images.image_spec import make_image_spec
from mlapp.project import Project
from mlapp.serving.inference.served_model import load_served_model_version
from tests.mounts import mount

LAZY = """
import pandas as pd
from mlapp import App

app = App("flowers", target="kind")


@app.data_reader
def read() -> pd.DataFrame:
    return pd.DataFrame({"length": [1.0, 1.2, 3.0, 3.3] * 5, "kind": ["a", "a", "b", "b"] * 5})


@app.model
def build():
    from sklearn.linear_model import LogisticRegression

    return LogisticRegression()
"""
"""An app that needs scikit-learn for training alone."""


def make_bundle(project, **options):
    return build_bundle(Project.find(project.root), warn=options.pop("warn", lambda _: None), **options)


def test_a_bundle_holds_code_model_and_locked_requirements(project, git):
    (project.root / "train.log").write_text("ignored")
    new_bundle = make_bundle(project)
    assert new_bundle.manifest.app == "flowers"
    assert new_bundle.manifest.version == 1
    assert new_bundle.manifest.git.commit
    assert sorted(os.listdir(new_bundle.folder / "code")) == [".gitignore", "app.py", "requirements.txt"]
    assert new_bundle.model.files.joinpath("model.skops").is_file()
    requirements = (new_bundle.folder / "requirements.txt").read_text()
    assert "scikit-learn==" in requirements
    assert "uvicorn==" in requirements, "mlapp's own are locked too"
    assert "--hash=sha256:" in requirements
    assert str(project.root) not in requirements


def test_the_same_project_gives_the_same_bundle_and_a_change_another(project, tmp_path):
    first = make_bundle(project)
    assert make_bundle(project).folder == first.folder
    elsewhere = make_bundle(project, output=tmp_path / "elsewhere")
    assert elsewhere.folder.name == first.folder.name
    assert (elsewhere.folder / "bundle.json").read_bytes() == (first.folder / "bundle.json").read_bytes()
    with (project.root / "app.py").open("a") as file:
        file.write("# changed\n")
    assert make_bundle(project).hash != first.hash
    assert [name for name in os.listdir(first.folder.parent) if name.startswith(".")] == []


def test_builds_at_once_and_on_other_machines_make_one_bundle(project, tmp_path):
    """Two in the same folder; all with other umasks, times, languages, time zones and orders of hashes."""
    (project.root / "package").mkdir()
    (project.root / "package" / "setup.py").write_text(
        "import setuptools\nsetuptools.setup(name='once', version='1')\n"
    )
    (project.root / "requirements.txt").write_text("./package\nscikit-learn\nskops\npandas\n")
    other = shutil.copytree(project.root, tmp_path / "other machine")
    for file in other.glob("*.*"):
        os.utime(file, (1e8, 1e8))
    builds = []
    for root, mask, language, zone, seed in (
        (project.root, "022", "C", "UTC", "0"),
        (project.root, "077", "C.UTF-8", "Pacific/Auckland", "1"),
        (other, "002", "POSIX", "EST5", "random"),
    ):
        environ = {**os.environ, "LC_ALL": language, "TZ": zone, "PYTHONHASHSEED": seed}
        command = ["sh", "-c", f'umask {mask}; exec "$0" -m mlapp build --bundle-only', sys.executable]
        builds.append(subprocess.Popen(command, cwd=root, env=environ, stdout=subprocess.PIPE, text=True))
    names = {os.path.basename(build.communicate()[0].strip()) for build in builds}
    assert [build.returncode for build in builds] == [0, 0, 0]
    assert (project.root / "package" / "once.egg-info").is_dir(), "setuptools left its files in the source folder"
    assert names == {make_bundle(project).folder.name}


def test_a_bundle_for_onnx_holds_the_conversion_and_not_what_it_replaces(project, monkeypatch):
    (project.root / "app.py").write_text(LAZY)
    (project.root / "requirements.txt").unlink()
    (project.root / "mlapp.yaml").write_text("serve: {runtime: onnx}\n")
    project = Project.find(project.root)
    project.store.put(training.run(project.app))
    new_bundle = make_bundle(project)
    locked = {
        package.name for package in parse_locked_requirement_lines((new_bundle.folder / "requirements.txt").read_text())
    }
    assert {"onnxruntime", "onnx"} <= locked
    assert not {"scikit-learn", "scipy", "skops", "skl2onnx"} & locked
    monkeypatch.setattr(onnx_conversion, "convert_to_onnx", None)
    served = load_served_model_version(new_bundle.app, new_bundle.model, "onnx")
    assert list(served.predictor.predict([{"length": 1.1}, {"length": 3.1}])) == ["a", "b"]
    (conversion,) = (new_bundle.folder / "model" / ".onnx").iterdir()
    conversion.write_bytes(conversion.read_bytes() + b"x")
    with pytest.raises(BundleError, match=r"model/\.onnx/.* was changed after the bundle was created"):
        bundle.open(new_bundle.folder)


def test_an_opened_bundle_is_the_app_and_its_model(project, monkeypatch):
    folder = make_bundle(project).folder
    monkeypatch.chdir(folder)  # importing an app goes to its folder
    opened_bundle = bundle.open(folder)
    assert opened_bundle.app.name == "flowers"
    assert opened_bundle.settings.serve.port == 8000
    assert list(prediction.load_predictor(opened_bundle.app, opened_bundle.model).predict([{"length": 3.1}])) == ["b"]


def test_a_version_that_a_platform_mounts_is_served_instead_and_checked(project, tmp_path, monkeypatch):
    folder = make_bundle(project).folder
    other = project.store.put(training.run(project.app))
    mounted = shutil.copytree(other.files, tmp_path / "mnt" / "models")
    (tmp_path / "version.json").write_bytes(msgspec.json.encode(other.manifest))
    monkeypatch.setenv("MLAPP_MODEL_FOLDER", str(mounted))
    monkeypatch.setenv("MLAPP_MODEL_MANIFEST", str(tmp_path / "version.json"))

    assert bundle.open(folder).model.version == other.version == 2
    assert bundle.open(folder).settings.serve.model == "2"

    temporary = tmp_path / "temporary"
    temporary.mkdir()
    code = "import sys; from mlapp import bundle; print(bundle.open(sys.argv[1]).model.version)"
    served = subprocess.run(
        [sys.executable, "-c", code, folder], env={**os.environ, "TMPDIR": str(temporary)}, capture_output=True
    )
    assert (served.stdout, list(temporary.iterdir())) == (b"2\n", []), served.stderr

    link = tmp_path / "modelcar"  # made late, into another process's file system: what it resolves to is not here
    threading.Timer(0.3, link.symlink_to, (mounted,)).start()
    monkeypatch.setenv("MLAPP_MODEL_FOLDER", str(link))
    monkeypatch.setenv("MODEL_INIT_MODE", "async")
    assert bundle.open(folder).model.files.readlink() == link
    monkeypatch.delenv("MODEL_INIT_MODE")
    monkeypatch.setenv("MLAPP_MODEL_FOLDER", str(mounted))

    (mounted / sorted(other.manifest.files)[0]).write_bytes(b"changed")
    with pytest.raises(StoreError, match="was changed after it was stored"):
        _ = bundle.open(folder).model
    monkeypatch.setenv("MLAPP_MODEL_FOLDER", str(tmp_path / "none"))
    with pytest.raises(StoreError, match="that folder does not exist"):
        _ = bundle.open(folder).model


def write_keys(folder):
    key = ec.generate_private_key(ec.SECP256R1())
    private = key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption())
    public = key.public_key().public_bytes(Encoding.PEM, PublicFormat.SubjectPublicKeyInfo)
    (folder / "private.pem").write_bytes(private)
    (folder / "public.pem").write_bytes(public)


def test_a_bundle_without_its_model_serves_every_version_that_is_mounted_and_signed(project, tmp_path, monkeypatch):
    write_keys(project.root)
    (project.root / ".gitignore").write_text(".mlapp/\nprivate.pem\n")
    (project.root / "mlapp.yaml").write_text("store: {public_key: public.pem, verify: required}\n")
    monkeypatch.setenv("MLAPP_STORE__PRIVATE_KEY", "private.pem")
    signing = Project.find(project.root).store
    monkeypatch.delenv("MLAPP_STORE__PRIVATE_KEY")
    other = project.store.put(training.run(project.app))
    for version in (1, other.version):
        signing.sign_version("flowers", version)

    new_bundle = make_bundle(project, model=1, has_model=False)

    assert new_bundle.hash == make_bundle(project, model=2, has_model=False).hash, "a new version is no new image"
    assert [name for name in new_bundle.manifest.files if name.startswith("model/")] == ["model/store.json"]
    assert format_image_reference(new_bundle).startswith("flowers:code-")
    assert "mlapp.model.version" not in make_image_spec(new_bundle).labels
    bill = json.loads((new_bundle.folder / "sbom.cdx.json").read_bytes())
    assert "machine-learning-model" not in {component["type"] for component in bill["components"]}
    with pytest.raises(StoreError, match="contains no model"):
        _ = bundle.open(new_bundle.folder).served_project
    mounted = shutil.copytree(other.files, tmp_path / "mnt" / "models")
    monkeypatch.setenv("MLAPP_MODEL_FOLDER", str(mounted))
    with pytest.raises(StoreError, match="the version of its files is unknown"):
        _ = bundle.open(new_bundle.folder).served_project
    file = tmp_path / "version.json"
    monkeypatch.setenv("MLAPP_MODEL_MANIFEST", str(file))
    file.write_bytes(msgspec.json.encode(project.store.manifest("flowers", 2)))
    with pytest.raises(StoreError, match="it is not signed"):
        _ = bundle.open(new_bundle.folder).model
    file.write_bytes(msgspec.json.encode(project.store.signed_manifest("flowers", 2)))
    assert bundle.open(new_bundle.folder).model.version == 2
    assert bundle.open(new_bundle.folder).served_project.settings.serve.model == "2"


def test_a_bundle_that_was_changed_or_cut_is_refused(project, tmp_path):
    folder = make_bundle(project).folder
    (folder / "code" / "app.py").write_text("print('other')")
    with pytest.raises(BundleError, match=r"code/app\.py .* was changed"):
        bundle.open(folder)
    (folder / "code" / "app.py").unlink()
    with pytest.raises(BundleError, match=r"code/app\.py is missing"):
        bundle.open(folder)
    (folder / "bundle.json").write_text('{"format": 99}')
    with pytest.raises(BundleError, match="newer mlapp"):
        bundle.open(folder)
    (folder / "bundle.json").write_text("{")
    with pytest.raises(BundleError, match="is damaged"):
        bundle.open(folder)
    with pytest.raises(BundleError, match="is not a bundle"):
        bundle.open(tmp_path)


def test_the_time_of_a_bundle_comes_from_what_is_in_it(project, git, monkeypatch):
    created = make_bundle(project).manifest.created
    assert created == int(make_bundle(project).model.manifest.created.timestamp())
    monkeypatch.setenv("SOURCE_DATE_EPOCH", "1234567890")
    assert make_bundle(project).manifest.created == 1234567890
    monkeypatch.setenv("SOURCE_DATE_EPOCH", "yesterday")
    with pytest.raises(ConfigError, match="SOURCE_DATE_EPOCH is 'yesterday'"):
        make_bundle(project)


def test_credentials_in_the_origin_are_not_shipped(project, git):
    git("remote", "add", "origin", "https://me:hunter2@example.org/team/flowers.git")
    assert make_bundle(project).manifest.source == "https://example.org/team/flowers.git"


def test_the_bill_of_materials_is_cyclonedx(project):
    text = (make_bundle(project).folder / "sbom.cdx.json").read_text()
    assert JsonStrictValidator(SchemaVersion.V1_6).validate_str(text) is None
    kinds = {(part["type"], part["name"]) for part in json.loads(text)["components"]}
    assert {
        ("library", "scikit-learn"),
        ("library", "mlapp-kit"),
        ("machine-learning-model", "LogisticRegression"),
    } <= kinds


def test_requirements_that_name_the_unrelated_mlapp_of_pypi_are_refused(project):
    (project.root / "requirements.txt").write_text("mlapp[sklearn]==0.1.0\n")
    with pytest.raises(BundleError, match=r"requirements.txt names 'mlapp'.*unrelated") as refused:
        make_bundle(project)
    assert "mlapp-kit" in refused.value.todo


def test_a_version_that_differs_from_the_training_is_named(project):
    (project.root / "requirements.txt").write_text("threadpoolctl\npandas!=2.99\nskops<0.16\n")
    warnings = []
    make_bundle(project, warn=warnings.append)
    trained = make_bundle(project).model.manifest.libraries["skops"]
    assert any(f"but {trained} trained the model" in warning and "skops" in warning for warning in warnings)


def test_requirements_that_cannot_be_met_show_the_conflict_alone(project):
    (project.root / "requirements.txt").write_text("scikit-learn==1.5.0\nnumpy==1.16.0\n")
    with pytest.raises(BundleError, match=r"Resolving requirements\.txt: Because .*numpy") as caught:
        make_bundle(project)
    assert len(caught.value.what) < 1000
    (project.root / "requirements.txt").write_text("no-such-package-9d1f\n")
    with pytest.raises(BundleError, match="no-such-package-9d1f was not found"):
        make_bundle(project)
    (project.root / "requirements.txt").write_text("pandas==\n")
    with pytest.raises(BundleError, match="Unexpected end of version specifier"):
        make_bundle(project)
    (project.root / "requirements.txt").write_text("-r more.txt\n")
    with pytest.raises(BundleError, match=r"requirements\.txt includes more\.txt, which does not exist"):
        make_bundle(project)


def test_an_index_that_does_not_answer_is_named_without_its_password(project, monkeypatch):
    (project.root / "mlapp.yaml").write_text("image: {index_url: 'http://me:${INDEX_PASSWORD}@127.0.0.1:9/simple'}\n")
    with pytest.raises(ConfigError, match="needs the environment variable INDEX_PASSWORD"):
        make_bundle(project)
    monkeypatch.setenv("INDEX_PASSWORD", "hunter2")
    monkeypatch.setenv("UV_HTTP_RETRIES", "0")
    with pytest.raises(BundleError, match=r"127\.0\.0\.1:9") as caught:
        make_bundle(project)
    assert "hunter2" not in str(caught.value)
    assert "hunter2" not in caught.value.detail


def test_an_unknown_version_or_app_file_is_named(project):
    with pytest.raises(UsageError, match="no version 7"):
        make_bundle(project, model=7)
    (project.root / ".gitignore").write_text(".mlapp/\napp.py\n")
    with pytest.raises(BundleError, match=r"app\.py, the file of the app, is ignored"):
        make_bundle(project)


def test_a_python_that_is_none_is_refused(project):
    (project.root / "mlapp.yaml").write_text("image: {python: '3.x'}\n")
    with pytest.raises(ConfigError, match=r"image\.python: '3\.x'"):
        make_bundle(project)


def test_a_password_in_an_address_is_named_and_not_printed(project, monkeypatch):
    monkeypatch.setenv("TOKEN", "hush")
    monkeypatch.setenv("UV_HTTP_RETRIES", "0")
    (project.root / "requirements.txt").write_text("--extra-index-url https://me:${TOKEN}@127.0.0.1:9\npandas\n")
    warnings = []
    with contextlib.suppress(BundleError):
        build_bundle(project, warn=warnings.append)
    assert not any("assword" in warning for warning in warnings)
    (project.root / "requirements.txt").write_text("--extra-index-url https://me:hunter2@127.0.0.1:9\npandas\n")
    (project.root / "database.toml").write_text('url = "postgresql://me:hunter2@127.0.0.1:9/data"\n')
    with contextlib.suppress(BundleError):
        build_bundle(project, warn=warnings.append)
    output = "\n".join(warnings)
    assert "requirements.txt looks like a secret (line 1: Password in a URL) and is left out" in output
    assert "database.toml contains a password" in output
    assert "hunter2" not in output


def test_what_comes_from_no_index_is_in_the_bundle_as_a_wheel(project, git):
    """Folders, inside the project and beside it, and git's; the project's own package is its code."""
    for place, name in (("vendored", "inside"), ("../beside", "beside"), ("../repository", "of_git")):
        folder = project.root / place
        folder.mkdir()
        (folder / f"{name}.py").write_text("A = 1\n")
        (folder / "pyproject.toml").write_text(
            f'[project]\nname = "{name}"\nversion = "1.5"\ndescription = "-"\n'
            '[build-system]\nrequires = ["flit_core"]\nbuild-backend = "flit_core.buildapi"\n'
        )
    repository = project.root.parent / "repository"
    for command in (["init", "-q"], ["add", "."], ["commit", "-qm", "first"]):
        subprocess.run(["git", "-c", "user.name=a", "-c", "user.email=a", *command], cwd=repository, check=True)
    requirements = project.root / "requirements.txt"
    lines = f"-e ./vendored\n../beside\nof-git @ git+{repository.as_uri()}\n-e .\n"
    requirements.write_text(requirements.read_text() + lines)
    (project.root / "pyproject.toml").write_text('[project]\nname = "itself"\nversion = "1"\n')
    new_bundle = make_bundle(project)
    wheels = {file.name.split("-")[0]: file.name for file in (new_bundle.folder / "wheels").iterdir()}
    assert set(wheels) - {"mlapp_kit"} == {"inside", "beside", "of_git"}
    assert f"./wheels/{wheels['beside']} --hash=sha256:" in (new_bundle.folder / "requirements.txt").read_text()
    components = json.loads((new_bundle.folder / "sbom.cdx.json").read_text())["components"]
    assert {"inside", "of-git"} <= {component["name"] for component in components}
    assert make_bundle(project).hash == new_bundle.hash
    (project.root / "vendored" / "inside.py").write_text("A = 2  # changed\n")
    with zipfile.ZipFile(make_bundle(project).folder / "wheels" / wheels["inside"]) as archive:
        assert archive.read("inside.py") == b"A = 2  # changed\n"


def test_a_package_is_built_with_what_its_dockerignore_leaves_out_of_an_image(project):
    package = project.root / "package"
    package.mkdir()
    (package / "documented.py").write_text("A = 1\n")
    (package / "README.md").write_text("It is.\n")
    (package / ".dockerignore").write_text("*.md\n")
    (package / "pyproject.toml").write_text(
        '[project]\nname = "documented"\nversion = "1.5"\ndescription = "-"\nreadme = "README.md"\n'
        '[build-system]\nrequires = ["flit_core"]\nbuild-backend = "flit_core.buildapi"\n'
    )
    (project.root / "requirements.txt").write_text("./package\nscikit-learn\nskops\npandas\n")
    assert (make_bundle(project).folder / "wheels" / "documented-1.5-py3-none-any.whl").is_file()


def test_a_package_that_does_not_build_is_reported_without_its_traceback(project):
    package = project.root / "package"
    package.mkdir()
    (package / "setup.py").write_text("import setuptools\nraise ValueError('no compiler today')\n")
    (project.root / "requirements.txt").write_text("./package\n")
    with pytest.raises(BundleError, match="ValueError: no compiler today") as caught:
        make_bundle(project)
    assert "Traceback" not in caught.value.what
    assert 'File "' not in caught.value.what


def test_a_path_may_have_spaces_and_any_letters(project, tmp_path):
    root = tmp_path / "größer als 1"
    project.root.rename(root)
    (root / "new\nline.txt").write_text("1")
    (root / "loop").symlink_to("loop")
    (root / "self").symlink_to(".")
    (root / "mlapp.yaml").write_text("image: {include: [self]}\n")
    warned = []
    new_bundle = build_bundle(Project.find(root), warn=warned.append)
    assert (new_bundle.root / "new\nline.txt").is_file()
    assert (new_bundle.root / "self" / "app.py").is_file()
    assert warned == ["loop is a link to loop, which does not exist, and is left out."]


def test_a_file_deleted_meanwhile_is_left_out_and_a_version_is_named(project):
    (project.root / ".env").write_text("TOKEN=hush")  # its warning comes in the middle
    (project.root / "gone.txt").write_text("1")
    version = project.store.get("flowers", "latest")

    def delete(warning):
        (project.root / "gone.txt").unlink(missing_ok=True)

    assert "code/gone.txt" not in make_bundle(project, warn=delete).manifest.files
    with pytest.raises(BundleError, match="Version 1 of flowers was deleted during bundling"):
        make_bundle(project, warn=lambda _: shutil.rmtree(version.files, ignore_errors=True))


def test_where_nothing_may_be_written_the_error_says_so(project):
    with mount(project.root, "--bind", project.root):
        subprocess.run(["mount", "-o", "remount,ro,bind", project.root], check=True)
        with pytest.raises(BundleError, match="Read-only file system") as caught:
            make_bundle(project)
    assert "Make the folder writable" in caught.value.todo


def test_a_dockerfile_is_no_part_of_what_it_makes(project):
    before = make_bundle(project).hash
    (project.root / "Dockerfile").write_text("FROM scratch\n")
    (project.root / "Dockerfile.dockerignore").write_text("**\n")
    assert make_bundle(project).hash == before


def test_every_alias_means_the_one_version_where_a_site_asks_for_its_model(project, monkeypatch) -> None:
    monkeypatch.setenv("MLAPP_SERVE__WSGI", "web.py:site")
    project.store.promote("flowers", 1, "champion")
    bundle = build_bundle(Project.find(project.root), warn=lambda text: None)
    for alias in ("champion", "production"):
        assert bundle.project.store.resolve("flowers", alias) == 1


def test_an_import_that_the_lock_does_not_cover_is_named(project):
    app = project.root / "app.py"
    app.write_text(f"import hypothesis\n{app.read_text()}")
    warnings = []
    make_bundle(project, warn=warnings.append)
    [warning] = [each for each in warnings if "imports" in each]
    assert warning.startswith("app.py:1 imports 'hypothesis', which the image does not contain: hypothesis is not in")
    (project.root / "Dockerfile").write_text("FROM scratch\n")  # it can install what it needs
    make_bundle(project, warn=warnings.append)
    assert len([each for each in warnings if "imports" in each]) == 1
