"""Lookups against DNS servers that answer well, badly, crookedly or not at all."""

import ipaddress
import struct
from datetime import timedelta

import dns.rcode
import pytest

from broker.protocol.challenges import ChallengeType, dns01_value
from broker.validation.resolver import (
    MAX_CNAMES,
    MAX_TXT_RECORDS,
    DnsResolver,
    NameNotFound,
    ResolutionFailed,
)
from broker.validation.targets import Endpoint
from tests.contract.validation.conftest import (
    KEY_AUTHORIZATION,
    LOOPBACK,
    NAME,
    World,
    judge,
    refusal,
)
from tests.contract.validation.servers import dns_server

CHALLENGE = f"_acme-challenge.{NAME}"
RIGHT = dns01_value(KEY_AUTHORIZATION.decode())
DNS = ChallengeType.DNS_01


def resolver_at(*ports: int, limit: timedelta = timedelta(seconds=30)) -> DnsResolver:
    """Return a resolver that asks these ports of 127.0.0.1 in order."""
    return DnsResolver([Endpoint(LOOPBACK, port) for port in ports], lookup_timeout=limit)


# ------------------------------------------------------------------------------------ dns-01


@pytest.mark.parametrize(
    "records",
    [
        pytest.param([f'"{RIGHT}"'], id="one"),
        pytest.param(['"stale"', f'"{RIGHT}"', '"other"'], id="among-others"),
        pytest.param([f'"{RIGHT[:9]}" "{RIGHT[9:]}"'], id="in-two-strings"),
        pytest.param(
            [f'"{n:043}"' for n in range(MAX_TXT_RECORDS - 1)] + [f'"{RIGHT}"'],
            id="as-many-as-read",
        ),
    ],
)
async def test_right_record_is_found(world: World, records: list[str]) -> None:
    """The strings of a record are joined, and a long answer is fetched over TCP."""
    world.dns.zone[(CHALLENGE, "TXT")] = [records]
    seen = await world.observe(DNS)
    assert judge(seen).valid
    assert len(seen.answers) == len(records)


async def test_wrong_record_is_seen_and_not_repeated(world: World) -> None:
    """Other records are no failure to look; the problem does not quote them."""
    world.dns.zone[(CHALLENGE, "TXT")] = [['"secret"']]
    seen = await world.observe(DNS)
    assert seen.answers == (b"secret",)
    problem = judge(seen).problem
    assert problem is not None
    assert "secret" not in problem.detail


@pytest.mark.parametrize("is_followed", [True, False], ids=["by-the-server", "by-us"])
async def test_aliases_are_followed(world: World, is_followed: bool) -> None:
    """Validation may be delegated, whether the server follows or leaves it to us."""
    world.dns.follows_aliases = is_followed
    world.dns.zone[(CHALLENGE, "CNAME")] = [["a.dns.example."]]
    world.dns.zone[("a.dns.example", "CNAME")] = [["b.dns.example."]]
    world.dns.zone[("b.dns.example", "TXT")] = [[f'"{RIGHT}"']]
    assert judge(await world.observe(DNS)).valid


@pytest.mark.parametrize("is_followed", [True, False], ids=["by-the-server", "by-us"])
async def test_loop_of_aliases_ends(world: World, is_followed: bool) -> None:
    """Two names that point at each other lead to no answer, soon."""
    world.dns.follows_aliases = is_followed
    world.dns.zone[(CHALLENGE, "CNAME")] = [["a.dns.example."]]
    world.dns.zone[("a.dns.example", "CNAME")] = [[f"{CHALLENGE}."]]
    assert not judge(await world.observe(DNS)).valid
    assert sum(world.dns.asked.values()) <= 2


