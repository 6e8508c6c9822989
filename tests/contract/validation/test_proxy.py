"""Validation through an HTTP proxy: what it is asked, and that the rules hold before it is."""

import asyncio
import ipaddress
import ssl
from collections.abc import AsyncIterator

import pytest

from broker.protocol.challenges import ChallengeType, dns01_value
from broker.validation.targets import Proxy
from tests.contract.validation.alpn_servers import Shown, alpn_server
from tests.contract.validation.conftest import (
    CANARY,
    KEY_AUTHORIZATION,
    NAME,
    PATH,
    World,
    answer,
    judge,
    redirect,
    refusal,
)
from tests.contract.validation.proxies import ProxyServer, proxy_server
from tests.contract.validation.servers import closed_port, http_server

TLS_ALPN_01 = ChallengeType.TLS_ALPN_01


@pytest.fixture
async def proxy(world: World) -> AsyncIterator[ProxyServer]:
    """Run a proxy that the community names."""
    async with proxy_server() as server:
        world.change(proxy=Proxy(address=("127.0.0.1", server.port)))
        yield server


async def test_http_goes_through_a_tunnel_to_the_judged_address(
    world: World, proxy: ProxyServer
) -> None:
    """The proxy is handed an address and no name, so it has nothing to look up."""
    seen = await world.observe()
    assert judge(seen).valid
    target = f"127.0.0.1:{world.port}"
    assert proxy.asked == [f"CONNECT {target} HTTP/1.1 [{target}]"]
    assert world.web.requests == [(PATH, f"{NAME}:{world.port}")]
    assert seen.addresses_tried == ("127.0.0.1",)


async def test_tls_goes_through_a_tunnel_to_the_judged_address(
    world: World, proxy: ProxyServer
) -> None:
    """The handshake is with the server at its end, SNI and all."""
    async with alpn_server() as server:
        world.change(tls_alpn_port=server.port)
        seen = await world.observe(TLS_ALPN_01)
        assert judge(seen).valid, judge(seen).problem
    target = f"127.0.0.1:{server.port}"
    assert proxy.asked == [f"CONNECT {target} HTTP/1.1 [{target}]"]
    assert server.server_names == [NAME]


async def test_redirect_to_https_goes_through_a_tunnel(world: World, proxy: ProxyServer) -> None:
    """Each hop has its own, TLS inside."""
    context: ssl.SSLContext = Shown(protocols=()).context()
    async with http_server(ssl=context) as (secure, port):
        secure.answers[PATH] = answer(KEY_AUTHORIZATION)
        world.change(https_port=port)
        world.web.answers[PATH] = redirect(f"https://{NAME}{PATH}")
        assert judge(await world.observe()).valid
    assert [line.split(" ")[1] for line in proxy.asked] == [
        f"127.0.0.1:{world.port}",
        f"127.0.0.1:{port}",
    ]


async def test_dns_asks_its_resolvers_and_no_proxy(world: World, proxy: ProxyServer) -> None:
    """The community's own resolvers answer dns-01, proxy or not."""
    value = dns01_value(KEY_AUTHORIZATION.decode())
    world.dns.zone[(f"_acme-challenge.{NAME}", "TXT")] = [[f'"{value}"']]
    assert judge(await world.observe(ChallengeType.DNS_01)).valid
    assert proxy.asked == []


@pytest.mark.parametrize("is_forwarding", [False, True], ids=["tunnel", "forward"])
@pytest.mark.parametrize("kind", [ChallengeType.HTTP_01, TLS_ALPN_01])
async def test_proxy_is_not_asked_for_what_may_not_be_contacted(
    world: World, proxy: ProxyServer, kind: ChallengeType, is_forwarding: bool
) -> None:
    """A proxy stands inside the network too, and would reach what we must not."""
    world.change(proxy=Proxy(address=("127.0.0.1", proxy.port), is_forwarding=is_forwarding))
    world.dns.zone[(NAME, "A")] = [[CANARY]]
    assert refusal(await world.observe(kind)) == "refused-address"
    assert refusal(await world.observe(kind, "169.254.169.254", "ip")) == "refused-address"
    assert proxy.asked == []


