"""A yes names the rule behind it."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

from broker.policy.chains import explain_name
from broker.policy.decisions import EabGrant
from tests.unit.policy.builders import names, new_order, policy, upstream


def grounds(document: Any, **changes: Any) -> dict[str, list[tuple[str | None, str]]]:
    """Return (name, path of the rule) for each check that passed by a rule."""
    facts = replace(new_order(), **changes)
    return {
        str(step.check): [
            (None if one.identifier is None else one.identifier.value, one.rule.path)
            for one in step.grounds
        ]
        for step in explain_name(document, facts).steps
        if step.grounds
    }


def test_each_yes_has_its_rule() -> None:
    """The pattern that covers a name, the challenges, the cap and the upstream."""
    found = grounds(policy(), identifiers=names("www.a.example"))
    assert found == {
        "profile-offered": [(None, "profiles.server")],
        "name-allowed": [("www.a.example", "names.allow[0]")],
        "control-provable": [("www.a.example", "challenges")],
        "cap-plan": [(None, "cap"), (None, "profiles.server.upstreams[0]")],
    }


def test_rule_of_each_name_is_told() -> None:
    """Two names of one order may be there by two rules."""
    document = policy(names={"allow": ["www.a.example", "**.b.example"]})
    found = grounds(document, identifiers=names("x.b.example", "www.a.example"))
    assert found["name-allowed"] == [
        ("x.b.example", "names.allow[1]"),
        ("www.a.example", "names.allow[0]"),
    ]


def test_wildcard_and_grant_are_told() -> None:
    """Who may have a wildcard, and why nobody has to prove it."""
    trusted = {
        "eab": ["team"],
        "names": ["**.a.example"],
        "profiles": ["server"],
        "wildcards": True,
        "because": "it is tried",
    }
    eab = EabGrant(key_id="team", names=(), profiles=())
    found = grounds(policy(trusted=[trusted]), identifiers=names("*.a.example"), eab=eab)
    assert found["wildcard-allowed"] == [("*.a.example", "names.wildcards")]
    assert found["control-provable"] == [("*.a.example", "trusted[0]")]


def test_refused_check_has_no_grounds() -> None:
    """Its finding names the rule."""
    found = grounds(policy(), identifiers=names("www.b.example"))
    assert "name-allowed" not in found


def test_cap_of_a_rule_is_the_ground() -> None:
    """Rules are told like everything else that holds the cap."""
    rule = {"name": "short", "because": "x", "cap": "1d"}
    found = grounds(
        policy(rules=[rule]), identifiers=names("www.a.example"), upstreams=(upstream(),)
    )
    assert found["cap-plan"][0] == (None, "rule 'short'")
