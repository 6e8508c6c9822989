"""The checks on names, profile and validity of a newOrder, each with what passes it."""

from __future__ import annotations

from datetime import timedelta
from typing import Any

import pytest

from broker.policy.chains import decide_new_order
from broker.policy.checks import Case, CheckName, cap_text
from broker.policy.decisions import Finding, Lever, NewOrderFacts, RuleRef
from broker.policy.document import PolicyDocument
from broker.protocol.challenges import ChallengeType
from broker.protocol.identifiers import Identifier, IdentifierType
from broker.protocol.problems import ProblemType
from tests.unit.policy.builders import (
    AT,
    PROFILE,
    always,
    eab,
    names,
    new_order,
    policy,
    profile_policy,
    upstream,
)


def found(document: PolicyDocument, facts: NewOrderFacts) -> list[Finding]:
    """Return what is found against the order."""
    return list(decide_new_order(document, facts).findings)


def only(document: PolicyDocument, facts: NewOrderFacts) -> Finding:
    """Return the one finding against the order."""
    [finding] = found(document, facts)
    return finding


OTHER_PROFILES: dict[str, Any] = {"server": PROFILE, "short": {**PROFILE, "cap": "7d"}}

PASSES: list[Any] = [
    pytest.param({}, {}, ("www.a.example",), id="plain"),
    pytest.param({}, {"profile": "server"}, ("www.a.example",), id="profile-named"),
    pytest.param({}, {}, ("*.a.example",), id="wildcard"),
    pytest.param(
        {"names": {"allow": ["*.a.example"], "wildcards": True}},
        {},
        ("*.a.example",),
        id="wildcard-by-its-own-pattern",
    ),
    pytest.param({}, {"public_suffixes": frozenset({"example"})}, ("a.a.example",), id="below"),
    pytest.param(
        {"names": {"allow": ["**.a.example"], "deny": ["b.a.example"]}},
        {},
        ("c.a.example",),
        id="beside-a-denied-name",
    ),
    pytest.param(
        {"profiles": {"server": {**PROFILE, "names": ["**.b.a.example"]}}},
        {},
        ("x.b.a.example",),
        id="inside-the-profile",
    ),
    pytest.param({}, {"eab": eab()}, ("www.a.example",), id="key-without-limits"),
    pytest.param(
        {}, {"eab": eab(names=["*.a.example"])}, ("www.a.example",), id="inside-the-key's-names"
    ),
    pytest.param(
        {}, {"eab": eab(profiles=["server"])}, ("www.a.example",), id="inside-the-key's-profiles"
    ),
    pytest.param({"challenges": ["http-01"]}, {}, ("www.a.example",), id="http-only"),
    pytest.param({"challenges": ["dns-01"]}, {}, ("*.a.example",), id="wildcard-by-dns"),
    pytest.param(
        {"names": {"allow": ["**.internal"]}}, {}, ("db.internal",), id="private-and-not-logged"
    ),
    pytest.param(
        {"names": {"allow": ["**.internal"]}, "ct": {"allow_private_names": True}},
        {"upstreams": (upstream(is_ct_logged=True),)},
        ("db.internal",),
        id="private-and-logged-on-purpose",
    ),
    pytest.param({}, {"not_after": AT + timedelta(days=90)}, ("www.a.example",), id="just-the-cap"),
    pytest.param({}, {"not_after": AT + timedelta(seconds=1)}, ("www.a.example",), id="a-second"),
]


@pytest.mark.parametrize(("changes", "facts", "texts"), PASSES)
def test_what_policy_allows_passes(
    changes: dict[str, Any], facts: dict[str, Any], texts: tuple[str, ...]
) -> None:
    """The twins of the refusals below: the same orders with the right input."""
    decision = decide_new_order(policy(**changes), new_order(*texts, **facts))
    assert decision.findings == ()
    assert not decision.is_refused
    assert set(decision.requirements) == set(names(*texts))


