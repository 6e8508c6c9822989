"""Every operation of the child, by the library and by the program, with the same outcome."""

from __future__ import annotations

import base64
import hashlib
import io
import json
import os
import ssl
import stat
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec, padding, rsa
from cryptography.hazmat.primitives.asymmetric.utils import encode_dss_signature
from cryptography.hazmat.primitives.serialization import pkcs7

from agents import crafting
from agents.crafting import KEY_KINDS, OPERATIONS, do_work
from tests.fakes.node_authority import NOW, Issue, NodeAuthority, key_pem, pem_of, unpadded

pytestmark = pytest.mark.peers

WAYS = ("cryptography", "openssl")
AT = int(NOW.timestamp())

Do = Callable[..., dict[str, Any]]


@pytest.fixture(params=WAYS)
def do(request: pytest.FixtureRequest) -> Do:
    """Do a piece of work one way; its answer must be no fault."""

    def work(name: str, **members: Any) -> dict[str, Any]:
        answer = do_work({"do": name, "by": request.param, **members})
        assert "fault" not in answer, answer
        return answer

    return work


@pytest.fixture(params=WAYS)
def fault(request: pytest.FixtureRequest) -> Callable[..., str]:
    """Do a piece of work one way that must not succeed."""

    def work(name: str, **members: Any) -> str:
        answer = do_work({"do": name, "by": request.param, **members})
        return str(answer["fault"])

    return work


@pytest.fixture(scope="module")
def authority() -> NodeAuthority:
    """A CA."""
    return NodeAuthority()


def decoded(text: str) -> bytes:
    """Return the octets of an answer."""
    return base64.urlsafe_b64decode(text + "=" * (-len(text) % 4))


def test_an_identity_key_is_made_once(do: Do, tmp_path: Path) -> None:
    """Asking again tells the same key, which only its owner could read from the beginning."""
    path = tmp_path / "key.pem"
    first = do("identity-request", path=str(path))
    again = do("identity-request", path=str(path))
    assert again["spki_der"] == first["spki_der"]
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    assert first["key_kind"] == "ec-p256"
    assert hashlib.sha256(decoded(first["spki_der"])).hexdigest() == first["spki_sha256"]
    for made in (first, again):
        csr = x509.load_der_x509_csr(decoded(made["csr_der"]))
        assert csr.is_signature_valid
        assert not list(csr.subject)
        assert not list(csr.extensions)
        spki = csr.public_key().public_bytes(
            serialization.Encoding.DER, serialization.PublicFormat.SubjectPublicKeyInfo
        )
        assert spki == decoded(first["spki_der"])


@pytest.mark.parametrize("kind", [one for one in KEY_KINDS if one != "rsa-4096"])
def test_a_key_and_its_request(do: Do, tmp_path: Path, kind: str) -> None:
    """The request is signed by the key that lies there, and asks for exactly the names."""
    path = tmp_path / "key.pem"
    names = ["a.example", "*.b.example", "192.0.2.7", "2001:db8::1", "post@c.example"]
    made = do("key-and-csr", kind=kind, path=str(path), names=names)
    csr = x509.load_der_x509_csr(decoded(made["csr_der"]))
    assert csr.is_signature_valid
    assert list(csr.subject) == []
    asked = csr.extensions.get_extension_for_class(x509.SubjectAlternativeName)
    assert [str(one.value) for one in asked.value] == names
    assert asked.critical
    assert made["key_kind"] == kind
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    key = serialization.load_pem_private_key(path.read_bytes(), None)
    assert key.public_key() == csr.public_key()


def test_a_request_by_the_key_there_is(do: Do, tmp_path: Path) -> None:
    """A second request is for the same key; without names it asks for none."""
    path = str(tmp_path / "key.pem")
    first = do("key-and-csr", kind="ec-p256", path=path, names=["a.example"])
    again = do("csr", key=path, names=[])
    assert again["spki_sha256"] == first["spki_sha256"]
    assert not list(x509.load_der_x509_csr(decoded(again["csr_der"])).extensions)
    assert do("public", key=path)["spki_sha256"] == first["spki_sha256"]


