"""Signed versions: trusted signers are a setting, and a version without their signature is refused."""

from __future__ import annotations

import datetime
import hashlib
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import NameOID
from sklearn.linear_model import LogisticRegression

from mlapp import App
from mlapp import bundle as bundles
from mlapp.config import Store as StoreSettings
from mlapp.config import load_settings
from mlapp.errors import ConfigError, StoreError
from mlapp.model import TrainedModel
from mlapp.store import Store, open_store


def write_key(folder: Path, name: str, password: bytes | None = None) -> ec.EllipticCurvePrivateKey:
    """Write `NAME.pem` and `NAME.pub`."""
    key = ec.generate_private_key(ec.SECP256R1())
    encryption = serialization.BestAvailableEncryption(password) if password else serialization.NoEncryption()
    private = key.private_bytes(serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, encryption)
    public = key.public_key().public_bytes(serialization.Encoding.PEM, serialization.PublicFormat.SubjectPublicKeyInfo)
    (folder / f"{name}.pem").write_bytes(private)
    (folder / f"{name}.pub").write_bytes(public)
    return key


def write_certificate(folder: Path, name: str, key: Any, issuer: str, issuer_key: Any, *, is_authority: bool) -> None:
    """Write `NAME.crt`, issued by `issuer`."""
    now = datetime.datetime.now(datetime.timezone.utc)
    usage = x509.KeyUsage(not is_authority, False, False, False, False, is_authority, is_authority, False, False)
    certificate = (
        x509.CertificateBuilder()
        .subject_name(x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, name)]))
        .issuer_name(x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, issuer)]))
        .public_key(key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(now - datetime.timedelta(days=1))
        .not_valid_after(now + datetime.timedelta(days=1))
        .add_extension(x509.BasicConstraints(is_authority, None), critical=True)
        .add_extension(usage, critical=True)
        .sign(issuer_key, hashes.SHA256())
    )
    (folder / f"{name}.crt").write_bytes(certificate.public_bytes(serialization.Encoding.PEM))


@pytest.fixture(scope="module")
def app() -> App:
    app = App("numbers", target="y")
    x = np.linspace(-1, 1, 40)
    app.data_reader(lambda: pd.DataFrame({"x": x, "y": (x > 0).astype(int)}))
    app.model(LogisticRegression)
    return app


@pytest.fixture(scope="module")
def trained(app: App) -> TrainedModel:
    return app.train()


@pytest.fixture
def make_store(tmp_path: Path) -> Callable[..., Store]:
    """Open the store of a project that has keys, with these settings."""
    for name in ("ours", "theirs"):
        write_key(tmp_path, name)

    def open_it(**settings: Any) -> Store:
        return open_store(StoreSettings(**{"url": "models", **settings}), tmp_path)

    return open_it


REQUIRED = {"verify": "required", "public_key": "ours.pub"}


def test_a_version_that_is_signed_when_it_is_stored(make_store: Callable[..., Store], trained: TrainedModel) -> None:
    version = make_store(private_key="ours.pem").put(trained)
    assert json.loads(version.manifest.signatures[0])["mediaType"].startswith("application/vnd.dev.sigstore.bundle")
    assert make_store(**REQUIRED).get("numbers", 1).manifest == version.manifest
    with pytest.raises(StoreError, match=r"Version 1 of 'numbers' is refused: no signature of it is valid"):
        make_store(verify="required", public_key="theirs.pub").get("numbers", 1)


def test_a_version_that_is_not_signed_is_refused_until_somebody_signs_it(
    make_store: Callable[..., Store], trained: TrainedModel
) -> None:
    make_store().put(trained)
    with pytest.raises(StoreError, match=r"Version 1 of 'numbers' is refused: it is not signed") as raised:
        make_store(**REQUIRED).get("numbers", 1)
    assert "mlapp models sign" in raised.value.todo
    make_store(private_key="theirs.pem").sign_version("numbers", 1)
    with pytest.raises(StoreError, match="no signature of it is valid"):
        make_store(**REQUIRED).get("numbers", 1)
    make_store(private_key="ours.pem").sign_version("numbers", 1)
    assert len(make_store(**REQUIRED).get("numbers", 1).manifest.signatures) == 2
    assert make_store(public_key="theirs.pub").verify_version("numbers", 1) == 1