async def test_endless_aliases_are_given_up(world: World) -> None:
    """A chain that is longer than anyone needs is not followed to its end."""
    world.dns.follows_aliases = False
    world.dns.zone[(CHALLENGE, "CNAME")] = [["n0.dns.example."]]
    for step in range(MAX_CNAMES + 5):
        world.dns.zone[(f"n{step}.dns.example", "CNAME")] = [[f"n{step + 1}.dns.example."]]
    assert refusal(await world.observe(DNS)) == "dns"
    assert sum(world.dns.asked.values()) == MAX_CNAMES


@pytest.mark.parametrize("count", [MAX_TXT_RECORDS + 1, 1000, 2000])
async def test_too_many_records_are_refused(world: World, count: int) -> None:
    """The right one among a thousand is not looked for; two thousand do not even fit (64 KiB)."""
    records = [f'"{n:043}"' for n in range(count - 1)]
    world.dns.zone[(CHALLENGE, "TXT")] = [[*records, f'"{RIGHT}"']]
    assert refusal(await world.observe(DNS)) == "dns"


async def test_name_without_records_is_no_failure_to_look(world: World) -> None:
    """A name that exists without TXT records shows nothing, which is judged."""
    world.dns.zone[(CHALLENGE, "A")] = [["192.0.2.1"]]
    seen = await world.observe(DNS)
    assert (seen.answers, seen.failure) == ((), None)
    assert not judge(seen).valid


@pytest.mark.parametrize(
    ("code", "text"),
    [
        pytest.param(dns.rcode.NXDOMAIN, "does not exist (NXDOMAIN)", id="nxdomain"),
        pytest.param(dns.rcode.SERVFAIL, "SERVFAIL", id="servfail"),
        pytest.param(dns.rcode.REFUSED, "REFUSED", id="refused"),
        pytest.param(dns.rcode.FORMERR, "FORMERR", id="formerr"),
    ],
)
async def test_error_code_is_a_dns_failure(world: World, code: dns.rcode.Rcode, text: str) -> None:
    """The failure names the code."""
    world.dns.rcodes[(CHALLENGE, "TXT")] = code
    seen = await world.observe(DNS)
    assert refusal(seen) == "dns"
    assert seen.failure is not None
    assert text in seen.failure.text


# ---------------------------------------------------------------------------------- addresses


async def test_both_families_are_looked_up(world: World) -> None:
    """IPv6 comes first."""
    world.dns.zone[(NAME, "AAAA")] = [["2001:db8::1", "2001:db8::2"]]
    found = await resolver_at(world.dns.port).addresses(NAME)
    assert [address.version for address in found] == [6, 6, 4]
    assert {str(address) for address in found} == {"2001:db8::1", "2001:db8::2", "127.0.0.1"}


@pytest.mark.parametrize("failing", ["A", "AAAA"])
async def test_one_family_that_fails_does_not_matter(world: World, failing: str) -> None:
    """SERVFAIL for one type, an answer for the other: the answer counts."""
    world.dns.zone[(NAME, "AAAA")] = [["2001:db8::1"]]
    world.dns.rcodes[(NAME, failing)] = dns.rcode.SERVFAIL
    found = await resolver_at(world.dns.port).addresses(NAME)
    assert [address.version for address in found] == [6 if failing == "A" else 4]


async def test_one_family_that_fails_matters_when_the_other_is_empty(world: World) -> None:
    """A failure is not told as absence."""
    world.dns.zone[(NAME, "A")] = [[]]
    world.dns.rcodes[(NAME, "AAAA")] = dns.rcode.SERVFAIL
    with pytest.raises(ResolutionFailed, match="SERVFAIL"):
        await resolver_at(world.dns.port).addresses(NAME)


async def test_name_without_addresses_is_not_found(world: World) -> None:
    """It exists, and leads nowhere."""
    world.dns.zone[(NAME, "A")] = [[]]
    with pytest.raises(NameNotFound, match="no A and no AAAA record"):
        await resolver_at(world.dns.port).addresses(NAME)


