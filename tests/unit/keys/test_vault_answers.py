"""What statuses and words of Vault mean."""

import pytest

from broker.issuance.errors import Broken, NoKeyStore
from broker.keys.vault_answers import (
    Away,
    Denied,
    RawAnswer,
    VaultNotFound,
    VaultState,
    merge_faults,
    read_answer,
)
from tests.fakes.fake_vault import answer, refused

WHAT = "POST transit/sign/key"


@pytest.mark.parametrize(
    ("raw", "document"),
    [
        pytest.param(answer({"data": {"a": 1}}), {"data": {"a": 1}}, id="document"),
        pytest.param(answer(None, 204), {}, id="nothing-to-say"),
    ],
)
def test_success_is_its_document(raw: RawAnswer, document: object) -> None:
    """Also where there is none."""
    assert read_answer(raw, WHAT) == document


@pytest.mark.parametrize(
    ("raw", "state", "is_untouched", "is_elsewhere"),
    [
        pytest.param(refused(503, "Vault is sealed"), VaultState.SEALED, True, True, id="sealed"),
        pytest.param(refused(501), VaultState.SEALED, True, True, id="not-initialised"),
        pytest.param(refused(503), VaultState.FAILING, True, True, id="503-of-a-balancer"),
        pytest.param(refused(500, "internal"), VaultState.FAILING, False, True, id="500"),
        pytest.param(refused(502), VaultState.FAILING, False, True, id="502"),
        pytest.param(refused(472), VaultState.FAILING, True, True, id="disaster-recovery"),
        pytest.param(refused(473), VaultState.FAILING, True, True, id="performance-standby"),
        pytest.param(refused(412), VaultState.FAILING, True, True, id="standby-behind"),
        pytest.param(refused(429, "quota"), VaultState.LIMITED, True, False, id="429"),
        pytest.param(refused(307, location="https://b/v1/x"), "redirecting", True, True, id="307"),
        pytest.param(answer("a portal"), VaultState.FAILING, False, True, id="no-object"),
    ],
)
def test_no_usable_answer(
    raw: RawAnswer, state: VaultState, is_untouched: bool, is_elsewhere: bool
) -> None:
    """Each says whether anything can have been done, and whether another node may do better."""
    with pytest.raises(Away) as raised:
        read_answer(raw, WHAT)
    fault = raised.value
    assert (fault.state, fault.left_nothing) == (state, is_untouched)
    assert fault.is_elsewhere is is_elsewhere


@pytest.mark.parametrize(
    ("text", "seconds"),
    [
        pytest.param("7", 7.0, id="seconds"),
        pytest.param("soon", None, id="odd"),
    ],
)
def test_limit_says_when_to_come_again(text: str, seconds: float | None) -> None:
    """Retry-After in seconds is kept to (RFC 9110 §10.2.3)."""
    with pytest.raises(Away) as raised:
        read_answer(refused(429, retry_after=text), WHAT)
    assert raised.value.retry_after == seconds


@pytest.mark.parametrize(
    ("errors", "is_bad"),
    [
        pytest.param("1 error occurred:\n\t* permission denied\n\n", False, id="policy"),
        pytest.param("2 errors:\n\t* permission denied\n\t* invalid token\n", True, id="token"),
    ],
)
def test_denial_says_whether_it_is_the_token(errors: str, is_bad: bool) -> None:
    """Vault's words tell a token that is no more from one that may not."""
    with pytest.raises(Denied) as raised:
        read_answer(refused(403, errors), WHAT)
    assert raised.value.is_token_bad is is_bad
    assert raised.value.what == WHAT


@pytest.mark.parametrize(
    ("raw", "kind"),
    [
        pytest.param(refused(404), VaultNotFound, id="404"),
        pytest.param(refused(404, "no handler for route"), NoKeyStore, id="no-such-mount"),
        pytest.param(refused(400, "signing key not found"), Broken, id="400"),
        pytest.param(refused(405), Broken, id="405"),
        pytest.param(refused(500, "requested version for signing"), Broken, id="no-such-version"),
    ],
)
def test_what_a_person_has_to_see_to(raw: RawAnswer, kind: type[Broken]) -> None:
    """Only what is not there is told apart."""
    with pytest.raises(Broken) as raised:
        read_answer(raw, WHAT)
    assert type(raised.value) is kind


def test_words_of_vault_are_short_and_hold_no_token() -> None:
    """Whatever it repeats of what it was sent."""
    said = "bad hvs.CAESIKT4711abcdefgh and s.1234567890abcdef " + "x" * 1000
    with pytest.raises(Broken) as raised:
        read_answer(refused(400, said), WHAT)
    assert "CAESIKT4711" not in raised.value.reason
    assert "1234567890" not in raised.value.reason
    assert len(raised.value.reason) < 260


def test_faults_of_several_addresses_are_one() -> None:
    """Nothing was done only where none did anything; the shortest wait counts."""
    one = Away(VaultState.SEALED, "sealed", retry_after=5.0)
    two = Away(VaultState.SLOW, "slow", left_nothing=False, retry_after=2.0)
    merged = merge_faults([("https://a", one), ("https://b", two)])
    assert merged.state is VaultState.SEALED
    assert merged.reason == "https://a: sealed; https://b: slow"
    assert not merged.left_nothing
    assert merged.retry_after == 2.0


@pytest.mark.parametrize("status", [200, 400, 503])
def test_answer_that_is_nested_too_deep_is_a_fault_like_any(status: int) -> None:
    """And no exception of Python's own, which would end the watch."""
    with pytest.raises((Away, Broken)):
        read_answer(RawAnswer(status=status, headers={}, body=b"[" * 200_000), "GET x")


def test_wait_is_bounded_whatever_is_named() -> None:
    """No sum of times overflows, and a mistaken proxy is asked again within the hour."""
    raw = RawAnswer(status=429, headers={"retry-after": "9" * 400}, body=b"")
    with pytest.raises(Away) as raised:
        read_answer(raw, "POST x")
    assert raised.value.retry_after == 3600


def test_words_of_vault_steer_no_terminal() -> None:
    """They are printed by commands, and stand in the log."""
    with pytest.raises(Broken) as raised:
        read_answer(refused(400, "\x1b[2Jgone\x07 \u202etxet"), "GET x")
    assert raised.value.reason.isprintable()
    assert "gone" in raised.value.reason


def test_mount_that_is_not_there_is_told_with_what_to_look_at() -> None:
    """Vault's own words are of handlers and routes."""
    raw = refused(404, 'no handler for route "x/keys/k". route entry not found.')
    with pytest.raises(NoKeyStore, match="nothing is mounted in Vault where GET x/keys/k asks"):
        read_answer(raw, "GET x/keys/k")
