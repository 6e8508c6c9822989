"""The checks on a certificate that came back, each with what passes it."""

from __future__ import annotations

import ipaddress
from datetime import timedelta
from typing import Any

import pytest
from cryptography import x509
from cryptography.x509.oid import ExtendedKeyUsageOID

from broker.policy.chains import UPSTREAM_BREACHES, decide_issued
from broker.policy.checks import CheckName
from broker.policy.decisions import Lever, RuleRef
from broker.protocol.identifiers import Identifier, IdentifierType
from broker.protocol.problems import ProblemType
from tests.unit.policy.builders import (
    AT,
    PROFILE,
    SERVER_AUTH,
    csr,
    issued,
    names,
    policy,
    profile_policy,
)
from tests.unit.protocol.builders import key_usage, name, private_key

MINUTE = timedelta(seconds=60)
SECOND = timedelta(seconds=1)
OTHER_OID = "1.2.3.4"
STEP_PROVISIONER = "1.3.6.1.4.1.37476.9000.64.1"
STAPLE = (x509.TLSFeature([x509.TLSFeatureType.status_request]), False)


def unknown(dotted: str, *, critical: bool = False) -> tuple[x509.ExtensionType, bool]:
    """Return an extension by its OID alone."""
    return x509.UnrecognizedExtension(x509.ObjectIdentifier(dotted), b"\x05\x00"), critical


def usages(*oids: x509.ObjectIdentifier) -> tuple[x509.ExtensionType, bool]:
    """Return an extended key usage extension."""
    return x509.ExtendedKeyUsage(list(oids)), False


def with_extensions(*extensions: tuple[x509.ExtensionType, bool]) -> dict[str, Any]:
    """Return a certificate with server-auth and these extensions."""
    return {"leaf": {"extensions": [*SERVER_AUTH, *extensions]}}


def ending(delta: timedelta) -> dict[str, Any]:
    """Return a certificate that ends *delta* after its receipt."""
    return {"leaf": {"not_after": AT + delta}}


CAP = timedelta(days=90)
BOTH = {"usages": ["server-auth", "client-auth"]}
ASKED = {"not_after": AT + timedelta(days=10)}
STAPLING = {"csr": csr(extensions=[STAPLE])}
ODD_CSR = {"csr": csr(extensions=[unknown(OTHER_OID)])}

PASSES: list[Any] = [
    pytest.param({}, {}, id="as-ordered"),
    pytest.param({}, ending(CAP + MINUTE), id="end-at-the-tolerance"),
    pytest.param({}, ending(timedelta(days=1)), id="end-sooner"),
    pytest.param({}, {"leaf": {"not_before": AT + MINUTE}}, id="start-a-minute-ahead"),
    pytest.param({}, {"leaf": {"not_before": AT - timedelta(days=2)}}, id="dated-back"),
    pytest.param({}, {**ending(timedelta(days=10)), **ASKED}, id="asked-end"),
    pytest.param({}, {**ending(timedelta(days=10) - MINUTE), **ASKED}, id="asked-end-a-bit-early"),
    pytest.param({}, {**ending(timedelta(days=10) + MINUTE), **ASKED}, id="asked-end-a-bit-late"),
    pytest.param({}, {"leaf": {"subject": name("www.a.example")}}, id="common-name"),
    pytest.param({}, {"leaf": {"subject": name("WWW.a.example")}}, id="common-name-in-capitals"),
    pytest.param({}, {"leaf": {"key_usage": None}}, id="no-key-usage"),
    pytest.param(
        {},
        {"leaf": {"key_usage": key_usage("digital_signature", "key_encipherment")}},
        id="rsa-use",
    ),
    pytest.param(BOTH, {}, id="server-auth-of-both"),
    pytest.param(
        BOTH,
        {
            "leaf": {
                "extensions": [
                    usages(ExtendedKeyUsageOID.SERVER_AUTH, ExtendedKeyUsageOID.CLIENT_AUTH)
                ]
            }
        },
        id="both-of-both",
    ),
    pytest.param(
        {"usages": ["client-auth"]},
        {"leaf": {"extensions": [usages(ExtendedKeyUsageOID.CLIENT_AUTH)]}},
        id="client-profile",
    ),
    pytest.param({}, with_extensions(unknown(STEP_PROVISIONER)), id="step-ca"),
    pytest.param(
        {"certificate_extensions": [OTHER_OID]},
        with_extensions(unknown(OTHER_OID, critical=True)),
        id="extension-of-the-profile",
    ),
    pytest.param(
        {"csr_extensions": [OTHER_OID]},
        {**with_extensions(unknown(OTHER_OID)), **ODD_CSR},
        id="extension-that-was-asked-for",
    ),
    pytest.param(
        {"must_staple": True}, {**with_extensions(STAPLE), **STAPLING}, id="must-staple-asked-for"
    ),
    pytest.param({"must_staple": True}, STAPLING, id="must-staple-not-given"),
    pytest.param({}, {"is_chain_anchored": None}, id="no-anchors-configured"),
]


