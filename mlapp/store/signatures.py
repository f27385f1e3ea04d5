"""Signatures of versions, in the format of OpenSSF Model Signing (https://github.com/ossf/model-signing-spec).

The signed content is a folder with the version's files, and with its manifest as `mlapp-manifest.json`, without the
number and folder in a particular store. So signatures stay valid for copies in other stores.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import msgspec

from mlapp.config import Store as StoreSettings
from mlapp.errors import ConfigError, MissingExtraError, StoreError
from mlapp.store.manifest import Manifest
from mlapp.temporary_folders import open_temporary_folder

MANIFEST = "mlapp-manifest.json"


@dataclass(frozen=True)
class Signer:
    """Signs and verifies the versions of a project according to its settings `store:`.

    Attributes:
        root: the project's folder, the base of relative paths of keys and certificates.
    """

    settings: StoreSettings
    root: Path

    @property
    def is_required(self) -> bool:
        """Whether versions without a valid signature are refused."""
        return self.settings.verify == "required"

    @property
    def can_sign(self) -> bool:
        return self.settings.private_key is not None

    def sign_version(self, manifest: Manifest, files: Path, *, keyless: bool = False) -> str:
        """The signature of a version, as a Sigstore bundle in JSON.

        Args:
            keyless: sign with the identity of this process or of a browser login, instead of a key.

        Raises:
            ConfigError: there is no key, or it is unusable. StoreError: the keyless service refused.
        """
        signing = _import_signature_library().signing.Config().set_hashing_config(_make_signature_hashing())
        settings = self.settings
        if keyless:
            _load_signature_keys(
                lambda: signing.use_sigstore_signer(use_ambient_credentials=True), "No keyless signature can be made"
            )
        elif settings.private_key is None:
            raise ConfigError(
                "No key for signing is configured.",
                "Set store.private_key to the PEM file of an elliptic-curve key, or give --private-key or --keyless.",
            )
        elif settings.signing_certificate is not None:
            key = self._require_key_file(settings.private_key)
            certificate = self._require_key_file(settings.signing_certificate)
            chain = [self._require_key_file(name) for name in settings.certificate_chain]
            _load_signature_keys(
                lambda: signing.use_certificate_signer(
                    private_key=key, signing_certificate=certificate, certificate_chain=chain
                ),
                f"{certificate} and {key} cannot be used to sign",
            )
        else:
            key, password = self._require_key_file(settings.private_key), settings.private_key_password
            _load_signature_keys(
                lambda: signing.use_elliptic_key_signer(
                    private_key=key, password=password.encode() if password else None
                ),
                f"{key} cannot be used to sign",
            )
        with _link_folder_for_signature(manifest, files) as folder, open_temporary_folder("sign") as temporary:
            file = temporary / "model.sig"
            try:
                signing.sign(folder, file)
            except Exception as error:  # several libraries raise different errors
                raise StoreError(
                    f"Version {manifest.version} of '{manifest.app}' cannot be signed: "
                    f"{_explain_signature_failure(error)}",
                    "Check the key; a keyless signature needs a network and an identity.",
                ) from error
            return file.read_text(encoding="utf-8")

    def require_signature(self, manifest: Manifest, files: Path) -> None:
        """Check that a version has a signature of a signer in the settings.

        Raises:
            ConfigError: the settings name no signer. StoreError: no signature is from one of the signers.
        """
        verifiers = list(self._iterate_signature_verifiers())
        if not verifiers:
            raise ConfigError(
                "No trusted signer is configured.",
                "Set store.public_key, store.certificate_chain, or store.identity and store.identity_provider.",
            )
        reasons = []
        with _link_folder_for_signature(manifest, files) as folder, open_temporary_folder("sign") as temporary:
            for text in manifest.signatures:
                file = temporary / "model.sig"
                file.write_text(text, encoding="utf-8")
                for verifier in verifiers:
                    try:
                        verifier.verify(folder, file)
                        return
                    except Exception as error:  # several libraries raise different errors
                        reasons.append(_explain_signature_failure(error))
        problem = f"no signature of it is valid: {reasons[0]}" if reasons else "it is not signed"
        raise StoreError(
            f"Version {manifest.version} of '{manifest.app}' is refused: {problem}.",
            "Choose a signed version, or have it signed by a trusted signer: `mlapp models sign VERSION`.",
        )

    def _iterate_signature_verifiers(self) -> Iterator[Any]:
        """One verifier for each trusted signer in the settings."""
        settings, library = self.settings, _import_signature_library()

        def make_config() -> Any:
            return library.verifying.Config().set_hashing_config(_make_signature_hashing())

        if settings.public_key is not None:
            key = self._require_key_file(settings.public_key)
            yield _load_signature_keys(
                lambda: make_config().use_elliptic_key_verifier(public_key=key), f"{key} is not a public key"
            )
        if settings.certificate_chain:
            chain = [self._require_key_file(name) for name in settings.certificate_chain]
            yield _load_signature_keys(
                lambda: make_config().use_certificate_verifier(certificate_chain=chain),
                f"{chain[0]} is not a certificate",
            )
        if settings.identity is not None:
            if settings.identity_provider is None:
                raise ConfigError(
                    "store.identity is set without store.identity_provider.",
                    "Set both: anyone can have that identity at another provider.",
                )
            yield _load_signature_keys(
                lambda: make_config().use_sigstore_verifier(
                    identity=settings.identity, oidc_issuer=settings.identity_provider
                ),
                "Keyless signatures cannot be verified here",
            )

    def _require_key_file(self, name: str) -> Path:
        path = self.root / Path(name).expanduser()
        if not path.is_file():
            raise ConfigError(f"store: the file {path} does not exist.", "Change the path of the key or certificate.")
        return path


def encode_signed_content(manifest: Manifest) -> bytes:
    """The signed part of the manifest: everything except its number in a store and the signatures."""
    unsigned = msgspec.structs.replace(manifest, version=0, folder="files/0", signatures=[])
    return msgspec.json.encode(unsigned, order="sorted")


@contextmanager
def _link_folder_for_signature(manifest: Manifest, files: Path) -> Iterator[Path]:
    """A temporary folder with the content to sign. Its files are links, to avoid copies."""
    if MANIFEST in manifest.files:
        raise StoreError(f"A version with a file {MANIFEST} cannot be signed.", "Use another file name in the saver.")
    with open_temporary_folder("sign") as temporary:
        folder = temporary / manifest.app
        folder.mkdir()
        for name in manifest.files:
            link = folder / name
            link.parent.mkdir(parents=True, exist_ok=True)
            link.symlink_to((files / name).resolve())
        (folder / MANIFEST).write_bytes(encode_signed_content(manifest))
        yield folder


def _make_signature_hashing() -> Any:
    hashing: Any = _import_signature_library().hashing.Config()
    hashing.use_file_serialization(hashing_algorithm="sha256", allow_symlinks=True)
    return hashing.set_ignored_paths(paths=[], ignore_git_paths=False).set_allow_symlinks(True)


def _import_signature_library() -> Any:
    try:
        import model_signing
        import model_signing.hashing
        import model_signing.signing
        import model_signing.verifying
    except ImportError:
        raise MissingExtraError("Signing and verifying models", "sign") from None
    return model_signing


def _load_signature_keys(load: Callable[[], Any], problem: str) -> Any:
    try:
        return load()
    except Exception as error:  # several libraries raise different errors
        raise ConfigError(
            f"store: {problem}: {_explain_signature_failure(error)}.", "Give a PEM file of an elliptic-curve key."
        ) from error


def _explain_signature_failure(error: Exception) -> str:
    text = next(iter(str(error).strip().splitlines()), "").rstrip(".")
    if text.startswith("Signature mismatch"):
        return "the content differs from the signed content"
    return text or type(error).__name__


def join_signatures(manifest: Manifest, later: Sequence[str]) -> Manifest:
    """The manifest with additional, later signatures."""
    added = [text for text in later if text not in manifest.signatures]
    return msgspec.structs.replace(manifest, signatures=[*manifest.signatures, *added]) if added else manifest
