"""The way from a leaf to a trust anchor."""

from datetime import timedelta
from typing import Any

import pytest
from cryptography import x509
from cryptography.hazmat.primitives.serialization import Encoding

from broker.protocol.parsed_certificate import ParsedCertificate, parse_certificate
from broker.protocol.paths import check_path_to_anchor
from tests.unit.protocol import der
from tests.unit.protocol.builders import NOW, Authority, key_usage, name, private_key

ROOT = Authority.root()
ISSUING = ROOT.intermediate("Issuing")
SECOND = timedelta(seconds=1)


def laid_open(*certificates: x509.Certificate | Authority) -> list[ParsedCertificate]:
    """Return certificates laid open."""
    return [
        parse_certificate(c.der if isinstance(c, Authority) else c.public_bytes(Encoding.DER))
        for c in certificates
    ]


def check(
    *certificates: x509.Certificate | Authority,
    anchors: tuple[Authority, ...] = (ROOT,),
    at: Any = NOW,
) -> str | None:
    """Return why there is no path, or None."""
    return check_path_to_anchor(laid_open(*certificates), laid_open(*anchors), at)


def constrained(
    permitted: list[x509.GeneralName] | None = None,
    excluded: list[x509.GeneralName] | None = None,
    critical: bool = True,
) -> Authority:
    """Return an issuing CA under name constraints."""
    constraints = x509.NameConstraints(permitted, excluded)
    return ROOT.intermediate("Constrained", extensions=[(constraints, critical)])


def test_path_to_an_anchor_that_is_not_sent() -> None:
    """The usual case: the root is ours to know."""
    assert check(ISSUING.leaf("a.example"), ISSUING) is None


def test_path_to_an_anchor_that_is_sent() -> None:
    """A chain may include the root."""
    assert check(ISSUING.leaf("a.example"), ISSUING, ROOT) is None


def test_intermediate_may_be_the_anchor() -> None:
    """Trust may begin below the root, whether the chain ends there or not."""
    leaf = ISSUING.leaf("a.example")
    assert check(leaf, anchors=(ISSUING,)) is None
    assert check(leaf, ISSUING, anchors=(ISSUING,)) is None
    assert check(leaf, ISSUING, ROOT, anchors=(ISSUING,)) is None


def test_leaf_cannot_be_its_own_anchor() -> None:
    """A certificate among the anchors is trusted to issue, not to be delivered."""
    leaf = ISSUING.leaf("a.example")
    anchor = Authority(leaf, private_key("ES256", 2))
    assert check(leaf, anchors=(anchor,)) == "leads to none of the 1 trust anchors"
    assert check(ROOT, anchors=(ROOT,)) == "leads to none of the 1 trust anchors"


def test_missing_intermediate_leads_nowhere() -> None:
    """What cannot be built is refused."""
    assert check(ISSUING.leaf("a.example")) == "leads to none of the 1 trust anchors"


def test_root_of_the_same_name_is_another_root() -> None:
    """The signature decides, not the name."""
    impostor = Authority.root("Root", key=private_key("ES256", "impostor"))
    assert check(ISSUING.leaf("a.example"), ISSUING, anchors=(impostor,)) is not None
    assert check(ISSUING.leaf("a.example"), ISSUING, anchors=(impostor, ROOT)) is None


@pytest.mark.parametrize(
    ("at", "is_valid"),
    [
        pytest.param(NOW - timedelta(hours=1) - SECOND, False, id="a second too early"),
        pytest.param(NOW - timedelta(hours=1), True, id="the first second"),
        pytest.param(NOW + timedelta(days=89), True, id="the last second"),
        pytest.param(NOW + timedelta(days=89) + SECOND, False, id="a second too late"),
    ],
)
def test_leaf_is_valid_between_its_ends(at: Any, is_valid: bool) -> None:
    """Both ends belong to the validity (RFC 5280 §4.1.2.5)."""
    ages = {"not_before": NOW - timedelta(days=900), "not_after": NOW + timedelta(days=900)}
    root = Authority.root("Old", **ages)
    assert (check(root.leaf("a.example"), anchors=(root,), at=at) is None) == is_valid


@pytest.mark.parametrize("which", ["issuer", "anchor"])
def test_every_certificate_of_the_path_has_to_be_valid(which: str) -> None:
    """An expired issuer or anchor ends the trust."""
    past = {"not_before": NOW - timedelta(days=9), "not_after": NOW - timedelta(days=1)}
    root = Authority.root("Expiring", **(past if which == "anchor" else {}))
    issuing = root.intermediate("Below", **(past if which == "issuer" else {}))
    finding = check(issuing.leaf("a.example"), issuing, anchors=(root,))
    assert finding is not None
    assert "is not valid after" in finding
    fresh = Authority.root("Fresh")
    below = fresh.intermediate("Below")
    assert check(below.leaf("a.example"), below, anchors=(fresh,)) is None


def test_issuer_has_to_be_a_ca() -> None:
    """A leaf that signs another leaf is not an issuer."""
    for kwargs in ({"ca": False}, {"ca": False, "path_length": None}):
        leaf = ROOT.intermediate("Leaf", **kwargs)
        finding = check(leaf.leaf("a.example"), leaf)
        assert finding == "issuer 'CN=Leaf': is no CA certificate"


