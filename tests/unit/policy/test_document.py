"""Policy text becomes a document, or is refused whole."""

from __future__ import annotations

import hashlib
from dataclasses import FrozenInstanceError
from datetime import timedelta
from typing import Any

import pytest

from broker.policy.chains import decide_new_order
from broker.policy.decisions import RuleRef
from broker.policy.document import OnNodes, parse_policy
from broker.policy.form import Loss, NodeKey
from broker.policy.yamlfile import Faults
from broker.protocol.challenges import ChallengeType
from tests.unit.policy.builders import POLICY, PROFILE, SOURCE, new_order, policy, policy_text

TEXT = """\
apiVersion: penstock.dev/v1
kind: Policy
community: default
names:
  allow:
    - a.example
    - "**.a.example"
  deny: [secret.a.example]
challenges: [dns-01]
keys: {allow: [ec-p256]}
cap: 90d
caps:
  - names: ["**.pay.a.example"]
    cap: 7d
profiles:
  server:
    description: servers
    cap: 47d
    usages: [server-auth, client-auth]
    key_usages: [digital-signature]
    upstreams:
      - {upstream: ca, profile: short}
      - {upstream: other}
default_profile: server
trusted:
  - eab: [farm]
    names: ["*.ci.a.example"]
    profiles: [server]
    because: they live for an hour
"""


def test_every_rule_keeps_its_place() -> None:
    """A refusal can name file, line and path."""
    document = parse_policy(TEXT, source=SOURCE)
    profile = document.profiles["server"]
    [cap_rule] = document.cap_by_rule
    assert document.allow.rules == (
        RuleRef(SOURCE, 6, "names.allow[0]"),
        RuleRef(SOURCE, 7, "names.allow[1]"),
    )
    assert document.deny.covering("secret.a.example") == RuleRef(SOURCE, 8, "names.deny[0]")
    assert document.cap_rule == RuleRef(SOURCE, 11, "cap")
    assert cap_rule == RuleRef(SOURCE, 13, "caps[0].names[0]")
    assert profile.rule == RuleRef(SOURCE, 16, "profiles.server")
    assert profile.cap_rule == RuleRef(SOURCE, 18, "profiles.server.cap")
    assert profile.choices[1].rule == RuleRef(SOURCE, 23, "profiles.server.upstreams[1]")
    assert document.trusted[0].rule == RuleRef(SOURCE, 26, "trusted[0]")
    assert document.wildcards_rule == RuleRef(SOURCE, 4, "names.wildcards")


def test_the_document_says_what_the_text_says() -> None:
    """Words become the values that decide."""
    document = parse_policy(TEXT, source=SOURCE)
    profile = document.profile(None)
    assert profile is document.profile("server")
    assert profile is not None
    assert profile.cap == timedelta(days=47)
    assert profile.usages == {"1.3.6.1.5.5.7.3.1", "1.3.6.1.5.5.7.3.2"}
    assert profile.key_usages == {"digitalSignature"}
    assert [str(choice) for choice in profile.choices] == [
        "upstream 'ca' profile 'short'",
        "upstream 'other'",
    ]
    assert document.challenges == (ChallengeType.DNS_01,)
    assert document.key_kinds == ("ec-p256",)
    assert document.upstreams == {"ca", "other"}
    assert document.trusted[0].because == "they live for an hour"


def test_the_hash_is_that_of_the_text() -> None:
    """Byte for byte, comments and all, so that it can be compared with a file."""
    text = TEXT + "# ü\n"
    document = parse_policy(text, source=SOURCE)
    assert document.sha256 == hashlib.sha256(text.encode()).hexdigest()
    assert document.sha256 != parse_policy(TEXT, source=SOURCE).sha256


def test_a_document_is_frozen() -> None:
    """Nothing changes a policy but another file."""
    document = policy()
    with pytest.raises(FrozenInstanceError):
        document.wildcards = True  # type: ignore[misc]
    with pytest.raises(TypeError):
        document.profiles["more"] = document.profiles["server"]  # type: ignore[index]


