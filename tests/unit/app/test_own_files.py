"""The broker's own certificate and key as files."""

import ssl
import stat
from pathlib import Path

import pytest
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat

from broker.app.own_files import PairFiles, ask_for_clients, new_context
from broker.issuance.errors import Broken, Unreachable
from tests.peers import authority

PASSPHRASE = b"a passphrase for tests"
ROOT = authority.make_root("root of the tests")


def fresh() -> tuple[bytes, ec.EllipticCurvePrivateKey]:
    """Return a certificate in PEM and its key."""
    server = authority.make_server(ROOT, ["acme.corp.example"])
    return server.certificate_pem, server.key


@pytest.fixture
def files(tmp_path: Path) -> PairFiles:
    """Where a pair will lie."""
    return PairFiles(tmp_path / "tls" / "tls.crt", tmp_path / "tls" / "tls.key", PASSPHRASE)


def test_pair_that_was_put_is_loaded(files: PairFiles) -> None:
    """Its key is nobody else's, and opens with the passphrase alone."""
    chain, key = fresh()
    files.put(chain, key)
    assert files.load().leaf.public_key() == key.public_key()
    assert stat.S_IMODE(files.key.stat().st_mode) == 0o600
    assert b"BEGIN ENCRYPTED PRIVATE KEY" in files.key.read_bytes()
    with pytest.raises(ssl.SSLError):
        new_context().load_cert_chain(files.certificate, files.key, password=b"another one")


def test_key_of_an_earlier_version_is_sealed(files: PairFiles) -> None:
    """It lay there in the clear; the pair stays what it was."""
    chain, key = fresh()
    files.put(chain, key)
    pem = key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption())
    files.key.write_bytes(pem)
    files.seal_key()
    assert b"ENCRYPTED" in files.key.read_bytes()
    assert files.load().leaf.public_key() == key.public_key()


def test_key_and_certificate_of_two_pairs_are_refused(files: PairFiles) -> None:
    """Each of them is good by itself."""
    chain, key = fresh()
    files.put(chain, key)
    files.load()
    files.put(fresh()[0], key)
    with pytest.raises(Broken, match="cannot be used"):
        files.load()


def test_swapped_link_changes_the_stamp(tmp_path: Path) -> None:
    """As Kubernetes swaps the directory of a secret, path and mode being the same."""
    pairs = []
    for name in ("one", "two"):
        files = PairFiles(tmp_path / name / "tls.crt", tmp_path / name / "tls.key", PASSPHRASE)
        files.put(*fresh())
        pairs.append(name)
    link = tmp_path / "data"
    link.symlink_to("one")
    files = PairFiles(link / "tls.crt", link / "tls.key", PASSPHRASE)
    before = files.stamp()
    link.unlink()
    link.symlink_to("two")
    assert before is not None
    assert files.stamp() != before


def test_missing_file_has_no_stamp(files: PairFiles) -> None:
    """There is no pair."""
    assert files.stamp() is None


def test_key_waits_for_its_certificate(files: PairFiles) -> None:
    """Over a restart, and takes its place with it."""
    assert files.read_next_key() is None
    chain, key = fresh()
    files.keep_next_key(key)
    kept = files.read_next_key()
    assert kept is not None
    assert kept.public_key() == key.public_key()
    files.take_next(chain)
    assert files.read_next_key() is None
    assert files.load().leaf.public_key() == key.public_key()


def test_next_key_of_another_passphrase_is_none(files: PairFiles) -> None:
    """A certificate for it would be of no use."""
    files.keep_next_key(fresh()[1])
    other = PairFiles(files.certificate, files.key, b"another passphrase")
    assert other.read_next_key() is None


def test_nothing_is_opened_before_the_passphrase_is_known(files: PairFiles) -> None:
    """It may lie in a Vault that is away: try again, and do not take the files for damaged."""
    waiting = PairFiles(files.certificate, files.key, None)
    for use in (
        waiting.load,
        lambda: waiting.keep_next_key(ec.generate_private_key(ec.SECP256R1())),
    ):
        with pytest.raises(Unreachable, match="could not be read yet"):
            use()
    assert not waiting.next_key.exists()
    waiting.passphrase = PASSPHRASE
    waiting.keep_next_key(ec.generate_private_key(ec.SECP256R1()))
    assert waiting.read_next_key() is not None


def test_clients_may_show_a_certificate_where_anchors_are_named(tmp_path: Path) -> None:
    """And may leave it out; without anchors none is asked for, and a wrong file is told."""
    plain, asking = new_context(), new_context()
    ask_for_clients(plain, None)
    assert plain.verify_mode is ssl.CERT_NONE
    anchors = tmp_path / "clients.pem"
    anchors.write_bytes(ROOT.certificate_pem)
    ask_for_clients(asking, anchors)
    assert asking.verify_mode is ssl.CERT_OPTIONAL
    assert len(asking.get_ca_certs()) == 1
    anchors.write_text("no anchor at all", "ascii")
    with pytest.raises(Broken, match=r"client anchors .* cannot be used"):
        ask_for_clients(new_context(), anchors)
    with pytest.raises(Broken, match="no such file"):
        ask_for_clients(new_context(), tmp_path / "gone.pem")


def test_file_that_cannot_be_looked_at_is_told(tmp_path: Path) -> None:
    """A link to itself, a file for a directory, a name that is too long; the twin is missing."""
    (tmp_path / "loop").symlink_to("loop")
    (tmp_path / "file").touch()
    for path in (tmp_path / "loop", tmp_path / "file" / "tls.crt", tmp_path / ("x" * 300)):
        with pytest.raises(Broken, match="cannot be read: "):
            PairFiles(path, path, b"").stamp()
    assert PairFiles(tmp_path / "gone", tmp_path / "gone", b"").stamp() is None