@pytest.mark.parametrize(("profile", "facts"), PASSES)
def test_a_certificate_as_ordered_is_released(
    profile: dict[str, Any], facts: dict[str, Any]
) -> None:
    """The twins of the breaches below."""
    assert decide_issued(profile_policy(**profile), issued(**facts)) == ()


BREACHES: list[Any] = [
    pytest.param(
        {},
        {"leaf": {"key": private_key("ES256", "another")}},
        CheckName.ISSUED_KEY,
        "certifies another key (ec-p256)",
        id="another-key",
    ),
    pytest.param(
        {},
        ending(CAP + MINUTE + SECOND),
        CheckName.ISSUED_END,
        "ends 2027-02-20T12:01:01Z, 1m1s past the 90d cap of the community (policy.yaml:",
        id="end-a-second-past-the-tolerance",
    ),
    pytest.param(
        {},
        {**ending(CAP + SECOND), "tolerance": timedelta()},
        CheckName.ISSUED_END,
        "1s past the 90d cap",
        id="end-past-the-cap-without-tolerance",
    ),
    pytest.param(
        {},
        {"cap": timedelta(days=7)},
        CheckName.ISSUED_END,
        "83d past the 7d cap",
        id="end-past-the-cap-of-the-order",
    ),
    pytest.param(
        {},
        {**ending(timedelta(days=10) + MINUTE + SECOND), **ASKED},
        CheckName.ISSUED_ASKED_DATES,
        "ends 2026-12-02T12:01:01Z, 1m1s from 2026-12-02T12:00:00Z as asked for",
        id="asked-end-late",
    ),
    pytest.param(
        {},
        {**ending(timedelta(days=10) - MINUTE - SECOND), **ASKED},
        CheckName.ISSUED_ASKED_DATES,
        "1m1s from 2026-12-02T12:00:00Z",
        id="asked-end-early",
    ),
    pytest.param(
        {},
        {"not_before": AT},
        CheckName.ISSUED_ASKED_DATES,
        "starts 2026-11-22T11:00:00Z, 1h from 2026-11-22T12:00:00Z as asked for",
        id="asked-start",
    ),
    pytest.param(
        {},
        {"leaf": {"subject": name("www.a.example", email_address="root@a.example")}},
        CheckName.ISSUED_NAMES,
        "has the e-mail address 'root@a.example' beyond the order in its subject",
        id="address-in-the-subject",
    ),
    pytest.param(
        {},
        {"leaf": {"not_before": AT + MINUTE + SECOND}},
        CheckName.ISSUED_START,
        "starts 2026-11-22T12:01:01Z, 1m1s after it was received",
        id="start-in-the-future",
    ),
    pytest.param(
        {},
        ending(timedelta()),
        CheckName.ISSUED_START,
        "ended 2026-11-22T12:00:00Z, before it was received",
        id="over-already",
    ),
    pytest.param(
        {},
        {"leaf": {"ca": True}},
        CheckName.ISSUED_CA,
        "is a CA certificate (CA:TRUE)",
        id="ca-true",
    ),
    pytest.param(
        {},
        {"leaf": {"key_usage": key_usage("digital_signature", "key_cert_sign")}},
        CheckName.ISSUED_CA,
        "has the key usages keyCertSign of a CA",
        id="key-cert-sign",
    ),
    pytest.param(
        {},
        {"leaf": {"key_usage": key_usage("digital_signature", "crl_sign")}},
        CheckName.ISSUED_CA,
        "has the key usages cRLSign of a CA",
        id="crl-sign",
    ),
    pytest.param(
        {},
        {"leaf": {"key_usage": key_usage("digital_signature", "content_commitment")}},
        CheckName.ISSUED_KEY_USAGES,
        "has the key usages nonRepudiation",
        id="key-usage",
    ),
    pytest.param(
        {},
        {"leaf": {"extensions": []}},
        CheckName.ISSUED_EXTENDED_KEY_USAGES,
        "has no extended key usage, profile 'server' allows server-auth",
        id="no-usage",
    ),
    pytest.param(
        {},
        {
            "leaf": {
                "extensions": [
                    usages(ExtendedKeyUsageOID.SERVER_AUTH, ExtendedKeyUsageOID.CODE_SIGNING)
                ]
            }
        },
        CheckName.ISSUED_EXTENDED_KEY_USAGES,
        "has the extended key usages 1.3.6.1.5.5.7.3.3",
        id="code-signing",
    ),
    pytest.param(
        {},
        {"leaf": {"extensions": [usages(ExtendedKeyUsageOID.ANY_EXTENDED_KEY_USAGE)]}},
        CheckName.ISSUED_EXTENDED_KEY_USAGES,
        "2.5.29.37.0",
        id="any-usage",
    ),
    pytest.param(
        BOTH,
        {"leaf": {"extensions": [usages(ExtendedKeyUsageOID.CLIENT_AUTH)]}},
        CheckName.ISSUED_EXTENDED_KEY_USAGES,
        "lacks the extended key usage server-auth",
        id="client-auth-alone",
    ),
    pytest.param(
        {},
        with_extensions(unknown(OTHER_OID)),
        CheckName.ISSUED_EXTENSIONS,
        "has the extensions 1.2.3.4, which nobody agreed on",
        id="extension",
    ),
    pytest.param(
        {"csr_extensions": [OTHER_OID]},
        with_extensions(unknown(OTHER_OID)),
        CheckName.ISSUED_EXTENSIONS,
        "1.2.3.4",
        id="extension-allowed-and-not-asked-for",
    ),
    pytest.param(
        {},
        {**with_extensions(STAPLE), **STAPLING},
        CheckName.ISSUED_EXTENSIONS,
        "1.3.6.1.5.5.7.1.24",
        id="must-staple",
    ),
    pytest.param(
        {},
        with_extensions(unknown(STEP_PROVISIONER, critical=True)),
        CheckName.ISSUED_EXTENSIONS,
        "has the critical extensions 1.3.6.1.4.1.37476.9000.64.1",
        id="usual-extension-critical",
    ),
    pytest.param(
        {},
        with_extensions((x509.NameConstraints([x509.DNSName("a.example")], None), False)),
        CheckName.ISSUED_EXTENSIONS,
        "2.5.29.30",
        id="name-constraints",
    ),
    pytest.param(
        {},
        {"is_chain_anchored": False, "anchor_fault": "chain: no path"},
        CheckName.ISSUED_ANCHOR,
        "leads to none of its anchors: chain: no path",
        id="no-anchor",
    ),
    pytest.param(
        {}, {"is_known": True}, CheckName.ISSUED_ONCE, "was received once before", id="seen-before"
    ),
]


