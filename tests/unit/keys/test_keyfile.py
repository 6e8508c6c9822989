"""Keys in files: made whole, kept from others, opened once."""

# The loop of a test serves nobody who could be kept waiting by its disk.
# ruff: noqa: ASYNC240

import asyncio
import os
import stat
from pathlib import Path

import pytest
from cryptography.hazmat.primitives.asymmetric import ec, rsa

from broker.issuance.errors import Broken, Conflict, Unreachable
from broker.keys.encryption import decrypt_private_key
from broker.keys.keyfile import KeyFileSigner
from broker.keys.private_files import MAX_KEY_FILE_BYTES

PASSPHRASE = b"correct horse battery"


@pytest.fixture
def directory(tmp_path: Path) -> Path:
    """A key directory that is not there yet."""
    return tmp_path / "keys"


def signer(directory: Path, passphrase: bytes = PASSPHRASE) -> KeyFileSigner:
    """Return a signer as after a restart."""
    return KeyFileSigner(directory, passphrase)


async def test_file_and_directory_are_for_their_owner_alone(directory: Path) -> None:
    """Both are made closed, not closed afterwards, whatever the umask says."""
    before = os.umask(0)
    try:
        await signer(directory).create_key("account", "ec-p256")
    finally:
        os.umask(before)
    assert stat.S_IMODE(directory.stat().st_mode) == 0o700
    assert stat.S_IMODE((directory / "account.pem").stat().st_mode) == 0o600


async def test_nothing_but_the_key_file_is_left(directory: Path) -> None:
    """The draft that it was written to has gone."""
    await signer(directory).create_key("account", "ec-p256")
    assert [path.name for path in directory.iterdir()] == ["account.pem"]


async def test_the_key_in_the_file_is_encrypted(directory: Path) -> None:
    """The file opens with the passphrase, and holds the very key that signs."""
    spki_der = await signer(directory).create_key("account", "ec-p256")
    key = decrypt_private_key((directory / "account.pem").read_bytes(), PASSPHRASE)
    assert await signer(directory).public_key("account") == spki_der
    assert key.key_size == 256


async def test_a_key_survives_a_restart(directory: Path) -> None:
    """A new signer over the same files has the same key."""
    spki_der = await signer(directory).create_key("account", "ec-p384")
    assert await signer(directory).public_key("account") == spki_der


async def test_a_taken_name_is_left_alone(directory: Path) -> None:
    """Creating again is a conflict, and the first key stays."""
    first = await signer(directory).create_key("account", "ec-p256")
    content = (directory / "account.pem").read_bytes()
    with pytest.raises(Conflict, match="left alone"):
        await signer(directory).create_key("account", "ec-p256")
    assert (directory / "account.pem").read_bytes() == content
    assert await signer(directory).public_key("account") == first


async def test_eight_creators_at_once_make_one_key(directory: Path) -> None:
    """All but one lose, and the one key is the one that was returned."""
    results = await asyncio.gather(
        *(signer(directory).create_key("account", "ec-p256") for _ in range(8)),
        return_exceptions=True,
    )
    won = [result for result in results if isinstance(result, bytes)]
    assert [type(result) for result in results].count(Conflict) == 7
    assert won == [await signer(directory).public_key("account")]
    assert [path.name for path in directory.iterdir()] == ["account.pem"]


@pytest.mark.parametrize("mode", [0o640, 0o604, 0o620, 0o660, 0o777])
async def test_a_file_that_others_can_reach_is_refused(directory: Path, mode: int) -> None:
    """The refusal names the mode and the remedy; closed again, the file opens."""
    await signer(directory).create_key("account", "ec-p256")
    path = directory / "account.pem"
    path.chmod(mode)
    with pytest.raises(Broken, match=rf"mode {mode:04o}.*chmod 600"):
        await signer(directory).public_key("account")
    path.chmod(0o600)
    await signer(directory).public_key("account")


async def test_a_directory_that_others_can_reach_is_refused(directory: Path) -> None:
    """Whoever can write there can put another key in place."""
    await signer(directory).create_key("account", "ec-p256")
    directory.chmod(0o750)
    with pytest.raises(Broken, match="chmod 700"):
        await signer(directory).public_key("account")
    with pytest.raises(Broken, match="chmod 700"):
        await signer(directory).create_key("other", "ec-p256")
    directory.chmod(0o700)
    await signer(directory).public_key("account")