REFUSED: list[Any] = [
    pytest.param(
        {},
        {"profile": "hisp"},
        ("www.a.example",),
        CheckName.PROFILE_OFFERED,
        ProblemType.INVALID_PROFILE,
        "profile 'hisp' is not offered; offered: server",
        id="unknown-profile",
    ),
    pytest.param(
        {"default_profile": None},
        {},
        ("www.a.example",),
        CheckName.PROFILE_OFFERED,
        ProblemType.INVALID_PROFILE,
        "the order names no profile, and there is no default one; offered: server",
        id="no-default-profile",
    ),
    pytest.param(
        {},
        {"identifiers": ()},
        (),
        CheckName.IDENTIFIERS_PRESENT,
        ProblemType.MALFORMED,
        "the order names no identifier, expected at least one",
        id="nothing-named",
    ),
    pytest.param(
        {},
        {"not_before": AT},
        ("www.a.example",),
        CheckName.NOT_BEFORE,
        ProblemType.MALFORMED,
        "notBefore 2026-11-22T12:00:00Z is not supported, expected none: a certificate is valid "
        "from its issuance on",
        id="not-before",
    ),
    pytest.param(
        {},
        {"public_suffixes": frozenset({"a.a.example"})},
        ("*.a.a.example",),
        CheckName.PUBLIC_SUFFIX,
        ProblemType.REJECTED_IDENTIFIER,
        "'*.a.a.example' covers a whole public suffix, expected a name below 'a.a.example'",
        id="public-suffix-wildcard",
    ),
    pytest.param(
        {},
        {"public_suffixes": frozenset({"a.a.example"})},
        ("a.a.example",),
        CheckName.PUBLIC_SUFFIX,
        ProblemType.REJECTED_IDENTIFIER,
        "'a.a.example' is a public suffix, expected a name below 'a.a.example'",
        id="public-suffix",
    ),
    pytest.param(
        {"names": {"allow": ["**.a.example"], "deny": ["b.a.example"], "wildcards": True}},
        {},
        ("b.a.example",),
        CheckName.NAME_DENIED,
        ProblemType.REJECTED_IDENTIFIER,
        "'b.a.example' is denied by policy (policy.yaml:10)",
        id="denied",
    ),
    pytest.param(
        {"names": {"allow": ["**.a.example"], "deny": ["b.a.example"], "wildcards": True}},
        {},
        ("*.a.example",),
        CheckName.NAME_DENIED,
        ProblemType.REJECTED_IDENTIFIER,
        "'*.a.example' is denied by policy (policy.yaml:10)",
        id="wildcard-over-a-denied-name",
    ),
    pytest.param(
        {},
        {},
        ("www.b.example",),
        CheckName.NAME_ALLOWED,
        ProblemType.REJECTED_IDENTIFIER,
        "'www.b.example' is allowed by no rule (policy.yaml:6)",
        id="not-allowed",
    ),
    pytest.param(
        {"names": {"allow": ["www.a.example", "*.example"], "wildcards": True}},
        {},
        ("*.a.example",),
        CheckName.NAME_ALLOWED,
        ProblemType.REJECTED_IDENTIFIER,
        "'*.a.example' is allowed by no rule (policy.yaml:6)",
        id="wildcard-of-which-one-name-is-allowed",
    ),
    pytest.param(
        {"profiles": {"server": {**PROFILE, "names": ["**.b.a.example"]}}},
        {},
        ("www.a.example",),
        CheckName.PROFILE_NAMES,
        ProblemType.REJECTED_IDENTIFIER,
        "'www.a.example' is outside the names of profile 'server' (policy.yaml:33)",
        id="outside-the-profile",
    ),
    pytest.param(
        {"names": {"allow": ["**.a.example"]}},
        {},
        ("*.a.example",),
        CheckName.WILDCARD_ALLOWED,
        ProblemType.REJECTED_IDENTIFIER,
        "'*.a.example' is a wildcard, which policy does not allow (policy.yaml:5)",
        id="wildcards-off",
    ),
    pytest.param(
        {},
        {"eab": eab("team", names=["**.b.example", "x.a.example"])},
        ("www.a.example",),
        CheckName.EAB_NAMES,
        ProblemType.REJECTED_IDENTIFIER,
        "'www.a.example' is outside the names of EAB key 'team'",
        id="outside-the-key's-names",
    ),
    pytest.param(
        {},
        {"eab": eab("team", names=["**.a.example", "no pattern"])},
        ("www.a.example",),
        CheckName.EAB_NAMES,
        ProblemType.REJECTED_IDENTIFIER,
        "'www.a.example' is outside the names of EAB key 'team'",
        id="limits-that-cannot-be-read",
    ),
    pytest.param(
        {"profiles": OTHER_PROFILES},
        {"eab": eab("team", profiles=["short", "other"])},
        ("www.a.example",),
        CheckName.EAB_PROFILE,
        ProblemType.UNAUTHORIZED,
        "profile 'server' is outside the profiles of EAB key 'team': short, other",
        id="outside-the-key's-profiles",
    ),
    pytest.param(
        {"challenges": ["http-01"]},
        {},
        ("*.a.example",),
        CheckName.CONTROL_PROVABLE,
        ProblemType.REJECTED_IDENTIFIER,
        "'*.a.example' is a wildcard and needs dns-01, which policy does not offer "
        "(policy.yaml:11)",
        id="wildcard-without-dns-01",
    ),
    pytest.param(
        {"challenges": []},
        {},
        ("www.a.example",),
        CheckName.CONTROL_PROVABLE,
        ProblemType.REJECTED_IDENTIFIER,
        "'www.a.example' needs a challenge, and policy offers none (policy.yaml:11)",
        id="no-challenges",
    ),
    pytest.param(
        {"names": {"allow": ["**.internal"]}},
        {"upstreams": (upstream(is_ct_logged=True),)},
        ("db.internal",),
        CheckName.PRIVATE_NAME,
        ProblemType.REJECTED_IDENTIFIER,
        "'db.internal' is a private name, and every upstream of profile 'server' writes names to "
        "public Certificate Transparency logs",
        id="private-name-to-a-public-log",
    ),
    pytest.param(
        {"ct": {"private_names": ["**.corp.a.example"]}},
        {"upstreams": (upstream(is_ct_logged=True),)},
        ("db.corp.a.example",),
        CheckName.PRIVATE_NAME,
        ProblemType.REJECTED_IDENTIFIER,
        "'db.corp.a.example' is a private name, and every upstream of profile 'server' writes "
        "names to public Certificate Transparency logs",
        id="listed-private-name-to-a-public-log",
    ),
    pytest.param(
        {},
        {"not_after": AT},
        ("www.a.example",),
        CheckName.NOT_AFTER,
        ProblemType.MALFORMED,
        "notAfter 2026-11-22T12:00:00Z is not in the future, it is 2026-11-22T12:00:00Z now",
        id="end-is-now",
    ),
    pytest.param(
        {},
        {"not_after": AT + timedelta(days=131)},
        ("www.a.example",),
        CheckName.NOT_AFTER,
        ProblemType.REJECTED_IDENTIFIER,
        "notAfter 2027-04-02T12:00:00Z is 41 days past the 90d cap of the community "
        "(policy.yaml:21)",
        id="end-past-the-cap",
    ),
    pytest.param(
        {"profiles": OTHER_PROFILES},
        {"profile": "short", "not_after": AT + timedelta(days=7, seconds=1)},
        ("www.a.example",),
        CheckName.NOT_AFTER,
        ProblemType.INVALID_PROFILE,
        "notAfter 2026-11-29T12:00:01Z is 1s past the 7d cap of profile 'short' (policy.yaml:44)",
        id="end-a-second-past-the-cap-of-a-named-profile",
    ),
    pytest.param(
        {"profiles": {"server": {**PROFILE, "upstreams": []}}},
        {},
        ("www.a.example",),
        CheckName.CAP_PLAN,
        ProblemType.REJECTED_IDENTIFIER,
        "no upstream of profile 'server' can hold the 90d cap of the community (policy.yaml:21): "
        "it names none",
        id="no-upstream-named",
    ),
    pytest.param(
        {},
        {"upstreams": ()},
        ("www.a.example",),
        CheckName.CAP_PLAN,
        ProblemType.SERVER_INTERNAL,
        "no upstream of profile 'server' can be ordered from now: upstream 'ca' is not ready",
        id="no-upstream-ready",
    ),
    pytest.param(
        {},
        {"suspended": frozenset({("ca", None)})},
        ("www.a.example",),
        CheckName.CAP_PLAN,
        ProblemType.SERVER_INTERNAL,
        "no upstream of profile 'server' can be ordered from now: upstream 'ca' is suspended "
        "until an operator resumes it",
        id="suspended",
    ),
    pytest.param(
        {},
        {"upstreams": (upstream(honours_not_after=False, default_lifetimes=always(
            timedelta(days=91))),)},
        ("www.a.example",),
        CheckName.CAP_PLAN,
        ProblemType.REJECTED_IDENTIFIER,
        "no upstream of profile 'server' can hold the 90d cap of the community (policy.yaml:21): "
        "upstream 'ca' issues 91d on 2026-11-22, past the 90d cap",
        id="cap-that-nothing-holds",
    ),
    pytest.param(
        {},
        {
            "profile": "server",
            "not_after": AT + timedelta(days=10),
            "upstreams": (upstream(honours_not_after=False),),
        },
        ("www.a.example",),
        CheckName.CAP_PLAN,
        ProblemType.INVALID_PROFILE,
        "no upstream of profile 'server' can issue to notAfter 2026-12-02T12:00:00Z: upstream "
        "'ca' does not honour notAfter",
        id="end-that-nobody-keeps",
    ),
]  # fmt: skip


