"""Records as wire objects: what is shown, and what is not."""

from dataclasses import replace

import pytest

from broker.protocol.resources import AuthorizationStatus, ChallengeStatus, OrderStatus
from broker.web.links import CommunityLinks
from broker.web.wire import authorization_object, challenge_object, order_object
from tests.fakes.workflows import authorization_record, order_record

LINKS = CommunityLinks("https://acme.corp.example/acme/default")


@pytest.mark.parametrize("status", list(OrderStatus))
def test_certificate_is_shown_of_a_valid_order_alone(status: OrderStatus) -> None:
    """A certificate that was withheld has no URL, whatever its record says."""
    shown = order_object(LINKS, order_record("a", status=status, certificate_id="c1"))
    assert (shown.certificate is not None) == (status is OrderStatus.VALID)


@pytest.mark.parametrize("status", list(OrderStatus))
def test_error_is_shown_of_an_invalid_order_alone(status: OrderStatus) -> None:
    """Clients take any error for the end."""
    error = {"type": "urn:ietf:params:acme:error:caa", "detail": "no"}
    shown = order_object(LINKS, order_record("a", status=status, error=error))
    assert (shown.error is not None) == (status is OrderStatus.INVALID)


def test_failed_authorization_shows_what_failed() -> None:
    """RFC 8555 §7.1.4: of an invalid one, the challenge that was tried."""
    record = authorization_record("a")
    first, second = record.challenges
    failed = replace(first, status=ChallengeStatus.INVALID, error={"type": "x", "detail": "y"})
    shown = authorization_object(
        LINKS,
        replace(record, status=AuthorizationStatus.INVALID, challenges=(failed, second)),
    )
    (challenge,) = shown.challenges
    assert challenge.error is not None


@pytest.mark.parametrize("status", list(ChallengeStatus))
def test_error_of_an_attempt_is_gone_once_it_succeeded(status: ChallengeStatus) -> None:
    """A challenge that is valid after a retry shows no failure."""
    record = authorization_record("a")
    challenge = replace(record.challenges[0], status=status, error={"type": "x", "detail": "y"})
    shown = challenge_object(LINKS, record, challenge)
    is_failing = status in (ChallengeStatus.PROCESSING, ChallengeStatus.INVALID)
    assert (shown.error is not None) == is_failing
