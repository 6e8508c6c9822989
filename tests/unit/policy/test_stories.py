"""An order of a case goes through the three times that policy is asked about it."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from broker.policy.case_form import Given, Stage
from broker.policy.document import parse_policy
from broker.policy.stories import Story, requester_of, tell_story
from broker.policy.upstream_facts import parse_upstream_facts

POLICIES = Path(__file__).parents[3] / "policies"
DESCRIPTIONS = parse_upstream_facts(
    (POLICIES / "upstreams.yaml").read_text("utf-8"), source="upstreams.yaml"
)
DEFAULT = parse_policy((POLICIES / "default.yaml").read_text("utf-8"), source="default.yaml")


def given(**changes: Any) -> Given:
    """Return a request that the default policy allows."""
    values = {
        "names": ("app.internal",),
        "upstreams": ({"name": "local", "description": "built-in"},),
        **changes,
    }
    return Given.model_validate(values, strict=False)


def tell(**changes: Any) -> Story:
    """Return what the default policy makes of a request."""
    return tell_story(DEFAULT, given(**changes), DESCRIPTIONS)


@pytest.mark.parametrize(
    ("changes", "stage", "check"),
    [
        pytest.param({}, Stage.NEW_ORDER, None, id="allowed"),
        pytest.param({"names": ("a.example",)}, Stage.NEW_ORDER, "name-allowed", id="refused"),
        pytest.param({"csr": {}}, Stage.FINALIZE, None, id="csr"),
        pytest.param({"csr": {"key": "ed25519"}}, Stage.FINALIZE, "key-kind", id="key"),
        pytest.param({"csr": {"is_account_key": True}}, Stage.FINALIZE, "key-is-account-key",
                     id="account-key"),
        pytest.param({"csr": {"weaknesses": ("it is known",)}}, Stage.FINALIZE, "key-weak",
                     id="weak"),
        pytest.param({"csr": {"asks_for_ca": True}}, Stage.FINALIZE, "csr-ca", id="ca"),
        pytest.param({"csr": {"names": ("b.internal",)}}, Stage.FINALIZE, "csr-names", id="names"),
        pytest.param({"csr": {"must_staple": True}}, Stage.FINALIZE, "csr-must-staple",
                     id="staple"),
        pytest.param({"csr": {"usages": ("client-auth",)}}, Stage.FINALIZE,
                     "csr-extended-key-usages", id="usage"),
        pytest.param({"csr": {"extensions": ("1.2.3.4",)}}, Stage.FINALIZE, "csr-extensions",
                     id="extension"),
        pytest.param({"csr": {"subject": ("O=X",)}}, Stage.FINALIZE, "csr-subject", id="subject"),
        pytest.param({"certificate": {}}, Stage.ISSUED, None, id="certificate"),
        pytest.param({"certificate": {"lifetime": "48d"}}, Stage.ISSUED, "issued-end", id="long"),
        pytest.param({"certificate": {"key": "another"}}, Stage.ISSUED, "issued-key",
                     id="other-key"),
        pytest.param({"certificate": {"names": ("b.internal",)}}, Stage.ISSUED, "issued-names",
                     id="other-names"),
        pytest.param({"certificate": {"is_ca": True}}, Stage.ISSUED, "issued-ca", id="is-ca"),
        pytest.param({"certificate": {"usages": ("client-auth",)}}, Stage.ISSUED,
                     "issued-extended-key-usages", id="other-usages"),
        pytest.param({"certificate": {"extensions": ("1.2.3.4",)}}, Stage.ISSUED,
                     "issued-extensions", id="other-extensions"),
        pytest.param({"certificate": {"anchored": False}}, Stage.ISSUED, "issued-anchor",
                     id="anchor"),
        pytest.param({"certificate": {"seen_before": True}}, Stage.ISSUED, "issued-once",
                     id="twice"),
        pytest.param({"csr": {"key": "ed25519"}, "certificate": {}}, Stage.FINALIZE, "key-kind",
                     id="refused-before-it-is-issued"),
    ],
)  # fmt: skip
def test_order_is_carried_as_far_as_the_case_says(
    changes: dict[str, Any], stage: Stage, check: str | None
) -> None:
    """The stage that refuses is the last one, and its checks are those of the chains."""
    story = tell(**changes)
    assert story.stage is stage
    assert story.is_refused is (check is not None)
    assert {str(one.check) for one in story.findings} == ({check} if check else set())


def test_names_that_a_rule_grants_are_granted_at_finalize_too() -> None:
    """The check that the grant stands sees what newOrder gave."""
    text = (POLICIES / "default.yaml").read_text("utf-8")
    trusting = parse_policy(
        text + "\ntrusted:\n  - nodes: ['**']\n    names: ['**.internal']\n"
        "    profiles: [server]\n    because: it is tried\n",
        source="default.yaml",
    )
    asked = given(requester={"node": "web-01"}, csr={})
    story = tell_story(trusting, asked, DESCRIPTIONS)
    assert not story.is_refused
    [need] = story.decision.requirements.values()
    assert need.challenges == ()


def test_requester_is_what_rules_look_at() -> None:
    """The binding's key is the requester's as well."""
    asked = given(
        eab={"key_id": "team"},
        requester={
            "account": "t" * 43,
            "address": "192.0.2.1",
            "owner": "anna",
            "client_certificate": {"names": ("a.example",)},
        },
    )
    who = requester_of(asked)
    assert (who.eab_key_id, who.address, who.owner) == ("team", "192.0.2.1", "anna")
    assert who.client_certificate is not None
    assert who.client_certificate.names == ("a.example",)


def test_cases_say_how_a_node_was_let_in() -> None:
    """A rule asks for it, of the node and of what its orders keep."""
    who = requester_of(given(requester={"node": "web-01", "attestation": "kubernetes"}))
    assert (who.node, who.attestation) == ("web-01", "kubernetes")


@pytest.mark.parametrize("written", ["jane@corp.internal", "email:jane@corp.internal"])
def test_cases_take_addresses_of_e_mail(written: str) -> None:
    """The default policy has no rule of them, and says so."""
    story = tell(names=("app.internal", written))
    [finding] = story.findings
    assert (finding.check, str(finding.identifier)) == ("identifier-type", "jane@corp.internal")