@pytest.mark.parametrize(("changes", "facts", "texts", "check", "kind", "sentence"), REFUSED)
def test_what_policy_does_not_allow_is_refused_with_a_sentence(
    changes: dict[str, Any],
    facts: dict[str, Any],
    texts: tuple[str, ...],
    check: CheckName,
    kind: ProblemType,
    sentence: str,
) -> None:
    """The right problem type, and what was expected."""
    finding = only(policy(**changes), new_order(*texts, **facts))
    assert (finding.check, finding.type, finding.sentence) == (check, kind, sentence)


def test_identifiers_other_than_names_and_addresses_are_not_served() -> None:
    """Where no rule speaks of them, even if a pattern would fit their text."""
    identifier = Identifier(IdentifierType.EMAIL, "a@a.example")
    document = policy(names={"allow": ["**"]})
    finding = only(document, new_order(identifiers=(identifier,)))
    assert finding.check == CheckName.IDENTIFIER_TYPE
    assert finding.type is ProblemType.UNSUPPORTED_IDENTIFIER
    assert finding.identifier == identifier


# ----------------------------------------------------------------------------------------- e-mail


def mail(address: str, **facts: Any) -> NewOrderFacts:
    """Return the facts of a newOrder for an address of e-mail, by whoever is trusted with some."""
    taking = upstream(identifier_types=frozenset({"dns", "email"}))
    identifiers = (Identifier(IdentifierType.EMAIL, address),)
    asker = {"eab": eab(), "upstreams": (taking,)}
    return new_order(identifiers=identifiers, **{**asker, **facts})