def change_file(root: Path) -> None:
    manifest = json.loads((root / "versions" / "000001.json").read_text())
    file = root / manifest["folder"] / "model.skops"
    file.write_bytes(file.read_bytes() + b"\0")
    content = file.read_bytes()
    described = {"sha256": hashlib.sha256(content).hexdigest(), "size": len(content)}
    change_manifest(root, files={**manifest["files"], "model.skops": described})


def change_manifest(root: Path, **values: Any) -> None:
    file = root / "versions" / "000001.json"
    file.write_text(json.dumps({**json.loads(file.read_text()), **values}))


def take_other_signature(root: Path) -> None:
    other = json.loads((root / "versions" / "000002.json").read_text())
    change_manifest(root, signatures=other["signatures"])


CHANGES: dict[str, Callable[[Path], None]] = {
    "a file and its hash": change_file,
    "the parameters": lambda root: change_manifest(root, parameters={"C": 7.0}),
    "the schema": lambda root: change_manifest(root, schema={"features": {"fields": []}, "predictions": {}}),
    "the framework": lambda root: change_manifest(root, framework="onnx", model_format="onnx"),
    "the libraries": lambda root: change_manifest(root, libraries={"scikit-learn": "0.1"}),
    "the signature of another version": take_other_signature,
    "a signature that is none": lambda root: change_manifest(root, signatures=["{}"]),
    "no signatures": lambda root: change_manifest(root, signatures=[]),
}


@pytest.mark.parametrize("what", CHANGES)
def test_a_signature_covers_all_that_a_version_is(
    what: str, make_store: Callable[..., Store], trained: TrainedModel, app: App, tmp_path: Path
) -> None:
    signing = make_store(private_key="ours.pem")
    signing.put(trained)
    signing.put(app.train(C=3.0))
    CHANGES[what](tmp_path / "models" / "numbers")
    with pytest.raises(StoreError, match=r"is refused|is damaged"):
        make_store(**REQUIRED).get("numbers", 1)
    assert make_store(**REQUIRED).get("numbers", 2).version == 2


def test_what_was_verified_is_what_is_loaded(
    make_store: Callable[..., Store], trained: TrainedModel, tmp_path: Path
) -> None:
    stored = make_store(private_key="ours.pem").put(trained)
    (name,) = (name for name in stored.manifest.files if name.startswith("model"))
    loaded = make_store(**REQUIRED).get("numbers", 1)
    before = (loaded.files / name).read_bytes()
    place = tmp_path / "models/numbers" / stored.manifest.folder
    (place / name).write_bytes(b"of somebody who may write to the store, after the signature was checked")
    assert (loaded.files / name).read_bytes() == before
    with pytest.raises(StoreError, match="was changed after it was stored"):
        make_store(**REQUIRED).verify_version("numbers", 1)
    (place / "more").write_text("beside it")
    with pytest.raises(StoreError, match="its file more is not in its manifest"):
        make_store(**REQUIRED).get("numbers", 1)


def test_a_copy_keeps_its_signatures_and_an_unsigned_one_is_refused(
    make_store: Callable[..., Store], trained: TrainedModel
) -> None:
    make_store().put(trained)
    unsigned = make_store().get("numbers", 1)
    make_store(private_key="ours.pem").sign_version("numbers", 1)
    signed = make_store().get("numbers", 1)
    other = make_store(url="other", **REQUIRED)
    with pytest.raises(StoreError, match="it is not signed"):
        other.import_version(unsigned)
    assert other.list_numbers("numbers") == []
    assert other.import_version(signed).version == 1
    assert other.get("numbers", 1).manifest.signatures == signed.manifest.signatures


