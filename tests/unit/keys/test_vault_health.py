"""States, since when, and in which words."""

from datetime import timedelta

from broker.keys.vault_answers import VaultState
from broker.keys.vault_health import IdentityHealth, Silent, Standing, VaultHealth
from tests.fakes.clock import START, FakeClock


def test_since_is_when_it_went_down_and_not_when_the_reason_changed() -> None:
    """An outage has one beginning, whatever is said of it meanwhile."""
    clock = FakeClock()
    standing = Standing("default", clock)
    clock.advance(timedelta(minutes=1))
    standing.becomes(VaultState.SLOW, "slow")
    clock.advance(timedelta(minutes=1))
    standing.becomes(VaultState.SEALED, "sealed")
    standing.becomes(VaultState.SEALED, "sealed, still")
    assert standing.current().since == START + timedelta(minutes=1)
    assert standing.current().reason == "sealed, still"
    clock.advance(timedelta(minutes=1))
    standing.becomes(VaultState.OK)
    assert standing.current().since == START + timedelta(minutes=3)
    clock.advance(timedelta(minutes=1))
    standing.becomes(VaultState.OK)
    assert standing.current().since == START + timedelta(minutes=3)


def test_changes_of_state_are_told_once() -> None:
    """Another reason for the same state is none."""
    told: list[tuple[VaultState, VaultState]] = []

    def tell(before: IdentityHealth, after: IdentityHealth) -> None:
        told.append((before.state, after.state))

    standing = Standing("default", FakeClock())
    standing.on_change = tell
    standing.becomes(VaultState.DENIED, "one")
    standing.becomes(VaultState.DENIED, "two")
    standing.becomes(VaultState.OK)
    assert told == [
        (VaultState.UNTRIED, VaultState.DENIED),
        (VaultState.DENIED, VaultState.OK),
    ]


def test_warning_names_what_is_down() -> None:
    """And says nothing of the rest, nor of what nobody has tried."""
    rows = [
        IdentityHealth(identity="default", state=VaultState.OK, since=START),
        IdentityHealth(identity="transit-ca", state=VaultState.UNTRIED, since=START),
    ]
    assert VaultHealth(identities=tuple(rows)).warning() is None
    assert VaultHealth(identities=tuple(rows)).is_up
    rows[1] = IdentityHealth(
        identity="transit-ca", state=VaultState.SEALED, since=START, reason="503"
    )
    health = VaultHealth(identities=tuple(rows))
    assert not health.is_up
    assert health.warning() == "sealed for 'transit-ca' since 2026-03-01T12:00:00Z: 503"


def test_silent_observer_takes_everything() -> None:
    """For whoever counts nothing."""
    silent = Silent()
    silent.vault_asked(identity="a", outcome="ok", seconds=1)
    silent.vault_login(identity="a", outcome="ok")
    silent.vault_renewed(identity="a", outcome="ok")
    silent.vault_alarm(identity="a", reason="b")


def test_root_is_noted_beside_the_state() -> None:
    """And stays through its changes."""
    standing = Standing("default", FakeClock())
    assert not standing.current().is_root
    standing.set_root(is_root=True)
    standing.becomes(VaultState.SEALED, "sealed")
    assert standing.current().is_root