def test_a_key_made_again_is_another(do: Do, tmp_path: Path) -> None:
    """What an earlier try has left in the place is replaced whole."""
    path = tmp_path / "key.pem"
    one = do("key-and-csr", kind="ec-p256", path=str(path), names=[])
    (tmp_path / "key.pem.new").write_bytes(b"cut off")
    two = do("key-and-csr", kind="ec-p256", path=str(path), names=[])
    assert one["spki_sha256"] != two["spki_sha256"]
    assert [one.name for one in tmp_path.iterdir()] == ["key.pem"]


def test_both_ways_read_what_either_wrote(tmp_path: Path) -> None:
    """The two ways tell the same public half of each other's keys."""
    for kind in ("ec-p256", "ec-p384", "rsa-2048"):
        for maker in WAYS:
            path = str(tmp_path / f"{kind}-{maker}.pem")
            work = {"do": "key-and-csr", "kind": kind, "path": path, "names": [], "by": maker}
            made = do_work(work)
            for reader in WAYS:
                told = do_work({"do": "public", "key": path, "by": reader})
                assert told["spki_sha256"] == made["spki_sha256"]


def test_signatures_are_r_and_s(do: Do, tmp_path: Path) -> None:
    """Each has 64 octets and verifies under the identity's key."""
    path = tmp_path / "key.pem"
    do("identity-request", path=str(path))
    key = serialization.load_pem_private_key(path.read_bytes(), None)
    assert isinstance(key, ec.EllipticCurvePrivateKey)
    messages = [b"one", b"", b"x" * 5000]
    answer = do("sign", key=str(path), data=[unpadded(one) for one in messages])
    for message, text in zip(messages, answer["signatures"], strict=True):
        octets = decoded(text)
        assert len(octets) == 64
        pair = int.from_bytes(octets[:32], "big"), int.from_bytes(octets[32:], "big")
        key.public_key().verify(encode_dss_signature(*pair), message, ec.ECDSA(hashes.SHA256()))


def test_both_ways_tell_the_same_facts(authority: NodeAuthority) -> None:
    """Names, times, usages, digests: the two readers agree on every member."""
    issues = [
        Issue(["a.example", "*.a.example", "192.0.2.1", "2001:db8::2"]),
        Issue(["A.Example"], common_name="a.example", usages=None, server_auth=False),
        Issue(["post@a.example"], usages=("key_encipherment", "data_encipherment")),
        Issue(["b.example"], usages=("key_agreement", "encipher_only")),
        Issue([], common_name="Ein Gerät", is_ca=True, usages=("key_cert_sign", "crl_sign")),
    ]
    keys: list[Any] = [ec.generate_private_key(curve) for curve in _CURVES]
    keys.append(rsa.generate_private_key(65537, 2048))
    for issue in issues:
        for key in keys:
            pem = authority.certify_key(key, issue)
            work = {"do": "inspect", "pem": pem, "anchors": authority.anchors_pem, "at": AT}
            one, two = (do_work({**work, "by": way}) for way in WAYS)
            assert one["certificates"] == two["certificates"]
            assert one["chain_pem"] == two["chain_pem"]
            assert (one["why"] is None) == (two["why"] is None)


_CURVES = (ec.SECP256R1(), ec.SECP384R1(), ec.SECP521R1())


def test_a_chain_is_put_in_order(do: Do, authority: NodeAuthority) -> None:
    """Whatever the order, the leaf comes first, the root and strangers are left out."""
    key = ec.generate_private_key(ec.SECP256R1())
    leaf_and_issuer = authority.certify_key(key)
    blocks = [f"{one}-----END CERTIFICATE-----\n" for one in _blocks(leaf_and_issuer)]
    stranger = pem_of(NodeAuthority().intermediate)
    mixed = authority.anchors_pem + blocks[1] + stranger + "a note\n" + blocks[0] + blocks[1]
    found = do("inspect", pem=mixed, anchors=authority.anchors_pem, at=AT)
    assert found["chain_pem"] == leaf_and_issuer
    assert found["left_out"] == 2
    assert found["is_verified"]


def _blocks(pem: str) -> list[str]:
    return pem.split("-----END CERTIFICATE-----\n")[:-1]


