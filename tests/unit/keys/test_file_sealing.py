"""Without Vault secrets are sealed under a key in a file, which the passphrase opens."""

import asyncio
import json
from pathlib import Path

import pytest

from broker.issuance.errors import Broken, Unreachable
from broker.issuance.key_ports import Sealed, known_secret
from broker.keys.envelope import wrap_secret
from broker.keys.file_sealing import SEALING_FILE, SEALING_FORMAT, FileSealer
from broker.keys.private_files import write_new_file

PASSPHRASE = b"correct horse battery"
SECRET = b"marked-secret-4711"


def sealer(directory: Path, passphrase: bytes = PASSPHRASE) -> FileSealer:
    """Return the sealer of a process that starts now."""
    return FileSealer(directory / "keys", known_secret(passphrase))


async def test_what_one_process_seals_the_next_one_opens(tmp_path: Path) -> None:
    """The key lies in a file of its own, and neither it nor the secret lies there in the clear."""
    sealed = await sealer(tmp_path).seal(SECRET, "whose")
    assert SECRET not in sealed.octets
    path = tmp_path / "keys" / SEALING_FILE
    assert path.stat().st_mode & 0o777 == 0o600
    assert path.parent.stat().st_mode & 0o777 == 0o700
    after = sealer(tmp_path)
    assert await after.unseal(sealed, "whose") == SECRET
    assert await after.sealing_key() == sealed.by
    assert sealed.by.startswith("file:")


async def test_nothing_is_sealed_twice_alike(tmp_path: Path) -> None:
    """Whoever sees two cannot tell that they are the same."""
    made = sealer(tmp_path)
    first, second = await made.seal(SECRET, "whose"), await made.seal(SECRET, "whose")
    assert first.octets != second.octets
    assert SECRET.hex() not in repr(first)
    assert first.octets.hex()[:16] not in repr(first)


@pytest.mark.parametrize("position", [0, 12, -1], ids=["nonce", "text", "tag"])
async def test_what_was_changed_does_not_open(tmp_path: Path, position: int) -> None:
    """Any bit of it."""
    made = sealer(tmp_path)
    sealed = await made.seal(SECRET, "whose")
    octets = bytearray(sealed.octets)
    octets[position] ^= 1
    with pytest.raises(Broken, match="does not open"):
        await made.unseal(Sealed(sealed.by, bytes(octets)), "whose")


@pytest.mark.parametrize("octets", [b"", b"short", bytes(12)], ids=["empty", "short", "no-text"])
async def test_what_is_too_short_does_not_open(tmp_path: Path, octets: bytes) -> None:
    """It is a fault like any other."""
    made = sealer(tmp_path)
    sealed = await made.seal(SECRET, "whose")
    with pytest.raises(Broken, match="does not open"):
        await made.unseal(Sealed(sealed.by, octets), "whose")


async def test_what_was_sealed_for_one_opens_for_no_other(tmp_path: Path) -> None:
    """A row that is copied over another says nothing."""
    made = sealer(tmp_path)
    sealed = await made.seal(SECRET, "whose")
    with pytest.raises(Broken, match="somebody"):
        await made.unseal(sealed, "somebody")


async def test_another_key_is_named(tmp_path: Path) -> None:
    """The file was lost and made anew: a person has to look for the old one."""
    sealed = await sealer(tmp_path / "a").seal(SECRET, "whose")
    other = sealer(tmp_path / "b")
    name = await other.sealing_key()
    with pytest.raises(Broken, match=f"sealed under {sealed.by}.* holds {name}"):
        await other.unseal(sealed, "whose")


async def test_opening_never_makes_a_key(tmp_path: Path) -> None:
    """One that is lost is told of, and not replaced behind anybody's back."""
    sealed = await sealer(tmp_path).seal(SECRET, "whose")
    (tmp_path / "keys" / SEALING_FILE).unlink()
    with pytest.raises(Broken, match="there is no key file"):
        await sealer(tmp_path).unseal(sealed, "whose")
    assert list((tmp_path / "keys").iterdir()) == []


async def test_other_passphrase_does_not_open_the_key(tmp_path: Path) -> None:
    """And the sentence says so."""
    await sealer(tmp_path).sealing_key()
    with pytest.raises(Broken, match="not opened by the configured passphrase"):
        await sealer(tmp_path, b"another passphrase").sealing_key()


@pytest.mark.parametrize(
    ("content", "sentence"),
    [
        pytest.param(b"", "is not what was written there", id="empty"),
        pytest.param(b"[]", "is not what was written there", id="list"),
        pytest.param(b"{}", "is not what was written there", id="no-members"),
        pytest.param(b'{"format": "penstock-sealing-key/2"}', "a newer version", id="newer"),
    ],
)
async def test_file_that_is_no_key_is_refused(
    tmp_path: Path, content: bytes, sentence: str
) -> None:
    """Nothing is guessed, and nothing written over it."""
    directory = tmp_path / "keys"
    directory.mkdir(mode=0o700)
    path = directory / SEALING_FILE
    path.touch(mode=0o600)
    path.write_bytes(content)
    with pytest.raises(Broken, match=sentence):
        await sealer(tmp_path).seal(SECRET, "whose")
    assert path.read_bytes() == content


async def test_shortened_key_is_refused(tmp_path: Path) -> None:
    """One of 16 bytes would be taken by the cipher."""
    directory = tmp_path / "keys"
    directory.mkdir(mode=0o700)
    wrapping, sealed = wrap_secret(bytes(16), PASSPHRASE)
    document = {"format": SEALING_FORMAT, **wrapping, "key": sealed}
    write_new_file(directory / SEALING_FILE, json.dumps(document).encode())
    with pytest.raises(Broken, match="not 32 bytes"):
        await sealer(tmp_path).sealing_key()


async def test_passphrase_that_lies_in_vault_is_waited_for(tmp_path: Path) -> None:
    """Nothing is made before it can be read."""
    is_sealed = True

    async def passphrase() -> bytes:
        if is_sealed:
            raise Unreachable("Vault is sealed")
        return PASSPHRASE

    made = FileSealer(tmp_path / "keys", passphrase)
    with pytest.raises(Unreachable):
        await made.seal(SECRET, "whose")
    assert not (tmp_path / "keys").exists()
    is_sealed = False
    assert await made.unseal(await made.seal(SECRET, "whose"), "whose") == SECRET


async def test_eight_at_once_make_one_key(tmp_path: Path) -> None:
    """And so do two processes, of which one is first."""
    first, second = sealer(tmp_path), sealer(tmp_path)
    names = await asyncio.gather(*(one.sealing_key() for one in (first, second) * 4))
    assert len(set(names)) == 1