@pytest.mark.parametrize("name", ["unknown", "", "Server"])
def test_a_profile_that_is_not_there_is_none(name: str) -> None:
    """Names of profiles are compared exactly."""
    assert policy().profile(name) is None


def test_without_a_default_profile_none_is_none() -> None:
    """Nothing is chosen that no rule chose."""
    assert policy(default_profile=None).profile(None) is None


BROKEN: list[Any] = [
    pytest.param({"apiVersion": None}, "missing key 'apiVersion'", id="no-version"),
    pytest.param({"apiVersion": "penstock.dev/v2"}, "'penstock.dev/v1'", id="other-version"),
    pytest.param({"kind": "Polic"}, "did you mean 'Policy'?", id="other-kind"),
    pytest.param({"community": None}, "missing key 'community'", id="no-community"),
    pytest.param({"community": "A/b"}, "community: string should match", id="odd-community"),
    pytest.param({"cap": None}, "missing key 'cap'", id="no-cap"),
    pytest.param({"cap": 90}, "90 has no unit", id="bare-cap"),
    pytest.param({"cap": "0d"}, "'0d' is zero", id="zero-cap"),
    pytest.param({"cap": "-1d"}, "'-1d' is not a duration", id="negative-cap"),
    pytest.param({"nmaes": {}}, "did you mean 'names'?", id="unknown-key"),
    pytest.param({"names": {"allow": "**"}}, "expected a list, found '**'", id="text-for-list"),
    pytest.param({"names": {"allow": [1]}}, "expected a name pattern", id="number-as-pattern"),
    pytest.param({"names": {"allow": ["a_b.example"]}}, "underscore", id="bad-pattern"),
    pytest.param({"names": {"wildcards": "yes"}}, "expected true or false", id="word-as-truth"),
    pytest.param({"challenges": ["tls-sni-01"]}, "tls-alpn-01", id="unknown-challenge"),
    pytest.param({"names": {"allow": ["10.0.0.1/8"]}}, "expected '10.0.0.0/8'", id="host-bits"),
    pytest.param({"challenges": ["dns"]}, "did you mean 'dns-01'?", id="no-challenge"),
    pytest.param({"keys": {"allow": ["rsa-1024"]}}, "found 'rsa-1024'", id="weak-key"),
    pytest.param({"keys": {"allow": ["ed25519"]}}, "found 'ed25519'", id="key-no-ca-takes"),
    pytest.param({"default_profile": "servr"}, "did you mean 'server'?", id="no-such-default"),
    pytest.param(
        {"trusted": [{"eab": ["k"], "names": [], "profiles": ["x"], "because": "y"}]},
        "trusted[0].profiles[0]: there is no profile 'x'",
        id="no-such-profile",
    ),
    pytest.param(
        {"trusted": [{"eab": ["k"], "names": [], "profiles": []}]},
        "trusted[0]: missing key 'because'",
        id="trust-without-reason",
    ),
    pytest.param(
        {"trusted": [{"eab": ["k"], "names": [], "profiles": [], "because": ""}]},
        "at least 1 character",
        id="trust-with-empty-reason",
    ),
    pytest.param(
        {"profiles": {"server": {**PROFILE, "usages": ["any"]}}}, "found 'any'", id="any-usage"
    ),
    pytest.param(
        {"profiles": {"server": {**PROFILE, "key_usages": ["key-cert-sign"]}}},
        "found 'key-cert-sign'",
        id="ca-key-usage",
    ),
    pytest.param(
        {"profiles": {"server": {**PROFILE, "csr_extensions": ["2.5.29.19"]}}},
        "a CA certificate is never issued",
        id="basic-constraints-allowed",
    ),
    pytest.param(
        {"profiles": {"server": {**PROFILE, "certificate_extensions": ["2.5.29.30"]}}},
        "name constraints belong to CAs",
        id="name-constraints-allowed",
    ),
    pytest.param(
        {"profiles": {"server": {**PROFILE, "csr_extensions": ["1.2.x"]}}},
        "string should match",
        id="no-oid",
    ),
    pytest.param({"profiles": {"a b": PROFILE}}, "should match", id="odd-profile-name"),
    pytest.param({"caps": [{"names": ["**"]}]}, "caps[0]: missing key 'cap'", id="cap-of-nothing"),
]