def bad_chains(authority: NodeAuthority) -> dict[str, tuple[str, str | None, int]]:
    """Return chains that must not verify: PEM, anchors, time."""
    key = ec.generate_private_key(ec.SECP256R1())
    good = authority.certify_key(key)
    leaf = x509.load_pem_x509_certificate(good.encode())
    below = authority.sign(
        ec.generate_private_key(ec.SECP256R1()),
        Issue(common_name="evil"),
        issuer=leaf,
        key=key,
    )
    impostor_key = ec.generate_private_key(ec.SECP256R1())
    impostor = authority.sign(
        impostor_key,
        Issue((), is_ca=True, usages=("key_cert_sign",)),
        issuer=authority.root,
        key=impostor_key,
        subject="intermediate",
    )
    forged = authority.sign(key, Issue(), issuer=authority.intermediate, key=impostor_key)
    anchors = authority.anchors_pem
    unknown = x509.UnrecognizedExtension(x509.ObjectIdentifier("1.2.3.4"), b"\x05\x00")
    odd = authority.certify_key(key, Issue(extensions=[(unknown, True)]))
    poisoned = authority.certify_key(key, Issue(extensions=[(x509.PrecertPoison(), True)]))
    narrow_key = ec.generate_private_key(ec.SECP256R1())
    only = x509.NameConstraints([x509.DNSName("other.example")], None)
    narrow = authority.sign(
        narrow_key,
        Issue((), is_ca=True, usages=("key_cert_sign",), extensions=[(only, True)]),
        issuer=authority.intermediate,
        key=authority.key,
        subject="narrow",
    )
    outside = authority.sign(key, Issue(), issuer=narrow, key=narrow_key)
    return {
        "a critical extension nobody knows": (odd, anchors, AT),
        "a precertificate": (poisoned, anchors, AT),
        "outside its issuer's names": (
            pem_of(outside, narrow, authority.intermediate),
            anchors,
            AT,
        ),
        "other anchors": (good, NodeAuthority().anchors_pem, AT),
        "no anchors in the file": (good, "nothing here\n", AT),
        "no intermediate": (pem_of(leaf), anchors, AT),
        "after its end": (good, anchors, AT + 40 * 86_400),
        "before it begins": (good, anchors, AT - 2 * 86_400),
        "signed by another key": (pem_of(forged, authority.intermediate), anchors, AT),
        "an issuer nobody signed": (pem_of(forged, impostor), anchors, AT),
        "below a leaf": (pem_of(below) + good, anchors, AT),
        "signed by itself": (
            pem_of(authority.sign(key, Issue(common_name="me"), issuer=None, key=key)),
            None,
            AT,
        ),
    }


@pytest.mark.parametrize("case", sorted(bad_chains(NodeAuthority())))
def test_a_bad_chain_is_told(do: Do, authority: NodeAuthority, case: str) -> None:
    """None of them verifies, and each says why."""
    pem, anchors, at = bad_chains(authority)[case]
    found = do("inspect", pem=pem, anchors=anchors, at=at)
    assert not found["is_verified"]
    assert found["why"]


def test_a_good_chain_verifies(do: Do, authority: NodeAuthority) -> None:
    """The same call with the right anchors and time passes; so does a CA that is an anchor."""
    pem = authority.certify_key(ec.generate_private_key(ec.SECP256R1()))
    for anchors in (authority.anchors_pem, pem_of(authority.intermediate)):
        found = do("inspect", pem=pem, anchors=anchors, at=AT)
        assert found["why"] is None
        assert found["is_verified"]


def test_without_anchors_signatures_alone_count(do: Do, authority: NodeAuthority) -> None:
    """A chain that hangs together is good, and not called verified."""
    pem = authority.certify_key(ec.generate_private_key(ec.SECP256R1()))
    found = do("inspect", pem=pem, anchors=None, at=AT)
    assert found["why"] is None
    assert not found["is_verified"]


def test_one_that_begins_in_a_moment_is_looked_at_as_of_then(
    do: Do, authority: NodeAuthority
) -> None:
    """A clock that is a little behind does not refuse a certificate; the chain's own time holds."""
    key = ec.generate_private_key(ec.SECP256R1())
    pem = authority.certify_key(key, Issue(begins=_seconds(120)))
    anchors = authority.anchors_pem
    assert do("inspect", pem=pem, anchors=anchors, at=AT, early_seconds=300)["why"] is None
    assert do("inspect", pem=pem, anchors=anchors, at=AT, early_seconds=60)["why"] is not None


def _seconds(number: int) -> Any:
    from datetime import timedelta

    return timedelta(seconds=number)