async def test_a_link_is_not_followed(directory: Path, tmp_path: Path) -> None:
    """A key file is a file in this directory, not a pointer out of it."""
    await signer(directory).create_key("account", "ec-p256")
    elsewhere = tmp_path / "elsewhere.pem"
    (directory / "account.pem").rename(elsewhere)
    (directory / "account.pem").symlink_to(elsewhere)
    with pytest.raises(Broken, match="cannot be read"):
        await signer(directory).public_key("account")


async def test_a_pipe_in_place_of_a_file_is_refused_at_once(directory: Path) -> None:
    """Opening it must not wait for somebody who writes."""
    directory.mkdir(mode=0o700)
    os.mkfifo(directory / "account.pem", 0o600)
    with pytest.raises(Broken, match="not a regular file"):
        await signer(directory).public_key("account")


async def test_a_file_of_any_size_is_not_read_into_memory(directory: Path) -> None:
    """A key file has a size that keys have."""
    directory.mkdir(mode=0o700)
    path = directory / "account.pem"
    path.touch(mode=0o600)
    path.write_bytes(b"x" * (MAX_KEY_FILE_BYTES + 1))
    with pytest.raises(Broken, match="larger than 16384 bytes"):
        await signer(directory).public_key("account")


async def test_a_wrong_passphrase_is_told_by_file(directory: Path) -> None:
    """The sentence names the file, and nothing of the key or the passphrase."""
    await signer(directory).create_key("account", "ec-p256")
    with pytest.raises(Broken, match=r"account\.pem is not opened by") as caught:
        await signer(directory, b"another passphrase").public_key("account")
    assert "another" not in caught.value.reason


async def test_a_missing_key_is_told_by_file(directory: Path) -> None:
    """Signing with a key that was never made is a fault of the set-up."""
    directory.mkdir(mode=0o700)
    with pytest.raises(Broken, match=r"there is no key file .*account\.pem"):
        await signer(directory).sign("account", b"data")


async def test_a_missing_directory_is_told(directory: Path) -> None:
    """So is a directory that was never made."""
    with pytest.raises(Broken, match="key directory"):
        await signer(directory).public_key("account")


async def test_a_directory_that_cannot_be_made_is_told(tmp_path: Path) -> None:
    """A file stands where the directory should."""
    (tmp_path / "keys").touch()
    with pytest.raises(Broken, match="cannot be written"):
        await signer(tmp_path / "keys" / "more").create_key("account", "ec-p256")


@pytest.mark.parametrize(
    "key_id",
    [
        pytest.param("", id="empty"),
        pytest.param("../account", id="upwards"),
        pytest.param("a/b", id="slash"),
        pytest.param(".hidden", id="dot-first"),
        pytest.param("a\nb", id="line-break"),
        pytest.param("a" * 129, id="too-long"),
        pytest.param("ä", id="not-ascii"),
    ],
)
async def test_a_key_id_that_is_no_file_name_is_refused(directory: Path, key_id: str) -> None:
    """A key id never leads out of the directory."""
    with pytest.raises(Broken, match="no file name"):
        await signer(directory).create_key(key_id, "ec-p256")
    with pytest.raises(Broken, match="no file name"):
        await signer(directory).public_key(key_id)


async def test_an_unknown_kind_is_refused_by_name(directory: Path) -> None:
    """The sentence lists the kinds there are."""
    with pytest.raises(Broken, match="'ec-p521' is unknown, expected one of ec-p256"):
        await signer(directory).create_key("account", "ec-p521")


async def test_a_passphrase_that_protects_nothing_is_refused(directory: Path) -> None:
    """Its length is told with the limit."""
    with pytest.raises(Broken, match="11 bytes long, expected at least 12"):
        signer(directory, b"x" * 11)
    signer(directory, b"x" * 12)