def mail_policy(**changes: Any) -> PolicyDocument:
    """Return a policy that gives addresses of one domain to the holder of a key."""
    trusted = [{"eab": ["key"], "names": ["@a.example"], "profiles": ["server"], "because": "HR"}]
    return policy(
        **{"names": {"allow": ["**.a.example", "@a.example"]}, "trusted": trusted, **changes}
    )


def test_an_address_of_e_mail_that_a_rule_gives_may_be_ordered() -> None:
    """Without a challenge: there is none for it."""
    decision = decide_new_order(mail_policy(), mail("jane@a.example"))
    assert not decision.is_refused
    [need] = decision.requirements.values()
    assert (need.challenges, need.granted_by is not None) == ((), True)


@pytest.mark.parametrize(
    ("address", "changes", "facts", "check", "sentence"),
    [
        pytest.param("jane@b.example", {}, {}, CheckName.NAME_ALLOWED, "allowed by no rule",
                     id="another-domain"),
        pytest.param("jane@www.a.example", {}, {}, CheckName.NAME_ALLOWED, "allowed by no rule",
                     id="a-domain-that-only-names-may-have"),
        pytest.param("Root@a.example",
                     {"names": {"allow": ["@a.example"], "deny": ["root@a.example"]}}, {},
                     CheckName.NAME_DENIED, "denied by policy", id="denied-in-any-case"),
        pytest.param("jane@a.example", {"trusted": []}, {}, CheckName.CONTROL_PROVABLE,
                     "no challenge here can prove", id="nobody-is-trusted"),
        pytest.param("jane@a.example", {}, {"eab": None}, CheckName.CONTROL_PROVABLE,
                     "no challenge here can prove", id="another-asker"),
        pytest.param("jane@a.example", {}, {"eab": eab(names=["**.a.example"])},
                     CheckName.EAB_NAMES, "outside the names of", id="binding-for-names"),
        pytest.param("jane@a.example", {}, {"public_suffixes": frozenset({"a.example"})},
                     CheckName.PUBLIC_SUFFIX,
                     "is an address at a public suffix, expected a name below 'a.example'",
                     id="public-suffix"),
        pytest.param("jane@a.example", {"rules": [{"name": "r", "because": "b", "refuse": "not now",
                                                   "names": ["@*.example", "@a.example"]}]}, {},
                     CheckName.RULE_REFUSED_NAME, "not now", id="rule"),
        pytest.param("jane@a.example", {"ct": {"private_names": ["a.example"]}},
                     {"upstreams": (upstream(identifier_types=frozenset({"email"}),
                                             is_ct_logged=True),)},
                     CheckName.PRIVATE_NAME, "is a private name", id="at-a-private-name"),
        pytest.param("jane@a.example", {}, {"upstreams": (upstream(),)}, CheckName.CAP_PLAN,
                     "takes identifiers of type dns only", id="no-upstream"),
    ],
)  # fmt: skip
def test_an_address_of_e_mail_that_is_refused(
    address: str,
    changes: dict[str, Any],
    facts: dict[str, Any],
    check: CheckName,
    sentence: str,
) -> None:
    """No rule of DNS names, no default and no challenge gives one."""
    finding = only(mail_policy(**changes), mail(address, **facts))
    assert finding.check == check
    assert sentence in finding.sentence