@pytest.mark.parametrize(("profile", "facts", "check", "sentence"), BREACHES)
def test_a_certificate_that_breaks_a_rule_is_withheld(
    profile: dict[str, Any], facts: dict[str, Any], check: CheckName, sentence: str
) -> None:
    """The upstream is at fault, and the sentence says in what."""
    [finding] = decide_issued(profile_policy(**profile), issued(**facts))
    assert (finding.check, finding.type) == (check, ProblemType.SERVER_INTERNAL)
    assert sentence in finding.sentence
    assert check in UPSTREAM_BREACHES


@pytest.mark.parametrize(
    ("on_it", "leaf", "sentence"),
    [
        pytest.param(("www.a.example", "x.a.example"), {}, "names x.a.example beyond", id="extra"),
        pytest.param(("x.a.example",), {}, "lacks www.a.example and names x.a.example", id="other"),
        pytest.param(("*.a.example",), {}, "names *.a.example", id="wildcard"),
        pytest.param(
            ("www.a.example", "192.0.2.1"), {}, "names 192.0.2.1 beyond the order", id="address"
        ),
        pytest.param(
            ("www.a.example", x509.UniformResourceIdentifier("spiffe://a.example/x")),
            {},
            "names uri:spiffe://a.example/x beyond the order",
            id="uri",
        ),
        pytest.param(
            ("www.a.example",),
            {"subject": name("x.a.example")},
            "has the common name 'x.a.example' beyond the order",
            id="common-name",
        ),
    ],
)
def test_a_certificate_for_other_names_is_withheld(
    on_it: tuple[Any, ...], leaf: dict[str, Any], sentence: str
) -> None:
    """Exactly the names of the order, of every kind."""
    [finding] = decide_issued(policy(), issued(*on_it, leaf=leaf))
    assert finding.check == CheckName.ISSUED_NAMES
    assert sentence in finding.sentence


