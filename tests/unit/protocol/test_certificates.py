"""Chains as a CA sends them, and the identifier of renewal information."""

import json
import time
from collections.abc import Callable
from datetime import timedelta

import pytest
from cryptography import x509

from broker.protocol.certificates import (
    MAX_CHAIN_BYTES,
    Chain,
    ChainError,
    cert_id,
    parse_certificate,
    parse_chain,
    verify_chain_anchored,
)
from tests.unit.protocol.builders import (
    NOW,
    VECTORS,
    Authority,
    name,
    pem,
    private_key,
)

ROOT = Authority.root()
UPPER = ROOT.intermediate("Upper")
ISSUING = UPPER.intermediate("Issuing")
LEAF = ISSUING.leaf("a.example")
STRANGER = Authority.root("Stranger")
GOOD = pem(LEAF, ISSUING, UPPER)
KEY = b"-----BEGIN PRIVATE KEY-----\nAAAA\n-----END PRIVATE KEY-----\n"


def subjects(chain: Chain) -> list[str]:
    """Return the subjects of a chain's issuers."""
    return [issuer.subject for issuer in chain.issuers]


def test_chain_in_order_is_kept_as_it_came() -> None:
    """The bytes are the CA's."""
    chain = parse_chain(GOOD)
    assert chain.leaf.identifiers == parse_certificate(chain.leaf.der).identifiers
    assert subjects(chain) == ["CN=Issuing", "CN=Upper"]
    assert chain.pem == GOOD


@pytest.mark.parametrize(
    "data",
    [
        pytest.param(GOOD.replace(b"\n", b"\r\n"), id="CRLF"),
        pytest.param(b"\n\n" + GOOD.replace(b"-----B", b"\n-----B") + b"\n \n", id="blank lines"),
        pytest.param(GOOD.rstrip(b"\n"), id="no newline at the end"),
    ],
)
def test_white_space_between_blocks_is_allowed(data: bytes) -> None:
    """Line ends and blank lines vary between CAs."""
    assert subjects(parse_chain(data)) == ["CN=Issuing", "CN=Upper"]
    assert parse_chain(data).pem == data


def test_root_may_be_included() -> None:
    """No CA has to send it, some do."""
    assert subjects(parse_chain(GOOD + ROOT.pem)) == ["CN=Issuing", "CN=Upper", "CN=Root"]


def test_leaf_alone_is_a_chain() -> None:
    """Whether it leads anywhere is asked elsewhere."""
    assert parse_chain(pem(LEAF)).issuers == ()


@pytest.mark.parametrize(
    "order",
    [
        pytest.param((UPPER, ISSUING, LEAF), id="backwards"),
        pytest.param((LEAF, UPPER, ISSUING), id="issuers swapped"),
        pytest.param((ISSUING, LEAF, UPPER), id="leaf second"),
        pytest.param((ROOT, UPPER, ISSUING, LEAF), id="root first"),
        pytest.param((LEAF, ROOT, UPPER, ISSUING), id="root second"),
    ],
)
def test_chain_is_put_in_order_by_its_signatures(
    order: tuple[Authority | x509.Certificate, ...],
) -> None:
    """Only one order fits the signatures; the PEM is written anew, leaf first."""
    chain = parse_chain(pem(*order))
    assert chain.leaf.der == parse_chain(GOOD).leaf.der
    assert subjects(chain)[:2] == ["CN=Issuing", "CN=Upper"]
    assert chain.pem.startswith(GOOD)
    assert parse_chain(chain.pem) == chain


FIRST = Authority.root("First")
SECOND = Authority.root("Second")
FIRST_BY_SECOND = SECOND.intermediate("First", key=FIRST.key)
SECOND_BY_FIRST = FIRST.intermediate("Second", key=SECOND.key)


def test_two_cas_that_signed_each_other_are_put_in_order() -> None:
    """A loop of issuers ends where the certificates do."""
    chain = parse_chain(pem(SECOND_BY_FIRST, FIRST.leaf("a.example"), FIRST_BY_SECOND))
    assert subjects(chain) == ["CN=First", "CN=Second"]