def test_a_certificate_of_an_authority_that_counts(
    make_store: Callable[..., Store], trained: TrainedModel, tmp_path: Path
) -> None:
    for authority in ("authority", "stranger"):
        key, own = write_key(tmp_path, authority), write_key(tmp_path, f"by-{authority}")
        write_certificate(tmp_path, authority, key, authority, key, is_authority=True)
        write_certificate(tmp_path, f"by-{authority}", own, authority, key, is_authority=False)
        make_store(
            private_key=f"by-{authority}.pem",
            signing_certificate=f"by-{authority}.crt",
            certificate_chain=[f"{authority}.crt"],
        ).put(trained)
    verifying = make_store(verify="required", certificate_chain=["authority.crt"])
    assert verifying.get("numbers", 1).version == 1
    with pytest.raises(StoreError, match="no signature of it is valid"):
        verifying.get("numbers", 2)


def test_a_key_with_a_password(make_store: Callable[..., Store], trained: TrainedModel, tmp_path: Path) -> None:
    write_key(tmp_path, "locked", b"secret")
    with pytest.raises(ConfigError, match=r"locked.pem cannot be used to sign"):
        make_store(private_key="locked.pem").put(trained)
    make_store(private_key="locked.pem", private_key_password="secret").put(trained)
    assert make_store(public_key="locked.pub").verify_version("numbers", 1) == 1


@pytest.mark.parametrize(
    ("settings", "match"),
    [
        ({"verify": "required"}, "No trusted signer is configured"),
        ({"verify": "required", "public_key": "none.pub"}, r"the file .*none.pub does not exist"),
        ({"verify": "required", "public_key": "app.py"}, "is not a public key"),
        ({"verify": "required", "identity": "ci@example.org"}, "store.identity is set without"),
    ],
)
def test_settings_that_name_nobody_fail_closed(
    settings: dict[str, Any], match: str, make_store: Callable[..., Store], trained: TrainedModel, tmp_path: Path
) -> None:
    (tmp_path / "app.py").write_text("")
    make_store(private_key="ours.pem").put(trained)
    with pytest.raises(ConfigError, match=match):
        make_store(**settings).get("numbers", 1)


def test_a_deleted_version_leaves_no_signatures(
    make_store: Callable[..., Store], trained: TrainedModel, tmp_path: Path
) -> None:
    store = make_store(private_key="ours.pem")
    store.put(trained)
    store.sign_version("numbers", 1)
    store.delete("numbers", 1)
    assert not (tmp_path / "models/numbers/signatures/000001").exists()


@pytest.mark.parametrize(
    ("file", "environ", "expected"),
    [
        ("store: models", {}, ("models", "none")),
        ("store: {url: models, verify: required}", {}, ("models", "required")),
        ("store: models", {"MLAPP_STORE": "s3://b/p"}, ("s3://b/p", "none")),
        ("store: models", {"MLAPP_STORE__VERIFY": "required"}, ("models", "required")),
        ("store: {url: models, verify: required}", {"MLAPP_STORE": "s3://b/p"}, ("s3://b/p", "required")),
        ("store: {url: models, verify: required}", {"MLAPP_STORE__URL": "other"}, ("other", "required")),
        ("", {"MLAPP_STORE": "s3://b/p", "MLAPP_STORE__VERIFY": "required"}, ("s3://b/p", "required")),
        ("", {"MLAPP_STORE__VERIFY": "required", "MLAPP_STORE": "s3://b/p"}, ("s3://b/p", "required")),
        ("", {"MLAPP_STORE__VERIFY": "required"}, (".mlapp/store", "required")),
    ],
)
def test_the_setting_is_a_string_or_a_section_wherever_it_comes_from(
    file: str, environ: dict[str, str], expected: tuple[str, str], tmp_path: Path
) -> None:
    (tmp_path / "mlapp.yaml").write_text(file)
    store = load_settings(tmp_path, environ=environ).store
    assert (store.url, store.verify) == expected


