"""Dynamic updates and DNS questions, against BIND."""

from __future__ import annotations

import asyncio
import contextlib
import struct
from collections.abc import Iterator
from datetime import timedelta

import dns.message
import dns.name
import dns.rcode
import dns.tsig
import pytest

from broker.clock import SystemClock
from broker.issuance.errors import Broken, Unreachable
from broker.upstreams.lookup import Lookup, NameServer
from broker.upstreams.rfc2136 import PlacedRecord
from broker.upstreams.selfcheck import SelfCheck
from tests.contract.upstreams.standing import dynamic_zone, server_of
from tests.peers.bind import Bind
from tests.peers.process import free_port

pytestmark = pytest.mark.peers

NAME = "_acme-challenge.www.corp.example"
CLOSED = "_acme-challenge.www.closed.example"


@pytest.fixture(scope="module")
def bind(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Bind]:
    """A name server for three zones, two of which may be updated."""
    zones = ["corp.example", "acme.example", "closed.example"]
    tmp = tmp_path_factory.mktemp("bind")
    with Bind(tmp, zones=zones, updatable=zones[:2]) as server:
        yield server


def name(text: str) -> dns.name.Name:
    """Return an absolute name."""
    return dns.name.from_text(text)


async def test_a_value_is_added_and_removed(bind: Bind) -> None:
    """The zone is found, and nothing stays behind."""
    zone = dynamic_zone(bind)
    placed = await zone.publish(NAME, "value")
    assert placed == PlacedRecord("corp.example.", NAME + ".", "value")
    assert bind.txt(NAME) == ["value"]
    await zone.remove(placed)
    assert bind.txt(NAME) == []


async def test_two_values_stand_side_by_side(bind: Bind) -> None:
    """A name and its wildcard: each takes away its own alone."""
    zone = dynamic_zone(bind)
    one, two = await zone.publish(NAME, "one"), await zone.publish(NAME, "two")
    assert bind.txt(NAME) == ["one", "two"]
    await zone.remove(one)
    assert bind.txt(NAME) == ["two"]
    await zone.remove(one)
    assert bind.txt(NAME) == ["two"]
    await zone.remove(two)


async def test_a_value_published_twice_stands_once(bind: Bind) -> None:
    """A round that begins anew does no harm."""
    zone = dynamic_zone(bind)
    placed = await zone.publish(NAME, "value")
    assert await zone.publish(NAME, "value") == placed
    assert bind.txt(NAME) == ["value"]
    await zone.remove(placed)
    assert bind.txt(NAME) == []


async def test_an_alias_leads_into_the_dedicated_zone(bind: Bind) -> None:
    """The key need not reach the zone of the name; two aliases in a row are followed."""
    start = "_acme-challenge.alias.closed.example"
    bind.add_cname(start, "hop.closed.example")
    bind.add_cname("hop.closed.example", "alias.acme.example")
    zone = dynamic_zone(bind)
    placed = await zone.publish(start, "value")
    assert placed == PlacedRecord("acme.example.", "alias.acme.example.", "value")
    assert bind.txt("alias.acme.example") == ["value"]
    await zone.remove(placed)
    assert bind.txt("alias.acme.example") == []


async def test_an_alias_that_changed_leaves_nothing_behind(bind: Bind) -> None:
    """What was published is removed where it was published."""
    start = "_acme-challenge.moved.corp.example"
    bind.add_cname(start, "old.acme.example")
    zone = dynamic_zone(bind)
    placed = await zone.publish(start, "value")
    bind.delete(start)
    bind.add_cname(start, "new.acme.example")
    await zone.remove(placed)
    assert bind.txt("old.acme.example") == []


async def test_aliases_in_a_circle_are_told(bind: Bind) -> None:
    """They are not followed for ever."""
    bind.add_cname("_acme-challenge.circle.corp.example", "round.corp.example")
    bind.add_cname("round.corp.example", "_acme-challenge.circle.corp.example")
    with pytest.raises(Broken, match="go in a circle"):
        await dynamic_zone(bind).publish("_acme-challenge.circle.corp.example", "value")


async def test_aliases_without_end_are_told(bind: Bind) -> None:
    """A chain longer than the limit is a mistake."""
    for number in range(12):
        bind.add_cname(f"chain{number}.corp.example", f"chain{number + 1}.corp.example")
    with pytest.raises(Broken, match="past the limit of 8"):
        await dynamic_zone(bind).publish("chain0.corp.example", "value")


async def test_a_configured_zone_is_kept_to(bind: Bind) -> None:
    """A name outside needs an alias into it, which the sentence says."""
    zone = dynamic_zone(bind, zone="acme.example")
    with pytest.raises(Broken, match=r"lies outside the zone acme\.example\., make it an alias"):
        await zone.publish(NAME, "value")
    placed = await zone.publish("x.acme.example", "value")
    assert bind.txt("x.acme.example") == ["value"]
    await zone.remove(placed)