BAD: list[tuple[str, Callable[[], bytes], str]] = [
    ("empty", lambda: b"", "is empty"),
    ("one newline", lambda: b"\n", "is empty"),
    ("white space", lambda: b" \r\n\t ", "is empty"),
    ("HTML", lambda: b"<html><body>502</body></html>", "other than CERTIFICATE"),
    ("JSON", lambda: b'{"type":"x"}', "other than CERTIFICATE"),
    ("DER", lambda: parse_chain(GOOD).leaf.der, "other than CERTIFICATE"),
    ("text in front", lambda: b"subject=CN = a\n" + GOOD, "other than CERTIFICATE"),
    ("text between", lambda: pem(LEAF) + b"issuer\n" + pem(ISSUING), "other than CERTIFICATE"),
    ("text behind", lambda: GOOD + b"done", "other than CERTIFICATE"),
    ("NUL behind", lambda: GOOD + b"\x00", "other than CERTIFICATE"),
    ("private key behind", lambda: GOOD + KEY, "other than CERTIFICATE"),
    ("private key in front", lambda: KEY + GOOD, "other than CERTIFICATE"),
    ("private key alone", lambda: KEY, "other than CERTIFICATE"),
    (
        "trusted certificate",
        lambda: GOOD.replace(b" CERT", b" TRUSTED CERT"),
        "other than CERTIFICATE",
    ),
    ("header lines", lambda: GOOD.replace(b"E-----\n", b"E-----\nA: b\n", 1), "other than"),
    ("end missing", lambda: GOOD[:-20], "other than CERTIFICATE"),
    (
        "empty block",
        lambda: b"-----BEGIN CERTIFICATE-----\n\n-----END CERTIFICATE-----\n",
        "(does not parse|other than)",
    ),
    (
        "block that is not base64",
        lambda: b"-----BEGIN CERTIFICATE-----\nAAA\n-----END CERTIFICATE-----\n",
        "not base64",
    ),
    (
        "block that is no certificate",
        lambda: b"-----BEGIN CERTIFICATE-----\nAAAA\n-----END CERTIFICATE-----\n",
        "does not parse",
    ),
    ("too large", lambda: GOOD + b"\n" * MAX_CHAIN_BYTES, "the limit is 100000"),
    ("10 MB", lambda: b"\n" * 10_000_000, "the limit is 100000"),
    ("eleven certificates", lambda: pem(LEAF) + ISSUING.pem * 10, "more than 10"),
    ("certificate twice", lambda: pem(LEAF, ISSUING, ISSUING), "twice"),
    ("intermediate missing", lambda: pem(LEAF, UPPER), "2 certificates that issued no other"),
    ("unrelated in the middle", lambda: pem(LEAF, STRANGER, ISSUING), "issued no other"),
    ("unrelated at the end", lambda: GOOD + STRANGER.pem, "issued no other"),
    ("two leaves", lambda: pem(LEAF, ISSUING.leaf("b.example"), ISSUING), "issued no other"),
    (
        "loop and a stranger",
        lambda: pem(SECOND_BY_FIRST, STRANGER, FIRST_BY_SECOND),
        "do not form one path",
    ),
    (
        "two issuers of one name and key",
        lambda: pem(LEAF, UPPER, ISSUING, UPPER.intermediate("Issuing")),
        "do not form one path",
    ),
]


@pytest.mark.parametrize(
    ("make", "because"), [pytest.param(m, because, id=label) for label, m, because in BAD]
)
def test_other_chains_are_refused(make: Callable[[], bytes], because: str) -> None:
    """Each is refused with its reason, quickly; the good chain is read."""
    data = make()
    started = time.thread_time()
    with pytest.raises(ChainError, match=because):
        parse_chain(data)
    assert time.thread_time() - started < 0.5
    assert parse_chain(GOOD)


def test_ten_certificates_are_a_chain() -> None:
    """The limit itself is allowed."""
    authorities = [ROOT]
    for number in range(9):
        authorities.append(authorities[-1].intermediate(f"Level {number}"))
    leaf = authorities[-1].leaf("a.example")
    chain = parse_chain(pem(leaf, *reversed(authorities[1:])))
    assert len(chain.issuers) == 9


def test_pem_that_invites_backtracking_costs_little() -> None:
    """Blocks without an end and long white space are judged in linear time."""
    for filler in (b"A" * 64 + b"\n", b"\n", b" ", b"-----BEGIN CERTIFICATE-----\n"):
        data = (b"-----BEGIN CERTIFICATE-----\n" + filler * 90_000)[: MAX_CHAIN_BYTES - 1]
        started = time.thread_time()
        with pytest.raises(ChainError):
            parse_chain(data)
        assert time.thread_time() - started < 0.5


def test_cert_id_is_that_of_the_standard() -> None:
    """The worked example of RFC 9773 §4.1, leading zero octet included."""
    example = json.loads((VECTORS / "acme.json").read_text())["cert_id"]
    key_id = bytes.fromhex(example["key_identifier"])
    authority = Authority.root("Example CA")
    leaf = x509.CertificateBuilder(
        issuer_name=authority.certificate.subject,
        subject_name=name("a.example"),
        public_key=private_key().public_key(),
        serial_number=int(example["serial"], 16),
        not_valid_before=NOW,
        not_valid_after=NOW + timedelta(days=1),
        extensions=[],
    ).add_extension(x509.AuthorityKeyIdentifier(key_id, None, None), critical=False)
    certificate = leaf.sign(authority.key, authority.certificate.signature_hash_algorithm)
    parsed = parse_chain(pem(certificate)).leaf
    assert cert_id(parsed) == example["cert_id"]


def test_cert_id_needs_a_key_identifier() -> None:
    """A certificate without one has no renewal information."""
    with pytest.raises(ChainError, match="no authority key identifier"):
        cert_id(parse_certificate(ROOT.der))
    assert cert_id(parse_chain(GOOD).leaf)


def test_anchored_chain_is_proven() -> None:
    """The chain comes back for the right anchor; for another, the reason does."""
    chain = parse_chain(GOOD)
    assert verify_chain_anchored(chain, [STRANGER.der, ROOT.der], NOW) is chain
    with pytest.raises(ChainError, match="chain: leads to none of the 1 trust anchors"):
        verify_chain_anchored(chain, [STRANGER.der], NOW)


def test_no_anchor_refuses_every_chain() -> None:
    """An empty list of anchors trusts nobody."""
    with pytest.raises(ChainError, match="none of the 0"):
        verify_chain_anchored(parse_chain(GOOD + ROOT.pem), [], NOW)


def test_anchor_that_does_not_parse_is_refused() -> None:
    """A broken anchor file is no anchor."""
    with pytest.raises(ChainError, match="does not parse"):
        verify_chain_anchored(parse_chain(GOOD), [b"anchor"], NOW)
