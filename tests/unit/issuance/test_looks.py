"""A challenge among those of its authorization."""

from dataclasses import replace

from broker.issuance.looks import find_challenge, look_subject, with_challenge
from broker.protocol.resources import ChallengeStatus
from tests.fakes.workflows import authorization_record


def test_challenge_is_found_by_its_id_alone() -> None:
    """Another authorization's is none of this one's."""
    authorization = authorization_record("acct1")
    first, second = authorization.challenges
    assert find_challenge(authorization, second.challenge_id) == second
    assert find_challenge(authorization, first.challenge_id) == first
    assert find_challenge(authorization, "nothing") is None


def test_one_challenge_is_replaced_in_its_place() -> None:
    """The others stay as they were, in their order."""
    authorization = authorization_record("acct1")
    first, second = authorization.challenges
    changed = replace(first, status=ChallengeStatus.PROCESSING)
    assert with_challenge(authorization, changed).challenges == (changed, second)


def test_subject_names_both() -> None:
    """As the job's handler takes it apart again."""
    authorization = authorization_record("acct1")
    subject = look_subject(authorization, authorization.challenges[0])
    assert subject.split("/") == [
        authorization.authorization_id,
        authorization.challenges[0].challenge_id,
    ]