def test_issuer_has_to_have_key_cert_sign() -> None:
    """Where key usages are told, keyCertSign is among them."""
    without = ROOT.intermediate("Without", key_usage=key_usage("crl_sign"))
    having = ROOT.intermediate("Having", key_usage=key_usage("crl_sign", "key_cert_sign"))
    finding = check(without.leaf("a.example"), without)
    assert finding is not None
    assert "keyCertSign" in finding
    assert check(having.leaf("a.example"), having) is None


@pytest.mark.parametrize(
    ("path_length", "is_allowed"),
    [pytest.param(0, False, id="0"), pytest.param(1, True, id="1"), pytest.param(2, True, id="2")],
)
def test_path_length_counts_the_intermediates_below(path_length: int, is_allowed: bool) -> None:
    """The leaf does not count (RFC 5280 §4.2.1.9)."""
    upper = ROOT.intermediate("Upper", path_length=path_length)
    lower = upper.intermediate("Lower")
    finding = check(lower.leaf("a.example"), lower, upper)
    assert (finding is None) == is_allowed
    if finding is not None:
        assert finding == "issuer 'CN=Upper': allows 0 intermediates below it, the chain has 1"
    assert check(upper.leaf("a.example"), upper) is None


def test_self_issued_certificates_do_not_count_for_the_path_length() -> None:
    """A CA that rolled its key over may sign its own new certificate."""
    first = ROOT.intermediate("Rolled", path_length=0)
    second = first.intermediate("Rolled", key=private_key("ES256", "rolled"), path_length=0)
    assert check(second.leaf("a.example"), second, first) is None


def test_unknown_critical_extension_of_an_issuer_is_refused() -> None:
    """A limit that we do not understand may forbid this very certificate."""
    extension = x509.UnrecognizedExtension(x509.ObjectIdentifier("1.3.6.1.4.1.55555.1"), b"x")
    strict = ROOT.intermediate("Strict", extensions=[(extension, True)])
    lax = ROOT.intermediate("Lax", extensions=[(extension, False)])
    finding = check(strict.leaf("a.example"), strict)
    assert finding is not None
    assert "unknown critical extension 1.3.6.1.4.1.55555.1" in finding
    assert check(lax.leaf("a.example"), lax) is None


@pytest.mark.parametrize("critical", [True, False])
def test_name_constraints_bind_the_leaf(critical: bool) -> None:
    """They bind whether they are critical or not."""
    issuing = constrained([x509.DNSName("example.com")], critical=critical)
    assert check(issuing.leaf("www.example.com"), issuing) is None
    finding = check(issuing.leaf("www.example.org"), issuing)
    assert finding == ("issuer 'CN=Constrained': 'www.example.org' is outside the permitted names")


def test_name_constraints_of_the_anchor_bind_too() -> None:
    """A root that limits itself is taken at its word."""
    constraints = x509.NameConstraints([x509.DNSName("example.com")], None)
    root = Authority.root("Narrow", extensions=[(constraints, True)])
    issuing = root.intermediate("Below")
    assert check(issuing.leaf("a.example.com"), issuing, anchors=(root,)) is None
    assert check(issuing.leaf("a.example.org"), issuing, anchors=(root,)) is not None


def test_name_constraints_bind_the_common_name_of_a_leaf_without_names() -> None:
    """Old clients would take it for the host name."""
    issuing = constrained([x509.DNSName("example.com")])
    for common_name, is_allowed in (("a.example.com", True), ("a.example.org", False)):
        leaf = issuing.leaf(subject=name(common_name))
        assert (check(leaf, issuing) is None) == is_allowed
    assert check(issuing.leaf(subject=name("Some Server")), issuing) is None


def test_excluded_names_are_refused() -> None:
    """What is excluded above is excluded below."""
    issuing = constrained(None, [x509.DNSName("secret.example")])
    assert check(issuing.leaf("a.secret.example"), issuing) is not None
    assert check(issuing.leaf("a.example"), issuing) is None


def test_one_good_path_is_enough() -> None:
    """With two anchors that issued the same certificate, the valid one counts."""
    past = {"not_before": NOW - timedelta(days=9), "not_after": NOW - timedelta(days=1)}
    old = Authority.root("Twice", **past)
    new = Authority.root("Twice")
    issuing = new.intermediate("Below")
    leaf = issuing.leaf("a.example")
    assert check(leaf, issuing, anchors=(old,)) is not None
    assert check(leaf, issuing, anchors=(old, new)) is None


@pytest.mark.parametrize("weak_is", ["leaf", "issuer"])
def test_certificate_signed_with_sha1_is_refused(weak_is: str) -> None:
    """A collision would make a certificate nobody meant; the same with SHA-256 passes.

    The library itself no longer follows a link signed so; where it does, the check says why.
    """
    for weak in (True, False):
        issuing = ISSUING
        if weak_is == "issuer":
            data = der.certificate(ROOT.key, "Root", "Issuing", ISSUING.key, ca=True, sha1=weak)
            issuing = Authority(x509.load_der_x509_certificate(data), ISSUING.key)
        sha1_leaf = weak and weak_is == "leaf"
        data = der.certificate(ISSUING.key, "Issuing", "a.example", ROOT.key, sha1=sha1_leaf)
        finding = check(x509.load_der_x509_certificate(data), issuing)
        assert (finding is not None) == weak
