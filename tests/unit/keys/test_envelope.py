"""The seal of a backup opens with its passphrase, and with nothing else."""

import io
import json

import pytest

from broker.keys.envelope import SealBroken, new_stream_key, open_stream_key

PASSPHRASE = b"a passphrase for tests"
TEXT = b"0123456789abcdef" * 10_000


def sealed(passphrase: bytes = PASSPHRASE) -> tuple[bytes, bytes]:
    """Return a sealed key and the stream that it encrypted."""
    key, document = new_stream_key(passphrase)
    stream = io.BytesIO()
    key.encrypt(io.BytesIO(TEXT), stream)
    return document, stream.getvalue()


def opened(document: bytes, stream: bytes, passphrase: bytes = PASSPHRASE) -> bytes:
    """Return what the stream holds."""
    target = io.BytesIO()
    open_stream_key(document, passphrase).decrypt(io.BytesIO(stream), target)
    return target.getvalue()


def test_what_was_sealed_comes_back() -> None:
    """Whole, and shown nowhere in the clear."""
    document, stream = sealed()
    assert opened(document, stream) == TEXT
    assert TEXT[:32] not in stream
    assert b"AGE-SECRET" not in document


@pytest.mark.usefixtures("dear_scrypt")
def test_the_passphrase_is_stretched_as_dearly_as_for_keys() -> None:
    """The seal says N, r, p: those of the key files, and they are what it was sealed with."""
    document, stream = sealed()
    told = json.loads(document)["kdf"]
    assert (told["name"], told["n"], told["r"], told["p"]) == ("scrypt", 2**14, 8, 5)
    assert opened(document, stream) == TEXT


def test_another_passphrase_opens_nothing() -> None:
    """And says that it is the passphrase, or damage."""
    document, _ = sealed()
    with pytest.raises(SealBroken, match="not opened by the configured passphrase"):
        open_stream_key(document, b"another passphrase")


@pytest.mark.parametrize("cut", [1, 20_000, 70_000, 140_000])
def test_stream_that_is_cut_off_is_seen(cut: int) -> None:
    """Wherever it ends, between its chunks too."""
    document, stream = sealed()
    with pytest.raises(SealBroken):
        opened(document, stream[:-cut])


@pytest.mark.parametrize("place", [0.3, 0.6, 0.999])
def test_flipped_bit_is_seen(place: float) -> None:
    """In any chunk."""
    document, stream = sealed()
    changed = bytearray(stream)
    changed[int(len(changed) * place)] ^= 1
    with pytest.raises(SealBroken):
        opened(document, bytes(changed))


def test_stream_of_another_key_is_refused() -> None:
    """Nobody who lacks the passphrase can make one that this key opens."""
    document, _ = sealed()
    _, stream = sealed()
    with pytest.raises(SealBroken):
        opened(document, stream)


@pytest.mark.parametrize(
    "document",
    [b"", b"{}", b"no JSON", json.dumps({"format": "penstock-seal/2"}).encode()],
    ids=["empty", "no members", "no JSON", "newer"],
)
def test_key_that_is_none_is_refused(document: bytes) -> None:
    """With a sentence of ours."""
    with pytest.raises(SealBroken):
        open_stream_key(document, PASSPHRASE)
