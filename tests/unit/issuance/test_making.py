"""Authorizations as they begin: what is theirs alone, and why they are valid."""

from dataclasses import replace
from datetime import timedelta

import pytest

from broker.issuance.making import Ground, authorization_ahead, authorization_of_order
from broker.issuance.records import Proof
from broker.policy.decisions import Requirement, RuleRef
from broker.protocol.challenges import ChallengeType
from broker.protocol.resources import AuthorizationStatus, ChallengeStatus
from tests.fakes.clock import START
from tests.fakes.workflows import authorization_record, order_record
from tests.fakes.world import dns

BY_CHALLENGE = Requirement(challenges=(ChallengeType.HTTP_01, ChallengeType.DNS_01))
GRANTED = Requirement(challenges=(), granted_by=RuleRef("default.yaml", 9, "trusted[0]"))


@pytest.mark.parametrize("name", ["www.example.com", "*.example.com"])
def test_authorization_names_the_base_and_tells_of_a_wildcard(name: str) -> None:
    """RFC 8555 §7.1.4; tokens and ids are fresh each time."""
    order = order_record("acct1")
    first, second = (authorization_of_order(order, dns(name), BY_CHALLENGE) for _ in range(2))
    assert first.identifier == dns(name.removeprefix("*."))
    assert first.is_wildcard is name.startswith("*.")
    assert (first.status, first.order_id) == (AuthorizationStatus.PENDING, order.order_id)
    tokens = {one.token for made in (first, second) for one in made.challenges}
    ids = {one.challenge_id for made in (first, second) for one in made.challenges}
    assert (len(tokens), len(ids)) == (4, 4)


def test_rule_that_trusts_makes_it_valid_without_a_challenge() -> None:
    """And goes before a ground: what policy grants is policy's proof."""
    order = order_record("acct1")
    ground = Ground(authorization_record("acct1"), authorization_record("acct1").challenges[0])
    made = authorization_of_order(order, dns("www.example.com"), GRANTED, ground)
    assert (made.status, made.proof) == (AuthorizationStatus.VALID, Proof.POLICY)
    assert (made.rests_on, made.challenges) == (None, ())


def test_ground_makes_it_valid_by_the_same_proof() -> None:
    """The challenge is shown as it succeeded, under a URL of its own."""
    older = replace(authorization_record("acct1"), proof=Proof.CHALLENGE, order_id=None)
    proof = replace(older.challenges[0], status=ChallengeStatus.VALID, validated_at=START)
    made = authorization_of_order(
        order_record("acct1"), dns("www.example.com"), BY_CHALLENGE, Ground(older, proof)
    )
    assert (made.status, made.rests_on) == (AuthorizationStatus.VALID, older.authorization_id)
    assert made.challenges == (replace(proof, challenge_id=made.challenges[0].challenge_id),)
    assert made.challenges[0].challenge_id != proof.challenge_id


@pytest.mark.parametrize("need", [BY_CHALLENGE, GRANTED], ids=["by challenge", "granted"])
def test_authorization_ahead_has_no_order(need: Requirement) -> None:
    """It ends when it is told to."""
    made = authorization_ahead(
        dns("www.example.com"),
        need,
        account_id="acct1",
        community="default",
        at=START,
        expires_at=START + timedelta(days=7),
    )
    assert (made.order_id, made.expires_at) == (None, START + timedelta(days=7))
    is_granted = need is GRANTED
    assert made.status is (AuthorizationStatus.VALID if is_granted else AuthorizationStatus.PENDING)
