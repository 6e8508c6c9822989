"""Keys that come from elsewhere, and what Vault is handed of them."""

from __future__ import annotations

import base64
import hashlib
from collections.abc import AsyncIterator, Callable, Mapping
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any, TypeVar

import pytest
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec, padding, rsa
from cryptography.hazmat.primitives.asymmetric.utils import decode_dss_signature
from cryptography.hazmat.primitives.keywrap import aes_key_unwrap_with_padding
from cryptography.hazmat.primitives.serialization import (
    Encoding,
    PublicFormat,
    load_der_private_key,
)

from broker.issuance.errors import Broken, Conflict
from broker.keys.encryption import PrivateKey
from broker.keys.importing import pkcs8_of
from broker.keys.keyfile import KeyFileSigner
from broker.keys.moving import KeyImporter, kind_of
from broker.keys.vault import VaultSigner
from broker.keys.vault_answers import VaultNotFound

P256 = ec.generate_private_key(ec.SECP256R1())
OTHER = ec.generate_private_key(ec.SECP256R1())
RSA = rsa.generate_private_key(65537, 2048)
WRAPPING = rsa.generate_private_key(65537, 2048)
T = TypeVar("T")
PASSPHRASE = b"correct horse battery"
NAME = "penstock.default.ca"
FIRST = f"vault:transit/{NAME}#1"


class FakeVault:
    """A transit engine that imports keys and signs with them, as `Connections` and as `Session`."""

    def __init__(self) -> None:
        self.keys: dict[str, list[PrivateKey]] = {}
        self.imported: list[Mapping[str, Any]] = []
        self.logins = 0
        self.wrapping: Any = WRAPPING.public_key().public_bytes(
            Encoding.PEM, PublicFormat.SubjectPublicKeyInfo
        )
        self.swaps: PrivateKey | None = None
        """What it keeps instead of what it is handed."""

    def serving(self, mount: str) -> FakeVault:
        return self

    @asynccontextmanager
    async def rotating(self, mount: str) -> AsyncIterator[FakeVault]:
        self.logins += 1
        yield self

    async def get(self, path: str) -> Mapping[str, Any]:
        if path.endswith("/wrapping_key"):
            return {"public_key": self.wrapping.decode()}
        name = path.rpartition("/")[2]
        if name not in self.keys:
            raise VaultNotFound("there is nothing")
        versions = self.keys[name]
        return {
            "type": "ecdsa-p256" if kind_of(versions[0].public_key()) == "ec-p256" else "rsa-2048",
            "latest_version": len(versions),
            "min_decryption_version": 1,
            "min_encryption_version": 0,
            "keys": {str(at): {"public_key": pem(key)} for at, key in enumerate(versions, 1)},
            "exportable": False,
            "allow_plaintext_backup": False,
            "deletion_allowed": False,
            "imported_key": True,
        }

    async def run(self, call: Callable[[Any], T]) -> T:
        return call(FakeClient(self))

    async def post(self, path: str, document: Mapping[str, Any]) -> Mapping[str, Any]:
        key = self.keys[path.split("/")[-2]][document["key_version"] - 1]
        data = base64.b64decode(document["input"])
        if isinstance(key, rsa.RSAPrivateKey):
            octets = key.sign(data, padding.PKCS1v15(), hashes.SHA256())
        else:
            r, s = decode_dss_signature(key.sign(data, ec.ECDSA(hashes.SHA256())))
            octets = r.to_bytes(32, "big") + s.to_bytes(32, "big")
        text = base64.urlsafe_b64encode(octets).rstrip(b"=").decode()
        return {"signature": f"vault:v{document['key_version']}:{text}"}


class FakeClient:
    """What of hvac is called."""

    def __init__(self, vault: FakeVault) -> None:
        self._vault = vault

    def write_data(self, path: str, *, data: Mapping[str, Any]) -> None:
        assert path.endswith("/import")
        self._vault.imported.append(data)
        key = self._vault.swaps or unwrap(base64.b64decode(data["ciphertext"]))
        self._vault.keys[path.split("/")[-2]] = [key]


def pem(key: PrivateKey) -> str:
    """Return the public half as Vault tells it."""
    return key.public_key().public_bytes(Encoding.PEM, PublicFormat.SubjectPublicKeyInfo).decode()


def unwrap(ciphertext: bytes) -> PrivateKey:
    """Open what came, as Vault does: RSA-OAEP with SHA-256, then AES key wrap with padding."""
    oaep = padding.OAEP(mgf=padding.MGF1(hashes.SHA256()), algorithm=hashes.SHA256(), label=None)
    once = WRAPPING.decrypt(ciphertext[:256], oaep)
    assert len(once) == 32
    key = load_der_private_key(aes_key_unwrap_with_padding(once, ciphertext[256:]), None)
    assert isinstance(key, ec.EllipticCurvePrivateKey | rsa.RSAPrivateKey)
    return key


@pytest.fixture
def files(tmp_path: Path) -> KeyFileSigner:
    """Key files."""
    return KeyFileSigner(tmp_path / "keys", PASSPHRASE)


@pytest.fixture
def vault() -> FakeVault:
    """An empty engine."""
    return FakeVault()


