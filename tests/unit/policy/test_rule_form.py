"""What may be written in a rule, and in which words the rest is refused."""

from __future__ import annotations

import json
from typing import Any

import pytest

from broker.policy.rule_form import SharedRulesForm
from broker.policy.yamlfile import Faults, load_model
from tests.unit.policy.rule_builders import rule, ruled


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        pytest.param({}, "demands nothing", id="no-demand"),
        pytest.param({"cap": "0d"}, "'0d' is zero", id="cap-of-zero"),
        pytest.param({"cap": 7}, "7 has no unit", id="cap-without-unit"),
        pytest.param({"refuze": "no"}, "unknown key 'refuze'", id="unknown-key"),
        pytest.param({"who": {}, "refuse": "no"}, "names nobody", id="nobody"),
        pytest.param({"who": {"eab": []}, "refuse": "no"}, "at least 1 item", id="empty-list"),
        pytest.param({"who": {"eabs": ["a"]}, "refuse": "no"}, "did you mean 'eab'", id="near-key"),
        pytest.param(
            {"from_": "2027-02-01", "until": "2027-01-01", "refuse": "no"},
            "before it starts on 2027-02-01",
            id="ends-before-it-starts",
        ),
        pytest.param({"from_": "soon", "refuse": "no"}, "expected a date", id="no-date"),
        pytest.param(
            {"mode": "warn", "renewals": "enforce", "refuse": "no"},
            "no stricter than the rule",
            id="renewals-stricter",
        ),
        pytest.param({"names": ["(a+)+$"], "refuse": "no"}, "a+", id="regular-expression"),
        pytest.param({"names": ["a*b.example"], "refuse": "no"}, "'*'", id="inner-star"),
        pytest.param({"who": {"networks": ["10.0.0.7/8"]}, "refuse": "no"}, "10.0.0.0/8", id="net"),
        pytest.param({"who": {"networks": ["corp"]}, "refuse": "no"}, "network", id="no-network"),
        pytest.param(
            {"who": {"client_certificates": ["corp"]}, "refuse": "no"}, "fingerprint", id="mark"
        ),
        pytest.param({"quotas": [{"per": "names", "limit": "0/7d"}]}, "rate", id="quota-of-none"),
        pytest.param({"quotas": [{"per": "names", "limit": "off"}]}, "50/7d", id="quota-off"),
        pytest.param({"quotas": [{"per": "moon", "limit": "5/7d"}]}, "expected", id="quota-per"),
        pytest.param({"approval": {"people": 3}}, "expected 1 or 2", id="three-people"),
        pytest.param({"approval": {"evidence": ["A ticket"]}}, "pattern", id="evidence"),
        pytest.param({"keys": ["dsa"]}, "expected", id="unknown-key-kind"),
        pytest.param({"renew_at": 1.5}, "less than or equal to 0.9", id="renew-at"),
        pytest.param({"owner": "welcome"}, "required", id="owner"),
        pytest.param({"profiles": ["serverr"], "refuse": "no"}, "did you mean", id="profile"),
        pytest.param({"name": "Not A Name", "refuse": "no"}, "pattern", id="name"),
        pytest.param({"because": "", "refuse": "no"}, "at least 1 character", id="no-reason"),
    ],
)
def test_what_cannot_be_meant_is_refused(changes: dict[str, Any], words: str) -> None:
    """Each with a message that says what was expected."""
    with pytest.raises(Faults) as caught:
        ruled(rule(**changes))
    assert words in str(caught.value)


def test_a_shared_file_says_for_whom_it_is() -> None:
    """Communities by name, or all; there is nothing to include."""
    values = {
        "apiVersion": "penstock.dev/v1",
        "kind": "SharedRules",
        "communities": ["web"],
        "rules": [rule(refuse="no")],
    }
    form, _ = load_model(json.dumps(values), "shared.yaml", SharedRulesForm)
    assert form.communities == ("web",)
    with pytest.raises(Faults, match="communities"):
        load_model(json.dumps({**values, "communities": []}), "shared.yaml", SharedRulesForm)
    with pytest.raises(Faults, match="unknown key 'includes'"):
        load_model(json.dumps({**values, "includes": ["x"]}), "shared.yaml", SharedRulesForm)
