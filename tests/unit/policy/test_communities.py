"""What a name needs before it is authorized: a challenge, or a rule that trusts the requester."""

from __future__ import annotations

from typing import Any

import pytest

from broker.policy.communities import grant_for, requirement_for
from broker.policy.decisions import EabGrant
from broker.protocol.challenges import ChallengeType
from tests.unit.policy.builders import PROFILE, eab, names, policy

TRUST: dict[str, Any] = {
    "eab": ["farm", "barn"],
    "names": ["**.ci.a.example"],
    "profiles": ["server"],
    "because": "they live for an hour",
}
FARM = eab("farm")


@pytest.mark.parametrize(
    ("offered", "name", "challenges"),
    [
        pytest.param(["http-01", "dns-01"], "a.example", ["http-01", "dns-01"], id="both"),
        pytest.param(["dns-01", "http-01"], "a.example", ["dns-01", "http-01"], id="in-order"),
        pytest.param(["http-01"], "a.example", ["http-01"], id="http-only"),
        pytest.param(["http-01", "dns-01"], "*.a.example", ["dns-01"], id="wildcard"),
        pytest.param(["http-01"], "*.a.example", None, id="wildcard-without-dns"),
        pytest.param([], "a.example", None, id="nothing-offered"),
        pytest.param(["http-01", "http-01"], "a.example", ["http-01"], id="twice"),
    ],
)
def test_a_name_needs_one_of_the_challenges_that_fit_it(
    offered: list[str], name: str, challenges: list[str] | None
) -> None:
    """RFC 8555 §8.3: http-01 proves nothing about a wildcard."""
    document = policy(challenges=offered)
    [identifier] = names(name)
    found = requirement_for(document, document.profiles["server"], None, identifier)
    if challenges is None:
        assert found is None
    else:
        assert found is not None
        assert found.challenges == tuple(ChallengeType(kind) for kind in challenges)
        assert found.granted_by is None


@pytest.mark.parametrize(
    ("change", "who", "name", "is_granted"),
    [
        pytest.param({}, FARM, "x.ci.a.example", True, id="named"),
        pytest.param({}, eab("barn"), "x.ci.a.example", True, id="second-key"),
        pytest.param({}, None, "x.ci.a.example", False, id="no-binding"),
        pytest.param({}, eab("stranger"), "x.ci.a.example", False, id="other-key"),
        pytest.param({}, eab("Farm"), "x.ci.a.example", False, id="key-ids-are-exact"),
        pytest.param({}, FARM, "x.a.example", False, id="other-name"),
        pytest.param({}, FARM, "ci.a.example", False, id="the-base"),
        pytest.param({}, FARM, "*.ci.a.example", False, id="wildcard-not-granted"),
        pytest.param({"wildcards": True}, FARM, "*.ci.a.example", True, id="wildcard-granted"),
        pytest.param({"profiles": ["other"]}, FARM, "x.ci.a.example", False, id="other-profile"),
        pytest.param({"profiles": []}, FARM, "x.ci.a.example", False, id="no-profile"),
        pytest.param({"names": []}, FARM, "x.ci.a.example", False, id="no-names"),
        pytest.param({"eab": []}, FARM, "x.ci.a.example", False, id="nobody"),
    ],
)
def test_a_trusted_requester_needs_no_challenge_for_its_names(
    change: dict[str, Any], who: EabGrant | None, name: str, is_granted: bool
) -> None:
    """Key, name, wildcard and profile all have to fit."""
    profiles = {"server": PROFILE, "other": PROFILE}
    document = policy(profiles=profiles, trusted=[{**TRUST, **change}])
    [identifier] = names(name)
    profile = document.profiles["server"]
    found = requirement_for(document, profile, who, identifier)
    assert found is not None
    assert (found.granted_by is not None) is is_granted
    assert (found.challenges == ()) is is_granted
    assert (grant_for(document, profile, who, identifier) is not None) is is_granted


@pytest.mark.parametrize(
    ("nodes", "who", "is_granted"),
    [
        (["*.web.example"], "a.web.example", True),
        (["**.web.example", "db.example"], "db.example", True),
        (["*.web.example"], "web.example", False),
        (["*.web.example"], "a.b.web.example", False),
        (["*.web.example"], "evilweb.example", False),
        ([], "a.web.example", False),
    ],
    ids=["fits", "one of them", "the base", "deeper", "look-alike", "none"],
)
def test_a_trusted_node_needs_no_challenge(nodes: list[str], who: str, is_granted: bool) -> None:
    """By the name that it was let in under; a key id that reads alike is none."""
    rule = {**TRUST, "eab": [who], "nodes": nodes}
    document = policy(trusted=[rule])
    [identifier] = names("x.ci.a.example")
    profile = document.profiles["server"]
    node = EabGrant(key_id="", names=(), profiles=(), node=who)
    assert (grant_for(document, profile, node, identifier) is not None) is is_granted


def test_the_rule_that_grants_is_named() -> None:
    """The first that fits, so that the record of the order tells why no challenge was asked."""
    document = policy(trusted=[{**TRUST, "eab": ["other"]}, TRUST, TRUST])
    [identifier] = names("x.ci.a.example")
    found = requirement_for(document, document.profiles["server"], FARM, identifier)
    assert found is not None
    assert found.granted_by is not None
    assert found.granted_by.path == "trusted[1]"