async def test_redirect_to_a_forbidden_address_is_not_asked_of_the_proxy(
    world: World, proxy: ProxyServer
) -> None:
    """Each hop is judged like the first."""
    world.web.answers[PATH] = redirect(f"http://{CANARY}:{world.port}{PATH}")
    assert refusal(await world.observe()) == "refused-address"
    assert len(proxy.asked) == 1


async def test_plain_http_can_be_forwarded(world: World, proxy: ProxyServer) -> None:
    """For proxies that tunnel to port 443 alone; the name was judged before all the same."""
    world.change(
        proxy=Proxy(address=("127.0.0.1", proxy.port), is_forwarding=True, authorization="Basic eA")
    )
    authority = f"{NAME}:{world.port}"
    proxy.leads_to[authority] = ("127.0.0.1", world.port)
    assert judge(await world.observe()).valid
    assert proxy.asked == [f"GET http://{authority}{PATH} HTTP/1.1 [{authority}]"]
    assert proxy.authorizations == ["Basic eA"]
    async with alpn_server() as server:
        world.change(tls_alpn_port=server.port)
        assert judge(await world.observe(TLS_ALPN_01)).valid
    assert proxy.asked[1].startswith("CONNECT ")


async def test_proxy_is_told_who_asks(world: World, proxy: ProxyServer) -> None:
    """Its credentials, and nobody else is told them."""
    world.change(proxy=Proxy(address=("127.0.0.1", proxy.port), authorization="Basic c2VjcmV0"))
    assert judge(await world.observe()).valid
    assert proxy.authorizations == ["Basic c2VjcmV0"]
    assert "c2VjcmV0" not in repr(world.settings)


@pytest.mark.parametrize(
    ("refused", "sentence"),
    [
        pytest.param(
            b"HTTP/1.1 403 secret phrase\r\nContent-Length: 6\r\n\r\nsecret",
            "the proxy answered CONNECT with status 403",
            id="forbidden",
        ),
        pytest.param(b"HTTP/1.1 407 x\r\n\r\n", "status 407", id="wants-credentials"),
        pytest.param(b"secret\r\n\r\n", "the proxy's answer is not HTTP", id="no-http"),
        pytest.param(b"", "the proxy's answer is not HTTP", id="nothing"),
        pytest.param(b"HTTP/1.1 200 " + b"a" * 20_000, "is not HTTP", id="endless-head"),
    ],
)
async def test_refusal_of_the_proxy_is_a_failed_connection(
    world: World, proxy: ProxyServer, refused: bytes, sentence: str
) -> None:
    """Told by its status alone; it may pass, so it is looked at again."""
    proxy.refusal = refused
    seen = await world.observe()
    assert refusal(seen) == "connection"
    problem = judge(seen).problem
    assert problem is not None
    assert sentence in problem.detail
    assert "secret" not in problem.detail


async def test_hanging_proxy_costs_no_more_than_a_hanging_server(
    world: World, proxy: ProxyServer
) -> None:
    """The time of one connection attempt covers the tunnel."""

    async def hang(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.read(1000)
        world.time.advance(world.settings.timeout / 4)
        await reader.read()

    proxy.script = hang
    assert refusal(await world.observe()) == "connection"


async def test_absent_proxy_is_a_failed_connection(world: World) -> None:
    """And nobody is contacted without it."""
    world.change(proxy=Proxy(address=("127.0.0.1", closed_port())))
    assert refusal(await world.observe()) == "connection"
    assert world.web.connections == 0


async def test_ipv6_target_is_bracketed(world: World, proxy: ProxyServer) -> None:
    """RFC 9112 §3.2.3 with RFC 3986 §3.2.2."""
    world.change(networks_allow=(ipaddress.ip_network("::1/128"),))
    async with http_server("::1") as (web, port):
        web.answers[PATH] = answer(KEY_AUTHORIZATION)
        world.change(http_port=port)
        assert judge(await world.observe(name="::1", type_="ip")).valid
    assert proxy.asked == [f"CONNECT [::1]:{port} HTTP/1.1 [[::1]:{port}]"]
    assert web.requests == [(PATH, f"[::1]:{port}")]