BAD_PEM = {
    "nothing": "",
    "HTML": "<html>not found</html>",
    "eleven": "more than ten",
    "too large": "x" * 100_001,
    "no base64": "-----BEGIN CERTIFICATE-----\n=A=\n-----END CERTIFICATE-----\n",
    "no DER": "-----BEGIN CERTIFICATE-----\nAAAA\n-----END CERTIFICATE-----\n",
}


@pytest.mark.parametrize("case", sorted(BAD_PEM))
def test_what_is_no_chain_is_refused(
    fault: Callable[..., str], authority: NodeAuthority, case: str
) -> None:
    """Each is a fault with a reason, not an accident."""
    pem = BAD_PEM[case]
    if case == "eleven":
        key = ec.generate_private_key(ec.SECP256R1())
        pem = "".join(authority.certify_key(key) for _ in range(10))
    said = fault("inspect", pem=pem, anchors=None, at=AT)
    assert "chain" in said or "certificate" in said


def test_a_pkcs12_is_opened_by_both_ways(do: Do, authority: NodeAuthority, tmp_path: Path) -> None:
    """Key and chain come out as they went in, by whoever opens it; another password does not."""
    key = ec.generate_private_key(ec.SECP256R1())
    (tmp_path / "key.pem").write_bytes(key_pem(key))
    chain = authority.certify_key(key)
    pack = str(tmp_path / "pair.p12")
    do("pkcs12", key=str(tmp_path / "key.pem"), chain_pem=chain, password="käse", path=pack)
    assert stat.S_IMODE(os.stat(pack).st_mode) == 0o600
    for way in WAYS:
        out = tmp_path / f"out-{way}.pem"
        work = {"do": "open-pkcs12", "path": pack, "by": way, "key_path": str(out)}
        opened = do_work({**work, "password": "käse"})
        assert opened["chain_pem"] == chain
        assert serialization.load_pem_private_key(out.read_bytes(), None).public_key() == (
            key.public_key()
        )
        assert "cannot be opened" in do_work({**work, "password": "wrong"})["fault"]


def test_a_sealed_key_is_opened_by_the_recovery_key_alone(
    do: Do, authority: NodeAuthority, tmp_path: Path
) -> None:
    """The recovery key opens it, another does not, and the key is nowhere in it."""
    recovery = rsa.generate_private_key(65537, 2048)
    certificate = authority.sign(
        recovery,
        Issue((), common_name="recovery", usages=("key_encipherment",), server_auth=False),
        issuer=None,
        key=recovery,
    )
    secret = key_pem(rsa.generate_private_key(65537, 2048))
    path = tmp_path / "key.pem"
    path.write_bytes(secret)
    sealed = decoded(do("seal", key=str(path), recipient_pem=pem_of(certificate))["sealed"])
    options: list[pkcs7.PKCS7Options] = []
    assert pkcs7.pkcs7_decrypt_der(sealed, certificate, recovery, options).strip() == secret.strip()
    assert secret[40:80] not in sealed
    stranger = rsa.generate_private_key(65537, 2048)
    with pytest.raises(ValueError, match=r"."):
        pkcs7.pkcs7_decrypt_der(sealed, certificate, stranger, options)


def test_a_recovery_certificate_that_signs_is_no_recipient(
    fault: Callable[..., str], authority: NodeAuthority, tmp_path: Path
) -> None:
    """Its key usage has to let it encipher keys."""
    key = rsa.generate_private_key(65537, 2048)
    (tmp_path / "key.pem").write_bytes(key_pem(key))
    certificate = authority.sign(key, Issue((), common_name="r"), issuer=None, key=key)
    said = fault("seal", key=str(tmp_path / "key.pem"), recipient_pem=pem_of(certificate))
    assert "keyEncipherment" in said


def test_the_answer_to_tls_alpn_01(do: Do) -> None:
    """It is for the name alone, signed by its own key, with the digest in a critical extension."""
    digest = hashlib.sha256(b"token.thumbprint").digest()
    made = do("alpn-certificate", identifier="a.example", digest=unpadded(digest), at=AT)
    certificate = x509.load_pem_x509_certificate(made["certificate_pem"].encode())
    certificate.verify_directly_issued_by(certificate)
    names = certificate.extensions.get_extension_for_class(x509.SubjectAlternativeName).value
    assert names.get_values_for_type(x509.DNSName) == ["a.example"]
    acme = certificate.extensions.get_extension_for_oid(x509.ObjectIdentifier("1.3.6.1.5.5.7.1.31"))
    assert acme.critical
    assert isinstance(acme.value, x509.UnrecognizedExtension)
    assert acme.value.value == b"\x04\x20" + digest
    assert certificate.not_valid_before_utc < NOW < certificate.not_valid_after_utc
    assert "PRIVATE KEY" in made["key_pem"]