def test_the_end_is_a_lever_and_names_the_rule_that_set_the_cap() -> None:
    """The rule of the decision if it is known, otherwise the one that would decide now."""
    rule = RuleRef("old.yaml", 7, "profiles.server.cap")
    late = ending(CAP + timedelta(days=1))
    [of_decision] = decide_issued(policy(), issued(**late, rule=rule))
    [of_now] = decide_issued(policy(), issued(**late))
    assert (of_decision.rule, of_decision.lever) == (rule, Lever.VERIFY)
    assert "90d cap of profile 'server' (old.yaml:7)" in of_decision.sentence
    assert of_now.rule is not None
    assert of_now.rule.path == "cap"


def test_a_profile_that_went_away_meanwhile_is_no_fault_of_the_upstream() -> None:
    """The certificate is withheld, and nobody is suspended for it."""
    document = policy(profiles={"other": PROFILE}, default_profile="other")
    [finding] = decide_issued(document, issued())
    assert finding.check == CheckName.PROFILE_OFFERED
    assert finding.check not in UPSTREAM_BREACHES


def test_every_breach_of_a_certificate_is_told() -> None:
    """The person who resumes the upstream wants to know all of it."""
    facts = issued(
        "x.a.example",
        leaf={"ca": True, "not_after": AT + timedelta(days=400), "extensions": []},
        is_known=True,
    )
    assert [finding.check for finding in decide_issued(policy(), facts)] == [
        CheckName.ISSUED_NAMES,
        CheckName.ISSUED_END,
        CheckName.ISSUED_CA,
        CheckName.ISSUED_EXTENDED_KEY_USAGES,
        CheckName.ISSUED_ONCE,
    ]


def test_a_wildcard_order_gets_its_wildcard() -> None:
    """The identifier is compared with its star."""
    facts = issued("*.a.example", identifiers=names("*.a.example"), csr=csr("*.a.example"))
    assert decide_issued(policy(), facts) == ()


ADDRESSES = (Identifier(IdentifierType.IP, "192.0.2.1"), Identifier(IdentifierType.IP, "fd00::1"))


