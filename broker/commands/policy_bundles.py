"""``penstock policy bundle``: signed sets of policy files, made where the people are.

Nothing here asks a broker.  Private keys are read on the machine of whoever signs; ``openssl``
signs the same octets, where a key lies in a token.
"""

from __future__ import annotations

import base64
from pathlib import Path
from typing import Final

import click
from cryptography.exceptions import UnsupportedAlgorithm
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec, ed25519
from cryptography.hazmat.primitives.serialization import (
    Encoding,
    PublicFormat,
    load_pem_private_key,
)

from broker.commands.failures import CommandFailed, readable
from broker.commands.options import as_json, config_option
from broker.commands.output import print_json, print_pairs
from broker.issuance.errors import Unreachable
from broker.issuance.policy_ports import PolicyTexts
from broker.policy.manifest import (
    MANIFEST_NAME,
    Manifest,
    SigningKey,
    VerifyKey,
    check_listed,
    parse_manifest,
    parse_verify_key,
    verify_bundle,
)
from broker.policy.yamlfile import Faults

__all__ = ["bundle"]

MAX_KEY_BYTES: Final = 64 * 1024
"""Largest private key that is read, in bytes; one in PEM measures some hundred."""

_directory = click.argument(
    "directory", metavar="DIRECTORY", type=click.Path(path_type=Path, file_okay=False)
)


@click.group("bundle", short_help="Policies that several people sign.")
def bundle() -> None:
    """Policies that several people sign, for brokers whose configuration has 'policy.bundle'."""


@bundle.command("make", short_help="Write the manifest that people sign.")
@_directory
@click.option("--version", type=click.IntRange(1), required=True, help="Higher than any before.")
@click.option(
    "--audience", metavar="NAME", default="penstock", show_default=True, help="Which brokers."
)
def make(directory: Path, version: int, audience: str) -> None:
    """Write bundle.manifest into DIRECTORY: every policy file with its SHA-256, and the version.

    Signatures that lie there are taken away, for they are over another manifest.
    """
    texts = _read(directory)
    made = Manifest(audience=audience, version=version, files=texts.digests)
    with readable("policy files"):
        parse_manifest(str(made).encode())
    try:
        for name in texts.bundle:
            if name != MANIFEST_NAME:
                (directory / name).unlink()
        (directory / MANIFEST_NAME).write_text(str(made), encoding="utf-8")
    except OSError as error:
        reason = (error.strerror or str(error)).lower()
        raise CommandFailed(f"{directory} cannot be written: {reason}") from error
    click.echo(f"{directory / MANIFEST_NAME}: version {version}, {len(made.files)} files")
    click.echo(f"set sha256: {texts.sha256}")


@bundle.command("sign", short_help="Sign the manifest with one's own key.")
@_directory
@click.option(
    "--key",
    "key_path",
    metavar="FILE",
    required=True,
    type=click.Path(path_type=Path, dir_okay=False),
    help="Private key in PEM, Ed25519 or ECDSA P-256.",
)
@click.option(
    "--as", "name", metavar="NAME", required=True, help="Whose signature; names its file."
)
def sign(directory: Path, key_path: Path, name: str) -> None:
    """Sign bundle.manifest in DIRECTORY, after a look that the files are as it says.

    Writes bundle.NAME.sig. The private key is read here and goes nowhere.
    """
    texts = _read(directory)
    octets = texts.bundle.get(MANIFEST_NAME)
    if octets is None:
        raise CommandFailed(f"{directory} has no {MANIFEST_NAME}", "penstock policy bundle make")
    with readable("policy files"):
        manifest = parse_manifest(octets)
        faults = list(check_listed(texts.files, manifest))
        if faults:
            raise Faults(faults)
    key = _read_key(key_path)
    if isinstance(key, ed25519.Ed25519PrivateKey):
        signature = key.sign(octets)
    else:
        signature = key.sign(octets, ec.ECDSA(hashes.SHA256()))
    path = directory / f"bundle.{name}.sig"
    if not name.replace("-", "").replace("_", "").isalnum() or not name.isascii():
        raise CommandFailed(f"'{name}' is no name of a file: letters, digits, '-' and '_'")
    try:
        path.write_bytes(base64.b64encode(signature) + b"\n")
    except OSError as error:
        reason = (error.strerror or str(error)).lower()
        raise CommandFailed(f"{path} cannot be written: {reason}") from error
    click.echo(f"{path}: version {manifest.version} for {manifest.audience}, set {texts.sha256}")
    click.echo(f"public key: {_public_text(key)}")