def test_an_environment_with_another_store_keeps_what_is_required(tmp_path: Path) -> None:
    (tmp_path / "mlapp.yaml").write_text(
        "store: {url: models, verify: required}\nenvironments: {production: {store: 's3://b/p'}}\n"
    )
    store = load_settings(tmp_path, "production", {}).store
    assert (store.url, store.verify) == ("s3://b/p", "required")


@pytest.mark.parametrize("value", ["", "true", "require", "REQUIRED"])
def test_a_value_of_verify_that_is_none_is_an_error(value: str, tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"store\.verify"):
        load_settings(tmp_path, environ={"MLAPP_STORE__VERIFY": value})


@pytest.fixture
def signed_project(project: Callable[..., Path], monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Path:
    """A project that requires signatures; the key is outside of it."""
    root = project()
    keys = tmp_path / "keys"
    keys.mkdir()
    write_key(keys, "models")
    (root / "models.pub").write_bytes((keys / "models.pub").read_bytes())
    (root / "mlapp.yaml").write_text("store: {url: .mlapp/store, verify: required, public_key: models.pub}\n")
    return root


def test_every_command_that_uses_a_model_refuses_an_unsigned_one(
    signed_project: Path, mlapp: Any, tmp_path: Path
) -> None:
    assert mlapp("train").code == 0
    rows = signed_project / "rows.json"
    rows.write_text(json.dumps([[5.0, 3.0, 1.0, 0.2]]))
    for command in (
        ("predict", "--features", str(rows)),
        ("serve", "--port", "0"),
        ("build", "--bundle-only"),
        ("models", "pull", "1"),
        ("models", "pull", "1", "--to", str(tmp_path / "copy")),
        ("models", "verify", "1"),
        ("export", "--onnx"),
        ("train", "--from", "1"),
        ("models", "promote", "1", "production"),
    ):
        ran = mlapp(*command)
        assert ran.code == 1, command
        assert "Version 1 of 'flowers' is refused: it is not signed." in ran.err, command
    assert not (tmp_path / "copy" / "flowers" / "versions").exists()
    assert not (signed_project / ".mlapp/store/flowers/aliases").exists()

    key = str(tmp_path / "keys" / "models.pem")
    assert mlapp("models", "sign", "1", "--private-key", key).out.strip() == "1"
    assert json.loads(mlapp("models", "verify", "1", "--json").out) == {
        "app": "flowers",
        "version": 1,
        "verified": True,
    }
    assert mlapp("predict", "--features", str(rows)).code == 0
    assert mlapp("models", "sign", "1").code == 2


def test_training_signs_where_a_key_is_configured(
    signed_project: Path, mlapp: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("MLAPP_STORE__PRIVATE_KEY", str(tmp_path / "keys" / "models.pem"))
    assert mlapp("train").code == 0
    monkeypatch.delenv("MLAPP_STORE__PRIVATE_KEY")
    assert mlapp("models", "verify", "latest").code == 0


def test_a_bundle_keeps_what_is_required_and_a_pod_refuses_what_was_changed(
    signed_project: Path, mlapp: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (signed_project / "requirements.txt").write_text("scikit-learn\nskops\npandas\n")
    monkeypatch.setenv("MLAPP_STORE__PRIVATE_KEY", str(tmp_path / "keys" / "models.pem"))
    assert mlapp("train").code == 0
    monkeypatch.delenv("MLAPP_STORE__PRIVATE_KEY")
    built = mlapp("build", "--bundle-only")
    assert built.code == 0, built.err
    bundle = bundles.open(built.out.strip().splitlines()[-1])
    assert "model-signing==" in (bundle.folder / "requirements.txt").read_text()
    assert bundle.settings.store.verify == "required"
    assert bundle.model.version == 1
    change_manifest(bundle.folder / "model" / "flowers", parameters={"C": 9.0})
    with pytest.raises(
        StoreError, match=r"is refused: no signature of it is valid: the content differs from the signed content"
    ):
        _ = bundles.open(bundle.folder).model