@pytest.mark.parametrize(
    ("shown", "sentence"),
    [
        pytest.param(("192.0.2.1", "fd00::1"), None, id="as-ordered"),
        pytest.param(("192.0.2.1",), "lacks fd00::1", id="one-missing"),
        pytest.param(("192.0.2.1", "fd00::1", "192.0.2.2"), "names 192.0.2.2", id="one-more"),
        pytest.param(
            (x509.DNSName("192.0.2.1"), "fd00::1"), "lacks 192.0.2.1", id="digits-in-a-dns-name"
        ),
        pytest.param(
            ("192.0.2.1", "fd00::1", x509.DNSName("192.0.2.1")), "beyond", id="digits-beside"
        ),
        pytest.param(
            ("fd00::1", x509.IPAddress(ipaddress.ip_network("192.0.2.0/24"))),
            "lacks 192.0.2.1",
            id="network",
        ),
    ],
)
def test_addresses_are_read_back_from_the_certificate(shown: Any, sentence: str | None) -> None:
    """As octets of iPAddress entries (RFC 8738 §3), nothing missing and nothing beside."""
    document = policy(names={"allow": ["192.0.2.0/24", "fd00::/8"]})
    facts = issued(*shown, identifiers=ADDRESSES, csr=csr("192.0.2.1", "fd00::1"))
    findings = decide_issued(document, facts)
    if sentence is None:
        assert findings == ()
        return
    assert [finding.check for finding in findings] == [CheckName.ISSUED_NAMES]
    assert sentence in findings[0].sentence


LONGEST: dict[str, Any] = {"cap": timedelta(days=47), "longest": timedelta(days=90)}


def test_a_certificate_that_is_to_be_retired_may_outlive_the_cap() -> None:
    """As long as the upstream was known to issue, and its tolerance; not without the decision."""
    assert decide_issued(policy(), issued(**ending(CAP + MINUTE), **LONGEST)) == ()
    [finding] = decide_issued(policy(), issued(**ending(CAP), cap=LONGEST["cap"]))
    assert finding.check == CheckName.ISSUED_END


def test_a_certificate_longer_than_its_upstream_was_known_for_is_a_breach() -> None:
    """The sentence names what was known, and no cap."""
    [finding] = decide_issued(policy(), issued(**ending(CAP + MINUTE + SECOND), **LONGEST))
    assert finding.lever is Lever.VERIFY
    assert "past the 90d that this upstream was known to issue" in finding.sentence
    assert "cap" not in finding.sentence


MAIL = x509.RFC822Name("Jane@a.example")


@pytest.mark.parametrize(
    ("texts", "leaf", "is_right"),
    [
        pytest.param([MAIL], {}, True, id="as-ordered"),
        pytest.param([MAIL], {"subject": name("Jane@A.example")}, True, id="common-name"),
        pytest.param([MAIL], {"subject": name(email_address="Jane@a.example")}, True,
                     id="in-the-subject"),
        pytest.param([x509.RFC822Name("jane@a.example")], {}, False, id="another-case"),
        pytest.param([x509.RFC822Name("a.example")], {}, False, id="its-host-alone"),
        pytest.param([MAIL, "a.example"], {}, False, id="its-domain-too"),
        pytest.param([MAIL], {"subject": name("jane@a.example")}, False,
                     id="common-name-in-another-case"),
    ],
)  # fmt: skip
def test_addresses_of_e_mail_are_read_back_from_the_certificate(
    texts: list[Any], leaf: dict[str, Any], is_right: bool
) -> None:
    """The mail server alone knows whether case matters, so another case is another mailbox."""
    facts = issued(
        *texts, leaf=leaf, identifiers=(Identifier(IdentifierType.EMAIL, "Jane@a.example"),)
    )
    found = {one.check for one in decide_issued(policy(), facts)}
    assert (CheckName.ISSUED_NAMES not in found) is is_right