def test_addresses_of_e_mail_open_no_name() -> None:
    """A pattern of e-mail says nothing of its own domain."""
    document = mail_policy(names={"allow": ["@a.example", "@**.a.example"]})
    assert only(document, new_order("www.a.example")).check == CheckName.NAME_ALLOWED


# -------------------------------------------------------------------------------------- addresses


def asked(*addresses: str, **facts: Any) -> NewOrderFacts:
    """Return the facts of a newOrder for addresses, with an upstream that takes them."""
    identifiers = tuple(Identifier(IdentifierType.IP, address) for address in addresses)
    taking = upstream(identifier_types=frozenset({"dns", "ip"}))
    return new_order(identifiers=identifiers, **{"upstreams": (taking,), **facts})


@pytest.mark.parametrize(
    ("allow", "address"),
    [
        pytest.param("10.20.0.0/16", "10.20.3.4", id="in-a-network"),
        pytest.param("10.20.3.4", "10.20.3.4", id="alone"),
        pytest.param("2001:db8::/32", "2001:db8:1::7", id="IPv6"),
        pytest.param("fd00:1::/32", "fd00:1:2::3", id="IPv6-private"),
        pytest.param("0.0.0.0/0", "10.20.3.4", id="every-IPv4"),
        pytest.param("127.0.0.0/8", "127.0.0.1", id="loopback-by-name"),
        pytest.param("127.0.0.1", "127.0.0.1", id="loopback-alone"),
    ],
)
def test_an_address_that_a_rule_allows_may_be_ordered(allow: str, address: str) -> None:
    """The same allow list as for names; http-01 is what it needs, never dns-01."""
    decision = decide_new_order(policy(names={"allow": [allow]}), asked(address))
    assert not decision.is_refused
    [need] = decision.requirements.values()
    assert need.challenges == (ChallengeType.HTTP_01,)