async def test_a_key_that_may_not_is_told(bind: Bind) -> None:
    """The server's refusal is a fault of the set-up, with its code."""
    with pytest.raises(Broken, match="is refused: REFUSED; see what the server allows"):
        await dynamic_zone(bind).publish(CLOSED, "value")


async def test_a_zone_that_the_server_does_not_have_is_told(bind: Bind) -> None:
    """By looking for it, and where it is configured by the server's code."""
    with pytest.raises(Broken, match="no zone is found"):
        await dynamic_zone(bind).publish("_acme-challenge.www.other.example", "value")
    with pytest.raises(Broken, match="NOTAUTH"):
        await dynamic_zone(bind, zone="other.example").publish("x.other.example", "value")


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        pytest.param({"tsig_name": "nobody"}, "does not know TSIG key 'nobody'", id="name"),
        pytest.param({"tsig_secret": b"x" * 32}, "another secret or algorithm", id="secret"),
        pytest.param(
            {"tsig_algorithm": "hmac-sha512"}, "another secret or algorithm", id="algorithm"
        ),
    ],
)
async def test_a_wrong_key_is_told(bind: Bind, changes: dict[str, object], words: str) -> None:
    """The sentence names the key; with the right one the same update passes."""
    with pytest.raises(Broken, match=words):
        await dynamic_zone(bind, **changes).publish(NAME, "value")
    assert bind.txt(NAME) == []
    await dynamic_zone(bind).remove(await dynamic_zone(bind).publish(NAME, "value"))


async def test_a_server_that_is_down_means_later(bind: Bind) -> None:
    """Nobody listens there."""
    nobody = NameServer("127.0.0.1", free_port())
    with pytest.raises(Unreachable):
        await dynamic_zone(bind, server=nobody, zone="corp.example").publish(NAME, "value")


async def test_a_host_name_of_the_server_is_resolved(bind: Bind) -> None:
    """The primary may be given by name; one that has no address means later."""
    zone = dynamic_zone(bind, server=NameServer("localhost", bind.port), zone="corp.example")
    await zone.remove(await zone.publish(NAME, "value"))
    with pytest.raises(Unreachable, match="has no address"):
        await dynamic_zone(bind, server=NameServer("ns.invalid"), zone="corp.example").publish(
            NAME, "value"
        )


# ------------------------------------------------------------------- a server that answers nonsense


