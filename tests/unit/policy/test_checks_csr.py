"""The checks on a CSR at finalize, each with what passes it."""

from __future__ import annotations

from typing import Any

import pytest
from cryptography import x509
from cryptography.x509.oid import ExtendedKeyUsageOID

from broker.policy.chains import decide_finalize
from broker.policy.checks import CheckName
from broker.policy.checks_csr import listed
from broker.policy.decisions import Finding
from broker.protocol.problems import ProblemType
from tests.unit.policy.builders import PROFILE, csr, eab, finalize, names, policy, profile_policy
from tests.unit.protocol.builders import key_usage, name, private_key

OTHER_OID = "1.2.3.4"
TRUST = {
    "eab": ["farm"],
    "names": ["www.a.example"],
    "profiles": ["server"],
    "because": "they live for an hour",
}


def extension(dotted: str) -> tuple[x509.ExtensionType, bool]:
    """Return an extension that nobody knows."""
    return x509.UnrecognizedExtension(x509.ObjectIdentifier(dotted), b"\x05\x00"), False


def usages(*oids: x509.ObjectIdentifier) -> tuple[x509.ExtensionType, bool]:
    """Return an extended key usage extension."""
    return x509.ExtendedKeyUsage(list(oids)), False


STAPLE = (x509.TLSFeature([x509.TLSFeatureType.status_request]), False)
CA_TRUE = (x509.BasicConstraints(ca=True, path_length=None), True)
CA_FALSE = (x509.BasicConstraints(ca=False, path_length=None), True)


def asks(*extensions: tuple[x509.ExtensionType, bool], **kwargs: Any) -> dict[str, Any]:
    """Return the change of facts to a CSR with these extensions."""
    return {"csr": csr(extensions=extensions, **kwargs)}


PASSES: list[Any] = [
    pytest.param({}, {}, id="names-only"),
    pytest.param({}, asks(subject=name("www.a.example")), id="common-name-of-the-order"),
    pytest.param({}, asks(CA_FALSE), id="ca-false"),
    pytest.param({}, asks((key_usage("digital_signature"), True)), id="key-usage"),
    pytest.param({}, asks(usages(ExtendedKeyUsageOID.SERVER_AUTH)), id="server-auth"),
    pytest.param(
        {"usages": ["server-auth", "client-auth"]},
        asks(usages(ExtendedKeyUsageOID.CLIENT_AUTH)),
        id="client-auth-allowed",
    ),
    pytest.param({"must_staple": True}, asks(STAPLE), id="must-staple-allowed"),
    pytest.param(
        {"csr_extensions": [OTHER_OID]}, asks(extension(OTHER_OID)), id="extension-allowed"
    ),
    pytest.param(
        {"subject": ["O"]},
        asks(subject=name("www.a.example", organization_name="Example")),
        id="subject-allowed",
    ),
    pytest.param({}, {"csr": csr(key=private_key("rsa-2048"))}, id="rsa"),
]


@pytest.mark.parametrize(("profile", "facts"), PASSES)
def test_a_csr_within_the_profile_passes(profile: dict[str, Any], facts: dict[str, Any]) -> None:
    """The twins of the refusals below."""
    assert decide_finalize(profile_policy(**profile), finalize(**facts)) == ()