@pytest.mark.parametrize(
    ("changes", "address", "check", "sentence"),
    [
        pytest.param(
            {"names": {"allow": ["**"]}},
            "10.20.3.4",
            CheckName.NAME_ALLOWED,
            "'10.20.3.4' is allowed by no rule (policy.yaml:6)",
            id="every-name-is-no-address",
        ),
        pytest.param(
            {"names": {"allow": ["10.20.0.0/16"]}},
            "10.21.0.1",
            CheckName.NAME_ALLOWED,
            "'10.21.0.1' is allowed by no rule (policy.yaml:6)",
            id="outside",
        ),
        pytest.param(
            {"names": {"allow": ["10.0.0.0/8"], "deny": ["10.20.0.0/16"]}},
            "10.20.3.4",
            CheckName.NAME_DENIED,
            "'10.20.3.4' is denied by policy (policy.yaml:10)",
            id="denied",
        ),
        pytest.param(
            {"names": {"allow": ["0.0.0.0/0"]}},
            "127.0.0.1",
            CheckName.ADDRESS_RESERVED,
            "'127.0.0.1' is loopback, and no rule within 127.0.0.0/8 allows it (policy.yaml:6)",
            id="loopback-not-by-a-wide-rule",
        ),
        pytest.param(
            {"names": {"allow": ["169.254.0.0/16", "169.254.169.254"]}},
            "169.254.169.254",
            CheckName.ADDRESS_RESERVED,
            "'169.254.169.254' is link-local, and the address of no one host (policy.yaml:6)",
            id="link-local-by-no-rule",
        ),
        pytest.param(
            {"names": {"allow": ["ff00::/8"]}},
            "ff02::1",
            CheckName.ADDRESS_RESERVED,
            "'ff02::1' is multicast, and the address of no one host (policy.yaml:6)",
            id="multicast-by-no-rule",
        ),
        pytest.param(
            {"names": {"allow": ["10.0.0.0/8"]}, "challenges": ["dns-01", "dns-account-01"]},
            "10.20.3.4",
            CheckName.CONTROL_PROVABLE,
            "'10.20.3.4' is an address and needs http-01 or tls-alpn-01, and policy offers neither "
            "(policy.yaml:10)",
            id="not-by-dns",
        ),
    ],
)
def test_an_address_that_policy_does_not_give_is_refused(
    changes: dict[str, Any], address: str, check: CheckName, sentence: str
) -> None:
    """Each with its sentence and the rule that it came from."""
    finding = only(policy(**changes), asked(address))
    assert (finding.check, finding.sentence) == (check, sentence)
    assert finding.type is ProblemType.REJECTED_IDENTIFIER
    assert finding.identifier == Identifier(IdentifierType.IP, address)


def test_each_refused_address_is_named() -> None:
    """One subproblem an identifier, names and addresses alike."""
    document = policy(names={"allow": ["**.a.example", "10.0.0.0/8"]})
    order = asked("10.0.0.1", "10.0.0.2", "192.168.0.1", "2001:db8::1")
    problem = decide_new_order(document, order).problem()
    told = {str(one.identifier.value) for one in problem.subproblems if one.identifier}
    assert told == {"192.168.0.1", "2001:db8::1"}


def test_a_private_address_goes_to_no_upstream_that_logs_publicly() -> None:
    """The same rule as for private names; a public address may go there."""
    document = policy(names={"allow": ["10.0.0.0/8", "8.8.8.0/24"]})
    logging = upstream(identifier_types=frozenset({"dns", "ip"}), is_ct_logged=True)
    finding = only(document, asked("10.0.0.1", upstreams=(logging,)))
    assert finding.check == CheckName.PRIVATE_NAME
    assert not decide_new_order(document, asked("8.8.8.8", upstreams=(logging,))).is_refused


def test_an_upstream_that_takes_no_addresses_is_passed_over() -> None:
    """Before anything is ordered."""
    document = policy(names={"allow": ["10.0.0.0/8"]})
    finding = only(document, asked("10.0.0.1", upstreams=(upstream(),)))
    assert finding.check == CheckName.CAP_PLAN
    assert "takes identifiers of type dns only" in finding.sentence


def test_an_upstream_may_take_addresses_with_some_profiles_alone() -> None:
    """Let's Encrypt with its short-lived one: another would refuse when it is too late."""
    facts = upstream(
        identifier_types=frozenset({"dns", "ip"}),
        ip_profiles=frozenset({"shortlived"}),
        profiles={"shortlived": always(timedelta(days=6)), "classic": always(timedelta(days=90))},
    )
    order = asked("8.8.8.8", upstreams=(facts,))
    rules = {"names": {"allow": ["8.8.8.8", "**.a.example"]}}
    classic = profile_policy(top=rules, upstreams=[{"upstream": "ca", "profile": "classic"}])
    finding = only(classic, order)
    assert finding.check == CheckName.CAP_PLAN
    assert "takes addresses with profile shortlived only" in finding.sentence
    assert not decide_new_order(classic, new_order(upstreams=(facts,))).is_refused
    short = profile_policy(top=rules, upstreams=[{"upstream": "ca", "profile": "shortlived"}])
    assert not decide_new_order(short, order).is_refused


def test_an_eab_key_may_be_limited_to_networks() -> None:
    """In the same pattern language."""
    document = policy(names={"allow": ["10.0.0.0/8"]})
    limited = eab("farm", names=["10.20.0.0/16"])
    assert not decide_new_order(document, asked("10.20.0.1", eab=limited)).is_refused
    finding = only(document, asked("10.30.0.1", eab=limited))
    assert finding.check == CheckName.EAB_NAMES
    unlimited_names = eab("farm", names=["**"])
    assert only(document, asked("10.20.0.1", eab=unlimited_names)).check == CheckName.EAB_NAMES


