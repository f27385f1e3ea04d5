"""`mlapp models sign` and `verify`"""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from mlapp.cli import output
from mlapp.cli.options import Json, Version

if TYPE_CHECKING:
    from collections.abc import Mapping

    from mlapp.project import Project
    from mlapp.store import Store


def sign_version(
    version: Version = "latest",
    private_key: Annotated[str | None, typer.Option(help="PEM file of the key. [store.private_key]")] = None,
    signing_certificate: Annotated[str | None, typer.Option(help="PEM file of the key's certificate.")] = None,
    certificate_chain: Annotated[
        list[str] | None,
        typer.Option(
            help="PEM file of an authority that issued the certificate, directly or indirectly. Can be repeated."
        ),
    ] = None,
    keyless: Annotated[
        bool, typer.Option("--keyless", help="Sign with the identity of this CI job or of a login (Sigstore).")
    ] = False,
    json: Json = False,
) -> None:
    """Sign a version, in the format of OpenSSF Model Signing.

    Prints the version number. A version can have several signatures, which are copied with it.

    Examples:

      mlapp models sign 7 --private-key ~/keys/models.pem

      mlapp models sign production --keyless
    """
    from mlapp.project import Project

    project = Project.find()
    keys = {
        "private_key": _resolve_signature_key_path(private_key),
        "signing_certificate": _resolve_signature_key_path(signing_certificate),
        "certificate_chain": [_resolve_signature_key_path(name) for name in certificate_chain or []],
    }
    store = _open_store_with_keys(project, keys)
    number = store.sign_version(project.name, version, keyless=keyless)
    if json:
        output.print_json({"app": project.name, "version": number})
        return
    output.print_note(f"Version {number} of {project.name} is signed.")
    output.print_result(str(number))


def verify_version(
    version: Version = "latest",
    public_key: Annotated[str | None, typer.Option(help="PEM file of the key. [store.public_key]")] = None,
    certificate_chain: Annotated[
        list[str] | None, typer.Option(help="PEM file of a trusted certificate authority. Can be repeated.")
    ] = None,
    identity: Annotated[
        str | None, typer.Option(help="Trusted identity of keyless signatures, such as an e-mail address.")
    ] = None,
    identity_provider: Annotated[
        str | None, typer.Option(help="URL of the OpenID Connect provider of the identity.")
    ] = None,
    json: Json = False,
) -> None:
    """Check a version's files and that it has a valid signature. Exits with 1 if it has none.

    Examples:

      mlapp models verify production

      mlapp models verify 7 --public-key models.pub
    """
    from mlapp.project import Project

    project = Project.find()
    keys = {
        "public_key": _resolve_signature_key_path(public_key),
        "certificate_chain": [_resolve_signature_key_path(name) for name in certificate_chain or []],
        "identity": identity,
        "identity_provider": identity_provider,
    }
    number = _open_store_with_keys(project, keys).verify_version(project.name, version)
    if json:
        output.print_json({"app": project.name, "version": number, "verified": True})
        return
    output.print_note(f"Version {number} of {project.name} has a valid signature.")
    output.print_result(str(number))


def _resolve_signature_key_path(name: str | None) -> str | None:
    """Make a path of the command line absolute, because the store resolves relative ones in the project's folder."""
    return None if name is None else str(Path(name).expanduser().absolute())


def _open_store_with_keys(project: Project, keys: Mapping[str, Any]) -> Store:
    """The project's store; keys given as flags replace those of the settings."""
    import msgspec

    overrides = {name: value for name, value in keys.items() if value}
    return project.open_store(msgspec.structs.replace(project.settings.store, **overrides))