async def test_many_addresses_are_cut(world: World) -> None:
    """More than anyone could try are not kept."""
    world.dns.zone[(NAME, "A")] = [[f"10.0.{n // 256}.{n % 256}" for n in range(3000)]]
    assert len(await resolver_at(world.dns.port).addresses(NAME)) == 16


async def test_names_below_a_static_host_go_to_dns(world: World) -> None:
    """Static hosts match whole names."""
    port = world.dns.port
    hosts = {"corp.example": [ipaddress.ip_address("10.0.0.1")]}
    resolver = DnsResolver([Endpoint(LOOPBACK, port)], hosts)
    assert await resolver.addresses(NAME) == [LOOPBACK]
    assert world.dns.asked[(NAME, "A")] == 1


# ---------------------------------------------------------------------------------- resolvers


@pytest.mark.parametrize("fault", ["servfail", "silent"])
async def test_next_resolver_is_asked_when_one_fails(
    world: World, fault: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The list is gone through in order."""
    monkeypatch.setattr("broker.validation.resolver.QUERY_TIMEOUT", timedelta(seconds=1))
    async with dns_server() as first:
        first.zone[(NAME, "A")] = [["10.0.0.9"]]
        if fault == "servfail":
            first.rcodes[(NAME, "A")] = first.rcodes[(NAME, "AAAA")] = dns.rcode.SERVFAIL
        else:
            first.silent.add(NAME)
        assert await resolver_at(first.port, world.dns.port).addresses(NAME) == [LOOPBACK]


async def test_first_resolver_that_answers_is_believed(world: World) -> None:
    """The negative twin: the second is not asked at all."""
    async with dns_server() as first:
        first.zone[(NAME, "A")] = [["10.0.0.9"]]
        found = await resolver_at(first.port, world.dns.port).addresses(NAME)
        assert [str(address) for address in found] == ["10.0.0.9"]
        assert not world.dns.asked


async def test_silent_resolver_costs_the_time_limit(world: World) -> None:
    """Nobody answers: told so, in time."""
    world.dns.silent.add(NAME)
    limit = timedelta(milliseconds=300)
    with pytest.raises(ResolutionFailed, match="no resolver answered"):
        await resolver_at(world.dns.port, limit=limit).addresses(NAME)


async def test_machine_has_resolvers_when_none_are_named() -> None:
    """Without a list, the machine's own are read; the machine's hosts file is not."""
    DnsResolver()


# ------------------------------------------------------------------------------ crafted answers

QUESTION = b"\x0f_acme-challenge\x03www\x04corp\x07example\x00" + struct.pack("!HH", 16, 1)
GOOD_HEADER = struct.pack("!HHHHH", 0x8180, 1, 1, 0, 0)
POINTER = b"\xc0\x0c"


def record(
    data: bytes, *, name: bytes = POINTER, kind: int = 16, length: int | None = None
) -> bytes:
    """Return a resource record, right in itself unless *length* lies."""
    return name + struct.pack("!HHIH", kind, 1, 0, len(data) if length is None else length) + data


def header(flags: int = 0x8180, counts: tuple[int, int, int, int] = (1, 1, 0, 0)) -> bytes:
    """Return the header behind the id."""
    return struct.pack("!HHHHH", flags, *counts)


TXT = b"\x05right"


async def test_the_frame_of_crafted_answers_is_right(world: World) -> None:
    """The negative twin of all that follow: put together rightly, the octets are an answer."""
    world.dns.raw[CHALLENGE] = GOOD_HEADER + QUESTION + record(TXT)
    assert (await world.observe(DNS)).answers == (b"right",)


@pytest.mark.parametrize(
    "octets",
    [
        pytest.param(b"", id="id-alone"),
        pytest.param(b"\x81", id="half-a-header"),
        pytest.param(header(), id="header-alone"),
        pytest.param(header(0x0180) + QUESTION + record(TXT), id="a-query"),
        pytest.param(header(0xA980) + QUESTION + record(TXT), id="an-update"),
        pytest.param(header(counts=(0, 0, 0, 0)), id="no-question"),
        pytest.param(header(counts=(2, 1, 0, 0)) + QUESTION * 2 + record(TXT), id="two-questions"),
        pytest.param(header(counts=(1, 65535, 0, 0)) + QUESTION + record(TXT), id="count-too-high"),
        pytest.param(header(counts=(1, 0, 65535, 65535)) + QUESTION, id="other-counts-too-high"),
        pytest.param(
            GOOD_HEADER + b"\x05wrong\x07example\x00\x00\x10\x00\x01" + record(TXT), id="other-name"
        ),
        pytest.param(
            GOOD_HEADER + QUESTION[:-4] + b"\x00\x01\x00\x01" + record(TXT), id="other-type"
        ),
        pytest.param(GOOD_HEADER + QUESTION + record(TXT, length=500), id="length-beyond-the-end"),
        pytest.param(GOOD_HEADER + QUESTION + record(TXT, length=2), id="length-too-short"),
        pytest.param(GOOD_HEADER + QUESTION + record(b""), id="empty-data"),
        pytest.param(GOOD_HEADER + QUESTION + record(b"\xffright"), id="string-beyond-the-data"),
        pytest.param(GOOD_HEADER + QUESTION + record(TXT, name=b"\xc0\xff"), id="pointer-ahead"),
        pytest.param(
            GOOD_HEADER + QUESTION + record(TXT, name=bytes([0xC0, 12 + len(QUESTION)])),
            id="pointer-to-itself",
        ),
        pytest.param(GOOD_HEADER + QUESTION + record(TXT, name=b"\x80x"), id="bad-label-type"),
        pytest.param(
            GOOD_HEADER + QUESTION + record(TXT, name=(b"\x3f" + b"a" * 63) * 5 + b"\0"),
            id="long-name",
        ),
        pytest.param(GOOD_HEADER + QUESTION + record(b"\x01\x02\x03", kind=1), id="short-address"),
        pytest.param(GOOD_HEADER + QUESTION + record(POINTER, kind=5), id="alias-to-itself"),
        pytest.param(GOOD_HEADER + QUESTION + record(b"\xc0\xff", kind=5), id="alias-to-nowhere"),
        pytest.param(GOOD_HEADER + QUESTION + record(TXT) + b"more", id="octets-behind-the-end"),
        pytest.param(header(0x8183) + QUESTION + record(TXT), id="nxdomain-with-an-answer"),
        pytest.param(header(0x8380) + QUESTION + record(TXT), id="truncated-for-ever"),
        pytest.param(
            header(counts=(1, 0, 0, 1)) + QUESTION + record(b"\xff" * 40, name=b"\0", kind=41),
            id="broken-edns",
        ),
        pytest.param(
            header(counts=(1, 0, 0, 1)) + QUESTION + record(b"\x00" * 40, kind=250),
            id="broken-tsig",
        ),
        pytest.param(
            header(counts=(1, 16, 0, 0))
            + QUESTION
            + b"".join(
                record(
                    b"\x01" + bytes([97 + n + 1]) + b"\0",
                    name=b"\x01" + bytes([97 + n]) + b"\0",
                    kind=5,
                )
                for n in range(16)
            ),
            id="aliases-of-others",
        ),
        pytest.param(b"\xff" * 400, id="all-ones"),
        pytest.param(b"\x00" * 400, id="all-zeros"),
    ],
)
async def test_crafted_answer_proves_nothing(world: World, octets: bytes) -> None:
    """Whatever the octets, the observation says that nothing was seen, and nothing crashes."""
    world.change(timeout=timedelta(milliseconds=100))
    world.dns.raw[CHALLENGE] = octets
    seen = await world.observe(DNS)
    assert seen.answers == ()
    assert not judge(seen).valid
