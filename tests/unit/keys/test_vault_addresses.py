"""Which address is asked, which is left out, and where a redirect leads."""

import pytest

from broker.keys.vault_addresses import AVOID_SECONDS, Addresses
from broker.keys.vault_answers import Away, VaultState

A, B, C = "https://a:8200", "https://b:8200", "https://c"


class Ticks:
    """A monotonic clock that a test moves."""

    def __init__(self) -> None:
        self.now = 100.0

    def __call__(self) -> float:
        """Return the time."""
        return self.now


@pytest.fixture
def ticks() -> Ticks:
    """The time."""
    return Ticks()


@pytest.fixture
def addresses(ticks: Ticks) -> Addresses:
    """Three of them, the first with a '/' too many."""
    return Addresses((A + "/", B, C), ticks)


SEALED = Away(VaultState.SEALED, "sealed")
SLOW = Away(VaultState.SLOW, "slow", left_nothing=False)


def asked(addresses: Addresses, *faults: Away, is_repeatable: bool = True) -> list[str]:
    """Return the addresses of one request that meets *faults*, then an answer."""
    left, seen = list(faults), []
    trip = addresses.trip(is_repeatable=is_repeatable)
    for address in trip:
        seen.append(address)
        if not left:
            trip.answered(address)
            return seen
        trip.failed(address, left.pop(0))
    return seen


def test_first_address_is_preferred(addresses: Addresses) -> None:
    """As long as it answers, nobody else is asked."""
    assert addresses.all == (A, B, C)
    assert asked(addresses) == asked(addresses) == [A]


def test_address_that_failed_is_left_out_for_a_moment(addresses: Addresses, ticks: Ticks) -> None:
    """Then it is tried again; one that answers is taken back."""
    assert asked(addresses, SEALED) == [A, B]
    assert addresses.failing() == (A,)
    assert asked(addresses) == [B]
    ticks.now += AVOID_SECONDS
    assert asked(addresses, SEALED) == [A, B]
    addresses.answered(A)
    assert addresses.failing() == ()
    assert asked(addresses) == [A]


def test_where_all_failed_just_now_none_is_asked(addresses: Addresses) -> None:
    """The answer is what they said; it costs no time limit."""
    assert asked(addresses, SEALED, SEALED, SEALED) == [A, B, C]
    with pytest.raises(Away, match=f"{A}: sealed; {B}: sealed; {C}: sealed"):
        addresses.trip(is_repeatable=True)


def test_what_may_have_been_done_goes_nowhere_else(addresses: Addresses) -> None:
    """Unless it may be repeated."""
    assert asked(addresses, SLOW, is_repeatable=False) == [A]
    addresses.answered(A)
    assert asked(addresses, SLOW) == [A, B]


def test_fault_of_the_request_leaves_no_address_out(addresses: Addresses) -> None:
    """A limit is told at once, and the same address asked the next time."""
    limited = Away(VaultState.LIMITED, "429", is_elsewhere=False)
    assert asked(addresses, limited) == [A]
    assert asked(addresses) == [A]


def test_slow_request_among_answered_ones_is_no_fault_of_the_node(
    addresses: Addresses, ticks: Ticks
) -> None:
    """Somebody else had an answer meanwhile."""
    since = ticks.now
    ticks.now += 5
    addresses.answered(A)
    addresses.failed(A, SLOW, since=since)
    assert addresses.failing() == ()
    addresses.failed(A, SLOW, since=ticks.now)
    assert addresses.failing() == (A,)


def test_connection_that_broke_is_made_once_more(addresses: Addresses) -> None:
    """For what may be repeated; the second time it is the node's fault."""
    stale = Away(VaultState.UNREACHABLE, "broke", left_nothing=False, is_stale=True)
    assert asked(addresses, stale) == [A, A]
    assert asked(addresses, stale, is_repeatable=False) == [A]
    addresses.answered(A)
    assert asked(addresses, stale, stale) == [A, A, B]


@pytest.mark.parametrize(
    ("target", "seen"),
    [
        pytest.param(f"{C}:443/v1/x", [A, C], id="ours"),
        pytest.param("https://elsewhere:8200/v1/x", [A, B], id="another-host"),
        pytest.param("http://c/v1/x", [A, B], id="without-tls"),
        pytest.param("https://[broken", [A, B], id="no-url"),
    ],
)
def test_redirect_leads_to_configured_addresses_alone(
    addresses: Addresses, target: str, seen: list[str]
) -> None:
    """Whoever could name another host would be sent the token."""
    assert asked(addresses, Away(VaultState.REDIRECTING, "redirects", target=target)) == seen


def test_redirect_elsewhere_is_told(ticks: Ticks) -> None:
    """The operator has to add that address."""
    addresses = Addresses((A,), ticks)
    trip = addresses.trip(is_repeatable=True)
    for address in trip:
        trip.failed(address, Away(VaultState.REDIRECTING, "redirects", target="https://x/v1/"))
    assert "not among the addresses configured" in trip.verdict().reason
