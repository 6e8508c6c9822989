"""CAA against BIND: climbing, aliases, wildcards, and octets as a real server sends them."""

import ipaddress
from collections.abc import Iterator
from datetime import timedelta

import pytest

from broker.protocol.caa import CaaIssuer, CaaOutcome, CaaVerdict, judge_caa
from broker.protocol.identifiers import Identifier, IdentifierType
from broker.validation.caa import CaaLookups
from broker.validation.targets import Endpoint, ValidationSettings
from tests.peers import process
from tests.peers.bind import Bind

pytestmark = pytest.mark.peers

ISSUER = CaaIssuer(identities=frozenset({"ca.example.net"}), account_uri="https://ca.example.net/1")
LOOPBACK = ipaddress.ip_address("127.0.0.1")


@pytest.fixture(scope="module")
def named(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Bind]:
    """A name server with two zones, one of which forbids what the other allows."""
    zones = ["corp.test", "hosting.test"]
    with Bind(tmp_path_factory.mktemp("named"), zones=zones) as server:
        server.add("corp.test", "CAA", '0 issue "ca.example.net"')
        server.add("closed.corp.test", "CAA", '0 issue ";"')
        server.add("wild.corp.test", "CAA", '0 issuewild "other.example.org"')
        server.add("wild.corp.test", "CAA", '0 issue "ca.example.net"')
        server.add("future.corp.test", "CAA", '128 tbs "Unknown"')
        server.add("bound.corp.test", "CAA", '0 issue "ca.example.net; accounturi=https://x/2"')
        server.add("odd.corp.test", "CAA", '0 issue "\\200\\000%"')
        server.add_a("host.corp.test")
        server.add_cname("alias.corp.test", "shop.hosting.test")
        server.add("shop.hosting.test", "CAA", '0 issue "other.example.org"')
        server.add_cname("free.corp.test", "free.hosting.test")
        server.add_a("free.hosting.test")
        yield server


async def judge(named: Bind, name: str) -> CaaVerdict:
    """Look up and judge one name."""
    return await judge_at(named.port, name)


async def judge_at(port: int, name: str) -> CaaVerdict:
    """Look up at the server on *port* and judge."""
    settings = ValidationSettings(
        resolvers=(Endpoint(LOOPBACK, port),), timeout=timedelta(seconds=5)
    )
    lookups = CaaLookups({"default": settings})
    (seen,) = await lookups.look("default", [Identifier(IdentifierType.DNS, name)])
    return judge_caa(seen, ISSUER)


@pytest.mark.parametrize(
    ("name", "outcome", "found_at"),
    [
        pytest.param("corp.test", CaaOutcome.PERMITS, "corp.test", id="at-the-name"),
        pytest.param("host.corp.test", CaaOutcome.PERMITS, "corp.test", id="above"),
        pytest.param("a.b.c.corp.test", CaaOutcome.PERMITS, "corp.test", id="above-nothing"),
        pytest.param("closed.corp.test", CaaOutcome.FORBIDS, "closed.corp.test", id="closed"),
        pytest.param("a.closed.corp.test", CaaOutcome.FORBIDS, "closed.corp.test", id="nearest"),
        pytest.param("wild.corp.test", CaaOutcome.PERMITS, "wild.corp.test", id="not-wildcard"),
        pytest.param("*.wild.corp.test", CaaOutcome.FORBIDS, "wild.corp.test", id="wildcard"),
        pytest.param("future.corp.test", CaaOutcome.FORBIDS, "future.corp.test", id="critical"),
        pytest.param("bound.corp.test", CaaOutcome.FORBIDS, "bound.corp.test", id="other-account"),
        pytest.param("odd.corp.test", CaaOutcome.FORBIDS, "odd.corp.test", id="odd-octets"),
        pytest.param("alias.corp.test", CaaOutcome.FORBIDS, "alias.corp.test", id="alias"),
        pytest.param("free.corp.test", CaaOutcome.PERMITS, "corp.test", id="alias-to-nothing"),
        pytest.param("www.hosting.test", CaaOutcome.ABSENT, None, id="none"),
    ],
)
async def test_records_are_found_as_the_standard_wants(
    named: Bind, name: str, outcome: CaaOutcome, found_at: str | None
) -> None:
    """RFC 8659 §3: aliases are chased at each name, and the tree of the asked name is climbed."""
    verdict = await judge(named, name)
    assert (verdict.outcome, verdict.found_at) == (outcome, found_at)


async def test_server_that_is_gone_is_a_failure() -> None:
    """No answer is not an empty one."""
    verdict = await judge_at(process.free_port(), "corp.test")
    assert verdict.outcome is CaaOutcome.FAILED