@pytest.mark.parametrize(("changes", "fault"), BROKEN)
def test_a_broken_policy_is_refused(changes: dict[str, Any], fault: str) -> None:
    """With the place and a sentence; what was in force stays in force."""
    with pytest.raises(Faults) as caught:
        policy(**changes)
    assert fault in str(caught.value)
    assert str(caught.value).startswith(f"{SOURCE}:")


def test_all_faults_of_a_policy_are_told_at_once() -> None:
    """Also those of references, which no field can see alone."""
    with pytest.raises(Faults) as caught:
        policy(cap=90, default_profile="servr", nmaes={}, challenges=["tls-sni-01"])
    assert len(caught.value.faults) == 4


@pytest.mark.parametrize(
    "text",
    [
        pytest.param("", id="empty"),
        pytest.param("\n\n# names: all\n", id="comments"),
        pytest.param("{}", id="empty-mapping"),
        pytest.param("[]", id="list"),
        pytest.param("allow", id="word"),
        pytest.param(policy_text()[:100], id="half-written"),
        pytest.param("\x00" * 100, id="zeros"),
        pytest.param("names: &a [*a]", id="alias-to-itself"),
        pytest.param("x" * 50_000_000, id="50-megabytes"),
    ],
)
def test_what_is_no_policy_never_becomes_one(text: str) -> None:
    """Empty is not allow-all."""
    with pytest.raises(Faults):
        parse_policy(text, source=SOURCE)


@pytest.mark.parametrize(
    "changes",
    [
        pytest.param({"names": None}, id="names-missing"),
        pytest.param({"names": {"allow": []}}, id="names-empty"),
        pytest.param({"names": {}}, id="allow-missing"),
        pytest.param({"challenges": None}, id="challenges-missing"),
        pytest.param({"challenges": []}, id="challenges-empty"),
        pytest.param({"profiles": None, "default_profile": None}, id="profiles-missing"),
        pytest.param({"profiles": {}, "default_profile": None}, id="profiles-empty"),
        pytest.param({"profiles": {"server": {**PROFILE, "upstreams": []}}}, id="upstreams-empty"),
        pytest.param({"profiles": {"server": {**PROFILE, "names": []}}}, id="profile-names-empty"),
    ],
)
def test_an_empty_or_missing_list_refuses(changes: dict[str, Any]) -> None:
    """It loads, and allows nothing; the policy without the change allows the same order."""
    assert decide_new_order(policy(**changes), new_order()).is_refused
    assert not decide_new_order(policy(), new_order()).is_refused


def test_the_smallest_policy_loads_and_refuses() -> None:
    """Only what says which file this is, and the cap, must stand there."""
    smallest = {
        key: None for key in POLICY if key not in {"apiVersion", "kind", "community", "cap"}
    }
    assert decide_new_order(policy(**smallest), new_order()).is_refused


def test_profile_says_how_it_is_renewed_at_nodes() -> None:
    """A new key each time, kept for a month, and held for any loss, unless it says otherwise."""
    plain = parse_policy(TEXT, source=SOURCE).profiles["server"].on_nodes
    assert plain == OnNodes()
    assert (plain.key, plain.hold) == (NodeKey.NEW, frozenset(Loss))
    text = TEXT.replace(
        "    description: servers\n",
        "    description: servers\n"
        "    on_nodes: {key: csr, keep_previous_key: 90d, challenges: [http-01], hold: [names]}\n",
    )
    told = parse_policy(text, source=SOURCE).profiles["server"].on_nodes
    assert told == OnNodes(
        key=NodeKey.CSR,
        keep_previous_key=timedelta(days=90),
        challenges=(ChallengeType.HTTP_01,),
        hold=frozenset({Loss.NAMES}),
    )