async def test_a_key_is_decrypted_once(directory: Path) -> None:
    """After the first use the file is not opened again, not even for many askers at once."""
    await signer(directory).create_key("account", "ec-p256")
    fresh = signer(directory)
    asking = [asyncio.ensure_future(fresh.public_key("account")) for _ in range(8)]
    first = await asking[0]
    (directory / "account.pem").unlink()
    assert await asyncio.gather(*asking) == [first] * 8
    assert await fresh.public_key("account") == first


async def test_destroyed_key_is_gone_from_disk_and_memory(directory: Path) -> None:
    """For this process and the next; another key stays, and a second call changes nothing."""
    made = signer(directory)
    await made.create_key("one", "ec-p256")
    await made.create_key("two", "ec-p256")
    assert await made.has_key("one")
    await made.destroy_key("one")
    await made.destroy_key("one")
    assert not await made.has_key("one")
    assert [path.name for path in directory.iterdir()] == ["two.pem"]
    for process in (made, signer(directory)):
        with pytest.raises(Broken, match="there is no key file"):
            await process.sign("one", b"data")
        await process.sign("two", b"data")
    await made.create_key("one", "ec-p256")


async def test_key_that_cannot_be_destroyed_is_told(directory: Path) -> None:
    """A directory has its name; whoever asked must not think that it is gone."""
    (directory / "one.pem").mkdir(parents=True)
    assert await signer(directory).has_key("one")
    with pytest.raises(Broken, match=r"one\.pem cannot be removed: "):
        await signer(directory).destroy_key("one")


async def test_passphrase_that_lies_in_vault_is_read_when_a_key_is_needed(tmp_path: Path) -> None:
    """Until then nothing is asked, and while it is away nothing is made or opened."""
    answers: list[bytes] = []

    async def passphrase() -> bytes:
        if not answers:
            raise Unreachable("Vault is sealed")
        return answers[0]

    signer = KeyFileSigner(tmp_path / "keys", passphrase)
    with pytest.raises(Unreachable):
        await signer.create_key("key", "ec-p256")
    assert not await signer.has_key("key")
    answers.append(b"short")
    with pytest.raises(Broken, match="5 bytes long"):
        await signer.create_key("key", "ec-p256")
    answers[:] = [b"correct horse battery"]
    spki = await signer.create_key("key", "ec-p256")
    answers.clear()
    # A key that is open needs it no more; the next process does.
    assert await signer.sign("key", b"data")
    with pytest.raises(Unreachable):
        await KeyFileSigner(tmp_path / "keys", passphrase).public_key("key")
    assert (
        await KeyFileSigner(tmp_path / "keys", b"correct horse battery").public_key("key") == spki
    )


async def test_key_from_elsewhere_is_kept_like_our_own(directory: Path) -> None:
    """It signs after a restart, in a closed file; a name that is taken is left alone."""
    key = ec.generate_private_key(ec.SECP256R1())
    spki_der = await signer(directory).import_key("adopted", key)
    again = signer(directory)
    assert await again.public_key("adopted") == spki_der
    assert len(await again.sign("adopted", b"data")) == 64
    assert stat.S_IMODE((directory / "adopted.pem").stat().st_mode) == 0o600
    with pytest.raises(Conflict, match="left alone"):
        await again.import_key("adopted", ec.generate_private_key(ec.SECP256R1()))


async def test_key_that_is_not_there_is_not_wrapped(directory: Path) -> None:
    """The twin of bringing one into Vault."""
    wrapping = rsa.generate_private_key(65537, 2048).public_key()
    await signer(directory).create_key("account", "ec-p256")
    assert len(await signer(directory).wrapped_key("account", wrapping)) > 256
    with pytest.raises(Broken, match="there is no key file"):
        await signer(directory).wrapped_key("nothing", wrapping)


async def test_keys_are_listed_by_their_files(directory: Path) -> None:
    """Drafts and other files are none, and without a directory there is none."""
    signer = KeyFileSigner(directory, PASSPHRASE)
    assert await signer.key_ids() == []
    await signer.create_key("b", "ec-p256")
    await signer.create_key("a@x", "ec-p256")
    (directory / ".c.pem.draft").touch()
    (directory / ".d.pem").touch()
    (directory / "seal.key").touch()
    assert await signer.key_ids() == ["a@x", "b"]