REFUSED: list[Any] = [
    pytest.param(
        {},
        {"csr": csr("www.a.example", "x.a.example")},
        CheckName.CSR_NAMES,
        ProblemType.BAD_CSR,
        "x.a.example beyond the order",
        id="extra-name",
    ),
    pytest.param(
        {},
        {"identifiers": names("www.a.example", "x.a.example")},
        CheckName.CSR_NAMES,
        ProblemType.BAD_CSR,
        "lacks x.a.example",
        id="missing-name",
    ),
    pytest.param(
        {},
        asks(subject=name("other.a.example")),
        CheckName.CSR_NAMES,
        ProblemType.BAD_CSR,
        "other.a.example beyond the order",
        id="common-name-beyond-the-order",
    ),
    pytest.param(
        {},
        asks(subject=name("www.a.example", organization_name="Example", country_name="DE")),
        CheckName.CSR_SUBJECT,
        ProblemType.BAD_CSR,
        "CSR has the subject attributes C=DE, O=Example, profile 'server' allows CN",
        id="organization",
    ),
    pytest.param(
        {"subject": ["O"]},
        asks(subject=name("www.a.example", organization_name="Example", country_name="DE")),
        CheckName.CSR_SUBJECT,
        ProblemType.BAD_CSR,
        "CSR has the subject attributes C=DE, profile 'server' allows CN, O",
        id="one-attribute-too-many",
    ),
    pytest.param(
        {}, asks(CA_TRUE), CheckName.CSR_CA, ProblemType.BAD_CSR, "asks for CA:TRUE", id="ca-true"
    ),
    pytest.param(
        {},
        asks((key_usage("digital_signature", "key_cert_sign", "crl_sign"), True)),
        CheckName.CSR_CA,
        ProblemType.BAD_CSR,
        "CSR asks for the key usages cRLSign, keyCertSign of a CA",
        id="ca-key-usages",
    ),
    pytest.param(
        {},
        asks((key_usage("digital_signature", "data_encipherment"), True)),
        CheckName.CSR_KEY_USAGES,
        ProblemType.BAD_CSR,
        "CSR asks for the key usages dataEncipherment, profile 'server' allows digitalSignature",
        id="key-usage",
    ),
    pytest.param(
        {"key_usages": []},
        asks((key_usage("digital_signature"), True)),
        CheckName.CSR_KEY_USAGES,
        ProblemType.BAD_CSR,
        "profile 'server' allows none",
        id="no-key-usage-allowed",
    ),
    pytest.param(
        {},
        asks(usages(ExtendedKeyUsageOID.SERVER_AUTH, ExtendedKeyUsageOID.CLIENT_AUTH)),
        CheckName.CSR_EXTENDED_KEY_USAGES,
        ProblemType.BAD_CSR,
        "CSR asks for the extended key usages client-auth, profile 'server' allows server-auth",
        id="client-auth",
    ),
    pytest.param(
        {},
        asks(usages(ExtendedKeyUsageOID.ANY_EXTENDED_KEY_USAGE)),
        CheckName.CSR_EXTENDED_KEY_USAGES,
        ProblemType.BAD_CSR,
        "2.5.29.37.0",
        id="any-usage",
    ),
    pytest.param(
        {"usages": []},
        asks(usages(ExtendedKeyUsageOID.SERVER_AUTH)),
        CheckName.CSR_EXTENDED_KEY_USAGES,
        ProblemType.BAD_CSR,
        "allows none",
        id="no-usage-allowed",
    ),
    pytest.param(
        {},
        asks(extension(OTHER_OID)),
        CheckName.CSR_EXTENSIONS,
        ProblemType.BAD_CSR,
        "CSR asks for the extensions 1.2.3.4, profile 'server' allows none",
        id="extension",
    ),
    pytest.param(
        {},
        asks((x509.NameConstraints([x509.DNSName("a.example")], None), True)),
        CheckName.CSR_EXTENSIONS,
        ProblemType.BAD_CSR,
        "2.5.29.30",
        id="name-constraints",
    ),
    pytest.param(
        {},
        asks(STAPLE),
        CheckName.CSR_MUST_STAPLE,
        ProblemType.BAD_CSR,
        "CSR asks for OCSP must-staple, which profile 'server' does not allow",
        id="must-staple",
    ),
    pytest.param(
        {},
        {"is_account_key": True},
        CheckName.KEY_IS_ACCOUNT_KEY,
        ProblemType.BAD_CSR,
        "CSR has an account key as its key, expected a key of its own",
        id="account-key",
    ),
    pytest.param(
        {},
        {"weaknesses": ("ROCA (CVE-2017-15361)", "blocked")},
        CheckName.KEY_WEAK,
        ProblemType.BAD_PUBLIC_KEY,
        "key of the CSR is refused: ROCA (CVE-2017-15361), blocked",
        id="weak-key",
    ),
]


@pytest.mark.parametrize(("profile", "facts", "check", "kind", "sentence"), REFUSED)
def test_a_csr_beyond_the_profile_is_refused(
    profile: dict[str, Any],
    facts: dict[str, Any],
    check: CheckName,
    kind: ProblemType,
    sentence: str,
) -> None:
    """Before the upstream sees it, with what was expected."""
    [finding] = decide_finalize(profile_policy(**profile), finalize(**facts))
    assert (finding.check, finding.type) == (check, kind)
    assert sentence in finding.sentence


@pytest.mark.parametrize(
    "kind", ["ES512", "secp256k1", "P-224", "Ed25519", "rsa-1024", "rsa-2047", "rsa-3072"]
)
def test_a_key_kind_that_is_not_listed_is_refused(kind: str) -> None:
    """The list is the policy's, and kinds that are near are not on it."""
    [finding] = decide_finalize(policy(), finalize(csr=csr(key=private_key(kind))))
    assert finding.check == CheckName.KEY_KIND
    assert finding.type is ProblemType.BAD_PUBLIC_KEY
    assert "allowed: ec-p256, rsa-2048 (policy.yaml:16)" in finding.sentence


