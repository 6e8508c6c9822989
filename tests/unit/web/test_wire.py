"""Records as wire objects: what is shown, and what is not."""

from dataclasses import replace

import pytest

from broker.issuance.records import AccountRecord
from broker.protocol.resources import (
    AccountStatus,
    AuthorizationStatus,
    ChallengeStatus,
    OrderStatus,
)
from broker.web.links import CommunityLinks
from broker.web.wire import (
    account_object,
    authorization_object,
    challenge_object,
    order_object,
)
from tests.fakes.clock import START
from tests.fakes.workflows import authorization_record, order_record

LINKS = CommunityLinks("https://acme.corp.example/acme/default")


def test_account_shows_its_orders_and_its_binding() -> None:
    """The binding is the very value of the request; one that is not there is not shown."""
    account = AccountRecord(
        account_id="a1",
        community="default",
        status=AccountStatus.VALID,
        jwk_json="{}",
        thumbprint="t",
        contacts=(),
        terms_agreed=True,
        eab_key_id="key-1",
        created_at=START,
        binding={"protected": "p", "payload": "q", "signature": "s"},
    )
    shown = account_object(LINKS, account).to_json()
    assert shown["externalAccountBinding"] == account.binding
    assert shown["orders"] == f"{LINKS.base}/account/a1/orders"
    for version, is_shown in ((None, True), ("2", False)):
        agreeing = account_object(LINKS, account, terms_version=version).to_json()
        assert ("termsOfServiceAgreed" in agreeing) is is_shown, "an older agreement is none"
    unbound = account_object(LINKS, replace(account, binding=None)).to_json()
    assert "externalAccountBinding" not in unbound


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