@pytest.mark.parametrize("name", ["", "a b.example", "ü.example", "a\nb", "x" * 256])
def test_a_name_that_no_certificate_can_have(
    fault: Callable[..., str], tmp_path: Path, name: str
) -> None:
    """It is refused before anything is signed."""
    path = str(tmp_path / "key.pem")
    assert "is none" in fault("key-and-csr", kind="ec-p256", path=path, names=[name])


def test_faults_hold_no_secret(fault: Callable[..., str], tmp_path: Path) -> None:
    """A key that cannot be used is told by kind, and nothing of it is."""
    path = tmp_path / "key.pem"
    cases = {
        "": "0 private keys",
        "-----BEGIN PRIVATE KEY-----\nSECRETSECRET\n-----END PRIVATE KEY-----\n": "key",
        "-----BEGIN ENCRYPTED PRIVATE KEY-----\nSECRET\n-----END ENCRYPTED PRIVATE KEY-----\n": (
            "encrypted"
        ),
    }
    for text, expected in cases.items():
        path.write_text(text, encoding="ascii")
        said = fault("csr", key=str(path), names=[])
        assert expected in said
        assert "SECRET" not in said
    path.write_bytes(key_pem(ec.generate_private_key(ec.SECP256R1())) * 2)
    assert "2 private keys" in fault("csr", key=str(path), names=[])
    path.write_bytes(_ed25519())
    assert "neither an EC nor an RSA" in fault("csr", key=str(path), names=[])
    path.unlink()
    assert "No such file" in fault("csr", key=str(path), names=[])


def _ed25519() -> bytes:
    from cryptography.hazmat.primitives.asymmetric import ed25519

    return key_pem(ed25519.Ed25519PrivateKey.generate())  # type: ignore[arg-type]


def test_unknown_work_is_refused(fault: Callable[..., str]) -> None:
    """A word that is no operation, a kind that is no key."""
    assert "nothing that the child can do" in fault("dig")
    assert "is none of" in fault("key-and-csr", kind="rsa-1024", path="/nowhere", names=[])


def test_several_are_done_each_for_itself(do: Do, tmp_path: Path) -> None:
    """A fault of one is its answer and stops no other."""
    path = str(tmp_path / "key.pem")
    works = [{"do": "dig"}, {"do": "identity-request", "path": path}]
    first, second = do("several", works=works)["answers"]
    assert "fault" in first
    assert "spki_sha256" in second


def test_what_rsa_signs_verifies(do: Do, authority: NodeAuthority, tmp_path: Path) -> None:
    """The signature on an RSA request is PKCS#1 v1.5 with SHA-256, which every CA takes."""
    path = str(tmp_path / "key.pem")
    made = do("key-and-csr", kind="rsa-2048", path=path, names=["a.example"])
    csr = x509.load_der_x509_csr(decoded(made["csr_der"]))
    assert isinstance(csr.public_key(), rsa.RSAPublicKey)
    assert isinstance(csr.signature_algorithm_parameters, padding.PKCS1v15)
    assert isinstance(csr.signature_hash_algorithm, hashes.SHA256)
    chain = authority.certify(decoded(made["csr_der"]), Issue(["a.example"]))
    (tmp_path / "chain.pem").write_text(chain, encoding="ascii")
    ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER).load_cert_chain(tmp_path / "chain.pem", path)


def test_the_program_speaks_json(monkeypatch: pytest.MonkeyPatch, capsys: Any) -> None:
    """Work comes on standard input, the answer goes to standard output."""
    monkeypatch.setattr(sys, "stdin", io.StringIO(json.dumps({"do": "dig"})))
    monkeypatch.setattr(crafting.resource, "setrlimit", lambda *_: None)
    was = os.umask(0o022)
    try:
        assert crafting.main() == 0
        assert os.umask(0o022) == 0o077
    finally:
        os.umask(was)
    assert "fault" in json.loads(capsys.readouterr().out)


def test_every_operation_is_documented() -> None:
    """What each does and wants stands in its first sentence."""
    assert all(one.__doc__ for one in OPERATIONS.values())