def test_an_empty_list_of_keys_refuses_every_key() -> None:
    """An empty list is never a list of everything."""
    [finding] = decide_finalize(policy(keys={"allow": []}), finalize())
    assert "allowed: none" in finding.sentence


def changed(**changes: Any) -> tuple[Finding, ...]:
    """Return what a policy that changed since newOrder finds at finalize."""
    return decide_finalize(policy(**changes), finalize(eab=eab("farm")))


@pytest.mark.parametrize(
    ("changes", "check"),
    [
        pytest.param({"names": {"allow": ["x.a.example"]}}, CheckName.NAME_ALLOWED, id="allow"),
        pytest.param(
            {"names": {"allow": ["**.a.example"], "deny": ["www.a.example"]}},
            CheckName.NAME_DENIED,
            id="deny",
        ),
        pytest.param(
            {"profiles": {"server": {**PROFILE, "names": []}}},
            CheckName.PROFILE_NAMES,
            id="profile-names",
        ),
        pytest.param(
            {"profiles": {"other": PROFILE}, "default_profile": "other"},
            CheckName.PROFILE_OFFERED,
            id="profile-gone",
        ),
    ],
)
def test_a_policy_that_became_stricter_holds_at_finalize(
    changes: dict[str, Any], check: CheckName
) -> None:
    """The stricter of the two versions holds; with the old one the same CSR passes."""
    assert [finding.check for finding in changed(**changes)] == [check]
    assert changed() == ()


def test_wildcards_turned_off_since_neworder_hold_at_finalize() -> None:
    """Like every other rule about names."""
    facts = finalize(identifiers=names("*.a.example"), csr=csr("*.a.example"))
    [finding] = decide_finalize(policy(names={"allow": ["**.a.example"]}), facts)
    assert finding.check == CheckName.WILDCARD_ALLOWED
    assert decide_finalize(policy(), facts) == ()


@pytest.mark.parametrize(
    ("grant", "check"),
    [
        pytest.param(eab(names=["x.a.example"]), CheckName.EAB_NAMES, id="names"),
        pytest.param(eab(profiles=["other"]), CheckName.EAB_PROFILE, id="profiles"),
    ],
)
def test_limits_of_the_key_hold_at_finalize(grant: Any, check: CheckName) -> None:
    """They are asked for anew, since a key may have been limited meanwhile."""
    [finding] = decide_finalize(policy(), finalize(eab=grant))
    assert finding.check == check


@pytest.mark.parametrize(
    ("trusted", "granted", "who", "refused"),
    [
        pytest.param([TRUST], ("www.a.example",), eab("farm"), False, id="stands"),
        pytest.param([], ("www.a.example",), eab("farm"), True, id="rule-gone"),
        pytest.param([TRUST], ("www.a.example",), None, True, id="key-gone"),
        pytest.param([TRUST], ("www.a.example",), eab("barn"), True, id="another-key"),
        pytest.param([], (), eab("farm"), False, id="proved-by-challenge"),
    ],
)
def test_a_grant_without_challenge_must_still_stand(
    trusted: list[Any], granted: tuple[str, ...], who: Any, refused: bool
) -> None:
    """What a challenge proved stays proved; what a rule gave, the rule can take."""
    facts = finalize(granted=frozenset(names(*granted)), eab=who)
    findings = decide_finalize(policy(trusted=trusted), facts)
    expected = [(CheckName.GRANT_STANDS, ProblemType.UNAUTHORIZED)] if refused else []
    assert [(finding.check, finding.type) for finding in findings] == expected


def test_all_that_is_wrong_with_a_csr_is_told() -> None:
    """One answer, not one a day."""
    facts = finalize(**asks(CA_TRUE, STAPLE, extension(OTHER_OID)), is_account_key=True)
    assert [finding.check for finding in decide_finalize(policy(), facts)] == [
        CheckName.CSR_CA,
        CheckName.CSR_EXTENSIONS,
        CheckName.CSR_MUST_STAPLE,
        CheckName.KEY_IS_ACCOUNT_KEY,
    ]


def test_a_long_list_is_cut_and_counted() -> None:
    """A CSR can name hundreds of things."""
    assert listed(f"n{number:02}" for number in range(12)).endswith("n09 and 2 more")
    assert listed(()) == "none"