def test_a_trusted_requester_may_have_addresses_without_a_challenge() -> None:
    """And only those that its rule names."""
    trusted = {
        "eab": ["farm"],
        "names": ["10.20.0.0/16"],
        "profiles": ["server"],
        "because": "switches answer no challenge",
    }
    document = policy(names={"allow": ["10.0.0.0/8"]}, trusted=[trusted])
    decision = decide_new_order(document, asked("10.20.0.1", "10.30.0.1", eab=eab("farm")))
    granted = {str(name) for name, need in decision.requirements.items() if need.granted_by}
    assert granted == {"10.20.0.1"}


def test_the_rule_that_refuses_is_named() -> None:
    """File, line and path, for the audit record."""
    document = policy(names={"allow": ["**.a.example"], "deny": ["**.x.a.example"]})
    rule = only(document, new_order("b.x.a.example")).rule
    assert rule is not None
    assert (rule.source, rule.path) == ("policy.yaml", "names.deny[0]")


def test_each_refused_identifier_has_one_finding_and_the_others_none() -> None:
    """A client learns which of its names to leave out."""
    facts = new_order("www.a.example", "www.b.example", "*.c.example", "x.a.example")
    findings = found(policy(names={"allow": ["**.a.example"]}), facts)
    assert [str(finding.identifier) for finding in findings] == ["www.b.example", "*.c.example"]


def test_an_identifier_that_stands_twice_is_refused_once() -> None:
    """The problem document has no subproblem twice."""
    assert len(found(policy(), new_order("www.b.example", "www.b.example"))) == 1


@pytest.mark.parametrize(
    ("facts", "lever"),
    [
        pytest.param({"not_after": AT + timedelta(days=91)}, Lever.REFUSE, id="past-the-cap"),
        pytest.param(
            {"upstreams": (upstream(honours_not_after=False),)}, Lever.REFUSE, id="no-plan"
        ),
        pytest.param({"upstreams": ()}, None, id="not-ready-is-no-lever"),
        pytest.param({"not_after": AT}, None, id="nonsense-is-no-lever"),
    ],
)
def test_refusing_before_ordering_is_a_lever(facts: dict[str, Any], lever: Lever | None) -> None:
    """Told apart from an upstream that is merely away."""
    assert only(policy(), new_order(**facts)).lever is lever


def test_a_private_name_waits_for_an_upstream_that_may_be_private() -> None:
    """While the other choice is not ready, nothing is known against the name."""
    document = profile_policy(
        upstreams=[{"upstream": "public"}, {"upstream": "ca"}],
        top={"names": {"allow": ["**.internal"]}},
    )
    public = upstream("public", is_ct_logged=True)
    finding = only(document, new_order("db.internal", upstreams=(public,)))
    assert finding.check == CheckName.CAP_PLAN
    assert finding.type is ProblemType.SERVER_INTERNAL
    assert found(document, new_order("db.internal", upstreams=(public, upstream()))) == []


def test_control_characters_of_a_client_do_not_reach_a_sentence() -> None:
    """A profile's name is the client's text until it is known."""
    finding = only(policy(), new_order(profile="\x1b[31m\n"))
    assert finding.sentence.isprintable()


@pytest.mark.parametrize(
    ("path", "text"),
    [
        pytest.param("cap", "7d cap of the community (f:9)", id="community"),
        pytest.param("profiles.a-b.cap", "7d cap of profile 'a-b' (f:9)", id="profile"),
        pytest.param('profiles["v1.2"].cap', "7d cap of profile 'v1.2' (f:9)", id="quoted"),
        pytest.param("caps[0].names[1]", "7d cap of caps[0].names[1] (f:9)", id="names"),
    ],
)
def test_a_cap_is_told_with_whose_it_is(path: str, text: str) -> None:
    """In words where there are any, and always with its place."""
    assert cap_text(timedelta(days=7), RuleRef("f", 9, path)) == text


def test_a_check_before_the_profile_is_known_is_a_bug_and_says_so() -> None:
    """The chain's order makes it impossible; a wrong order must not pass silently."""
    facts = new_order()
    case = Case(policy(), None, facts.identifiers, None, facts)
    with pytest.raises(LookupError, match="profile-offered"):
        _ = case.chosen