class Answering(asyncio.DatagramProtocol):
    """A name server whose every answer has one code or is certain bytes; None is silence."""

    def __init__(self, answer: dns.rcode.Rcode | bytes | None) -> None:
        self._answer = answer
        self._writers: list[asyncio.StreamWriter] = []

    async def __aenter__(self) -> NameServer:
        loop = asyncio.get_running_loop()
        self._tcp = await asyncio.start_server(self._serve, "127.0.0.1", 0)
        port = self._tcp.sockets[0].getsockname()[1]
        self._udp, _ = await loop.create_datagram_endpoint(lambda: self, ("127.0.0.1", port))
        return NameServer("127.0.0.1", port)

    async def __aexit__(self, *error: object) -> None:
        self._tcp.close()
        self._udp.close()
        for writer in self._writers:
            writer.transport.abort()
            with contextlib.suppress(ConnectionError):
                await writer.wait_closed()

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Keep what to answer through."""
        assert isinstance(transport, asyncio.DatagramTransport)
        self._udp = transport

    def datagram_received(self, data: bytes, addr: tuple[str, int]) -> None:
        """Answer one question."""
        answer = self._wire(data)
        if answer is not None:
            self._udp.sendto(answer, addr)

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self._writers.append(writer)
        (length,) = struct.unpack("!H", await reader.readexactly(2))
        answer = self._wire(await reader.readexactly(length))
        if answer is not None:
            writer.write(struct.pack("!H", len(answer)) + answer)
            await writer.drain()

    def _wire(self, question: bytes) -> bytes | None:
        if not isinstance(self._answer, dns.rcode.Rcode):
            return self._answer
        query = dns.message.from_wire(question, keyring=TSIG_KEY)
        response = dns.message.make_response(query)  # signed, where the query was
        response.set_rcode(self._answer)
        return response.to_wire()


SECRET = b"0123456789abcdef0123456789abcdef"
TSIG_KEY = dns.tsig.Key("penstock-test.", SECRET, dns.tsig.HMAC_SHA256)
SHORT, LONG = timedelta(milliseconds=200), timedelta(seconds=20)


def patience(answer: object) -> timedelta:
    """Return how long *answer* is waited for: long where there is one, on a busy machine too."""
    return SHORT if answer is None else LONG


@pytest.mark.parametrize(
    ("answer", "outcome", "words"),
    [
        pytest.param(dns.rcode.NOERROR, None, "", id="done"),
        pytest.param(dns.rcode.SERVFAIL, Unreachable, "SERVFAIL", id="servfail"),
        pytest.param(dns.rcode.REFUSED, Broken, "REFUSED", id="refused"),
        pytest.param(dns.rcode.NOTIMP, Broken, "NOTIMP", id="not-implemented"),
        pytest.param(b"\x00\x01", Broken, "nonsense", id="nonsense"),
        pytest.param(None, Unreachable, r"no answer within 0\.2 s", id="silence"),
    ],
)
async def test_each_answer_to_an_update_has_its_outcome(
    bind: Bind,
    answer: dns.rcode.Rcode | bytes | None,
    outcome: type[Exception] | None,
    words: str,
) -> None:
    """Only what may pass by itself means later."""
    record = PlacedRecord("corp.example.", NAME + ".", "value")
    async with Answering(answer) as server:
        zone = dynamic_zone(bind, server=server, tsig_secret=SECRET, timeout=patience(answer))
        if outcome is None:
            await zone.remove(record)
        else:
            with pytest.raises(outcome, match=words):
                await zone.remove(record)


@pytest.mark.parametrize(
    ("answer", "outcome"),
    [
        pytest.param(dns.rcode.SERVFAIL, Unreachable, id="servfail"),
        pytest.param(dns.rcode.REFUSED, Broken, id="refused"),
        pytest.param(b"\x00\x01", Unreachable, id="nonsense"),
        pytest.param(None, Unreachable, id="silence"),
    ],
)
async def test_each_failure_of_a_resolver_has_its_outcome(
    answer: dns.rcode.Rcode | bytes | None, outcome: type[Exception]
) -> None:
    """A resolver that refuses us will refuse us again; anything else may pass."""
    async with Answering(answer) as server:
        lookup = Lookup([server], timeout=patience(answer))
        with pytest.raises(outcome):
            await lookup.alias_of(name("www.corp.example"))
        with pytest.raises(Unreachable):
            await lookup.read_txt(server, name("www.corp.example"))


async def test_a_name_that_does_not_exist_is_no_failure() -> None:
    """NXDOMAIN is an answer."""
    async with Answering(dns.rcode.NXDOMAIN) as server:
        lookup = Lookup([server], timeout=LONG)
        assert await lookup.alias_of(name("www.corp.example")) is None
        assert await lookup.read_txt(server, name("www.corp.example")) == frozenset()


# ------------------------------------------------------------------------------------------ lookups


async def test_a_zone_is_found_upwards(bind: Bind) -> None:
    """Names that do not exist lie in a zone all the same."""
    lookup = Lookup([server_of(bind)])
    for text in ("corp.example", "www.corp.example", "a.b.c.corp.example"):
        assert await lookup.zone_of(name(text)) == name("corp.example")


async def test_an_alias_is_told_from_its_absence(bind: Bind) -> None:
    """Only a record at the very name counts."""
    bind.add_cname("one.corp.example", "two.corp.example")
    bind.add_cname("two.corp.example", "three.corp.example")
    lookup = Lookup([server_of(bind)])
    assert await lookup.alias_of(name("one.corp.example")) == name("two.corp.example")
    assert await lookup.alias_of(name("three.corp.example")) is None
    assert await lookup.alias_of(name("corp.example")) is None


async def test_the_servers_of_a_zone_have_addresses(bind: Bind) -> None:
    """They are what the self-check asks."""
    assert await Lookup([server_of(bind)]).servers_of(name("corp.example")) == ["127.0.0.1"]


async def test_txt_values_are_read_from_one_server(bind: Bind) -> None:
    """Long values come joined; a name without any has none."""
    bind.add("long.corp.example", "TXT", '"' + "a" * 200 + '" "' + "b" * 200 + '"')
    lookup = Lookup([server_of(bind)])
    shown = await lookup.read_txt(server_of(bind), name("long.corp.example"))
    assert shown == {"a" * 200 + "b" * 200}
    assert await lookup.read_txt(server_of(bind), name("none.corp.example")) == frozenset()


async def test_the_self_check_sees_what_was_published(bind: Bind) -> None:
    """And misses what was not, when its time is over."""
    zone = dynamic_zone(bind)
    placed = await zone.publish(NAME, "value")
    check = SelfCheck(
        SystemClock(),
        view=Lookup([server_of(bind)]),
        servers=(server_of(bind),),
        total=timedelta(milliseconds=300),
    )
    assert await check.look(zone=placed.zone, name=placed.name, value="value") is None
    missing = await check.look(zone=placed.zone, name=placed.name, value="other")
    assert missing is not None
    assert "lacks its value" in missing
    await zone.remove(placed)
