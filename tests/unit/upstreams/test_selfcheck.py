"""A look at a zone's own servers, without servers."""

from collections.abc import Sequence
from datetime import timedelta

import dns.name
import pytest

from broker.issuance.errors import Broken, Unreachable
from broker.upstreams.lookup import NameServer
from broker.upstreams.selfcheck import MAX_SERVERS, SelfCheck
from tests.fakes.clock import FakeClock

ZONE, NAME, VALUE = "acme.example.", "_acme-challenge.www.acme.example.", "value"
ONE, TWO = NameServer("192.0.2.1"), NameServer("192.0.2.2")
Shown = Sequence[str] | Exception


class FakeView:
    """Servers that show one thing after another; the last stays."""

    def __init__(self, shown: dict[NameServer, list[Shown]], servers: list[str]) -> None:
        self.shown = shown
        self.servers = servers
        self.asked: list[NameServer] = []
        self.failure: Exception | None = None

    async def servers_of(self, zone: dns.name.Name) -> list[str]:
        """Return the servers of the zone, or fail as told."""
        assert zone == dns.name.from_text(ZONE)
        if self.failure is not None:
            raise self.failure
        return self.servers

    async def read_txt(self, server: NameServer, name: dns.name.Name) -> frozenset[str]:
        """Return what the server shows now."""
        assert name == dns.name.from_text(NAME)
        self.asked.append(server)
        states = self.shown[server]
        state = states.pop(0) if len(states) > 1 else states[0]
        if isinstance(state, Exception):
            raise state
        return frozenset(state)


class Looking:
    """A check with a clock that moves when it waits."""

    def __init__(self, *states: list[Shown], servers: tuple[NameServer, ...] = ()) -> None:
        shown = dict(zip((ONE, TWO), states, strict=False))
        self.view = FakeView(shown, [server.host for server in shown])
        self.clock = FakeClock()
        self.waits: list[float] = []
        self.check = SelfCheck(
            self.clock,
            view=self.view,
            servers=servers,
            total=timedelta(seconds=10),
            pause=self.pause,
        )

    async def pause(self, duration: timedelta) -> None:
        """Let the time pass."""
        self.waits.append(duration.total_seconds())
        self.clock.advance(duration)

    async def look(self) -> str | None:
        """Look for the value."""
        return await self.check.look(zone=ZONE, name=NAME, value=VALUE)


async def test_a_value_that_is_there_is_seen_without_a_wait() -> None:
    """All servers show it, beside another value or alone."""
    looking = Looking([[VALUE, "other"]], [[VALUE]])
    assert await looking.look() is None
    assert looking.waits == []


async def test_it_waits_for_the_slowest_server() -> None:
    """A secondary that lags is what the CA would stumble over."""
    looking = Looking([[VALUE]], [[], ["other"], [VALUE]])
    assert await looking.look() is None
    assert looking.waits == [0.2, 0.4]


async def test_at_the_deadline_it_tells_who_lacks_the_value() -> None:
    """Advice: a sentence, and no exception."""
    looking = Looking([[VALUE]], [["other"]])
    assert await looking.look() == f"{NAME} lacks its value at 192.0.2.2:53 after 10 s"
    assert sum(looking.waits) == pytest.approx(10)


async def test_a_silent_server_does_not_hide_the_others() -> None:
    """One secondary that is down is not waited for."""
    looking = Looking([Unreachable("no answer")], [[VALUE]])
    assert await looking.look() is None


async def test_where_nobody_answers_nothing_is_waited_for() -> None:
    """A network that lets no queries out would cost every order the whole limit."""
    looking = Looking([Unreachable("no answer")], [Unreachable("no answer")])
    found = await looking.look()
    assert found == f"no answer about {NAME} from 192.0.2.1:53, 192.0.2.2:53"
    assert looking.waits == []


async def test_configured_servers_are_asked_instead() -> None:
    """A zone may name servers that we cannot reach."""
    looking = Looking([[VALUE]], [[]], servers=(ONE,))
    assert await looking.look() is None
    assert looking.view.asked == [ONE]


@pytest.mark.parametrize("failure", [Unreachable("down"), Broken("refused")])
async def test_a_zone_whose_servers_are_not_found_is_told(failure: Exception) -> None:
    """The look ends with the reason."""
    looking = Looking([[VALUE]])
    looking.view.failure = failure
    assert await looking.look() == f"servers of {ZONE} are not found: {failure}"


async def test_a_zone_without_addresses_is_told() -> None:
    """There is nobody to ask."""
    assert await Looking().look() == f"no server of {ZONE} has an address"


async def test_no_zone_has_more_servers_than_are_asked() -> None:
    """A zone with a hundred servers costs no more than one with eight."""
    looking = Looking()
    looking.view.servers = [f"192.0.2.{number}" for number in range(1, 101)]
    looking.view.shown = {NameServer(host): [[VALUE]] for host in looking.view.servers}
    assert await looking.look() is None
    assert len(looking.view.asked) == MAX_SERVERS


async def test_a_name_that_is_none_is_told() -> None:
    """Nothing is asked about it."""
    looking = Looking([[VALUE]])
    found = await looking.check.look(zone=ZONE, name="a..b", value=VALUE)
    assert found is not None
    assert "no DNS name" in found


async def test_our_own_bug_is_not_taken_for_silence() -> None:
    """Only what the view may raise is a silent server."""
    with pytest.raises(KeyError):
        await Looking([KeyError("bug")]).look()