@pytest.fixture
def importer(files: KeyFileSigner, vault: FakeVault) -> KeyImporter:
    """What is tried."""
    return KeyImporter(files, VaultSigner(vault), vault)


async def test_foreign_key_is_kept_encrypted(
    importer: KeyImporter, files: KeyFileSigner, tmp_path: Path
) -> None:
    """Under the passphrase, like one of our own; a second time nothing happens."""
    await importer.take_in("adopted", pkcs8_of(P256))
    await importer.take_in("adopted", pkcs8_of(P256))
    again = KeyFileSigner(tmp_path / "keys", PASSPHRASE)
    assert await again.public_key("adopted") == await files.public_key("adopted")
    content = (tmp_path / "keys" / "adopted.pem").read_bytes()
    assert b"BEGIN ENCRYPTED PRIVATE KEY" in content
    with pytest.raises(Conflict, match="is there already"):
        await importer.take_in("adopted", pkcs8_of(OTHER))


async def test_what_is_no_key_is_not_kept(importer: KeyImporter) -> None:
    """The sentence shows nothing of it."""
    with pytest.raises(Broken, match="no private key in plain PKCS#8"):
        await importer.take_in("adopted", b"secret octets")


@pytest.mark.parametrize("key", [P256, RSA], ids=["ec", "rsa"])
async def test_key_is_brought_wrapped_and_signs_there(
    importer: KeyImporter, vault: FakeVault, key: PrivateKey
) -> None:
    """Not to be exported there nor backed up, and it may be rotated."""
    await importer.take_in("adopted", pkcs8_of(key))
    assert await importer.destination("adopted", "transit", NAME) == (FIRST, False)
    await importer.bring("adopted", FIRST)
    (document,) = vault.imported
    assert pkcs8_of(vault.keys[NAME][0]) == pkcs8_of(key)
    assert {name: document[name] for name in document if name != "ciphertext"} == {
        "hash_function": "SHA256",
        "type": "ecdsa-p256" if key is P256 else "rsa-2048",
        "allow_rotation": True,
        "exportable": False,
        "allow_plaintext_backup": False,
    }
    plain = hashlib.sha256(pkcs8_of(key)).hexdigest()
    assert plain not in str(document)


async def test_bringing_goes_on_where_it_was(importer: KeyImporter, vault: FakeVault) -> None:
    """What is there already is not brought twice, and is found again by its public key."""
    await importer.take_in("adopted", pkcs8_of(P256))
    await importer.bring("adopted", FIRST)
    await importer.bring("adopted", FIRST)
    assert (len(vault.imported), vault.logins) == (1, 1)
    vault.keys[NAME].append(OTHER)
    assert await importer.destination("adopted", "transit", NAME) == (FIRST, True)


async def test_key_of_somebody_else_is_never_taken(importer: KeyImporter, vault: FakeVault) -> None:
    """By the name, or by what Vault made of what it was handed."""
    await importer.take_in("adopted", pkcs8_of(P256))
    vault.keys[NAME] = [OTHER]
    with pytest.raises(Broken, match=f"there is a key transit/{NAME} in Vault already"):
        await importer.destination("adopted", "transit", NAME)
    with pytest.raises(Broken, match="is another one than that of 'adopted'"):
        await importer.bring("adopted", FIRST)


async def test_vault_that_keeps_another_key_is_found_out(
    importer: KeyImporter, vault: FakeVault
) -> None:
    """Before the file would be let go."""
    await importer.take_in("adopted", pkcs8_of(P256))
    vault.swaps = OTHER
    with pytest.raises(Broken, match="is another one than that of 'adopted'"):
        await importer.bring("adopted", FIRST)


@pytest.mark.parametrize(
    "wrapping",
    [b"no key", OTHER.public_key().public_bytes(Encoding.PEM, PublicFormat.SubjectPublicKeyInfo)],
    ids=["nonsense", "ec"],
)
async def test_wrapping_key_that_is_none_gets_nothing(
    importer: KeyImporter, vault: FakeVault, wrapping: bytes
) -> None:
    """The key stays where it is."""
    await importer.take_in("adopted", pkcs8_of(P256))
    vault.wrapping = wrapping
    with pytest.raises(Broken, match="is no wrapping key"):
        await importer.bring("adopted", FIRST)
    assert vault.imported == []


async def test_kind_that_vault_does_not_take_is_refused(importer: KeyImporter) -> None:
    """Such as a key of 2,560 bits, which a CA takes."""
    odd = rsa.generate_private_key(65537, 2560)
    await importer.take_in("adopted", pkcs8_of(odd))
    assert await importer.kind_of("adopted") == "rsa-2560"
    with pytest.raises(Broken, match="of kind rsa-2560, expected one that Vault takes"):
        await importer.destination("adopted", "transit", NAME)


async def test_without_vault_there_is_nowhere_to_bring_it(files: KeyFileSigner) -> None:
    """The sentence says what to configure."""
    importer = KeyImporter(files)
    await importer.take_in("adopted", pkcs8_of(P256))
    with pytest.raises(Broken, match="no Vault is configured"):
        await importer.bring("adopted", FIRST)