@bundle.command("verify", short_help="Check signatures as a broker would.")
@_directory
@click.option("--signer", "signers", metavar="NAME=KEY", multiple=True, help="Instead of a file.")
@click.option("--needed", type=click.IntRange(1), default=1, help="With --signer: how many.")
@click.option("--audience", metavar="NAME", default="penstock", help="With --signer: for whom.")
@config_option
@as_json
def verify(
    directory: Path,
    signers: tuple[str, ...],
    needed: int,
    audience: str,
    config_path: Path,
    *,
    is_json: bool,
) -> None:
    """Check the manifest and its signatures in DIRECTORY as the broker of --config would.

    The version is not held against the one in force. Exit status: 0 they are enough, 2 not.
    """
    if signers:
        keys = dict(_signer(one) for one in signers)
    else:
        keys, needed, audience = _configured(config_path)
    texts = _read(directory)
    with readable("policy files"):
        seal = verify_bundle(texts.files, texts.bundle, keys=keys, needed=needed, audience=audience)
    told = {"version": seal.version, "signers": list(seal.signers), "sha256": texts.sha256}
    if is_json:
        print_json(told)
    else:
        print_pairs(told)


def _read(directory: Path) -> PolicyTexts:
    from broker.config.policy_files import read_policy_files

    with readable("policy files"):
        try:
            return read_policy_files([directory])
        except Unreachable as error:
            raise CommandFailed(error.reason, "try again when nobody writes to them") from error


def _read_key(path: Path) -> SigningKey:
    try:
        with path.open("rb") as file:
            pem = file.read(MAX_KEY_BYTES)
    except OSError as error:
        reason = (error.strerror or "it cannot be read").lower()
        raise CommandFailed(f"{path} cannot be read: {reason}") from error
    secret: bytes | None = None
    if b"ENCRYPTED" in pem:
        secret = click.prompt("passphrase", hide_input=True, err=True).encode()
    try:
        key = load_pem_private_key(pem, secret)
    except (ValueError, TypeError, UnsupportedAlgorithm) as error:
        raise CommandFailed(
            f"{path} is no private key in PEM, or the passphrase is wrong"
        ) from error
    if isinstance(key, ed25519.Ed25519PrivateKey):
        return key
    if isinstance(key, ec.EllipticCurvePrivateKey) and key.curve.name == "secp256r1":
        return key
    raise CommandFailed(f"{path} is of another kind than Ed25519 and ECDSA on P-256")


def _public_text(key: SigningKey) -> str:
    spki = key.public_key().public_bytes(Encoding.DER, PublicFormat.SubjectPublicKeyInfo)
    return base64.b64encode(spki).decode()


def _signer(text: str) -> tuple[str, VerifyKey]:
    name, _, key = text.partition("=")
    try:
        return name, parse_verify_key(key)
    except ValueError as error:
        raise click.UsageError(f"--signer {name}: {error}") from error


def _configured(config_path: Path) -> tuple[dict[str, VerifyKey], int, str]:
    from broker.config import load_config

    with readable():
        wanted = load_config(config_path).policy.bundle
    if wanted is None:
        raise CommandFailed(
            f"{config_path} demands no signed policies", "name signers with --signer NAME=KEY"
        )
    keys = {one.name: parse_verify_key(one.key) for one in wanted.signers}
    return keys, wanted.needed, wanted.audience
