"""Tokens of a cluster over real HTTPS: its issuer's keys, and its API server that reviews them."""

import ssl
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager
from pathlib import Path

import pytest
from aiohttp import web

from broker.channel.cluster_tokens import ClusterHttp, KeyUrl, ReviewedTokens
from broker.issuance.errors import Broken, Unreachable
from broker.protocol.service_account_token import (
    MAX_KEY_SET_BYTES,
    TokenRejected,
    parse_key_set,
    parse_token,
)
from tests.fakes.cluster_issuer import ClusterIssuer
from tests.peers import authority, process
from tests.peers.token_reviews import TokenReviews
from tests.unit.protocol.builders import private_key

AGENT = "penstock/test"


@pytest.fixture(scope="module")
def reviews(tmp_path_factory: pytest.TempPathFactory) -> Iterator[TokenReviews]:
    """An API server that mints and reviews tokens."""
    with TokenReviews(tmp_path_factory.mktemp("reviews")) as running:
        yield running


@pytest.fixture
async def http(reviews: TokenReviews) -> AsyncIterator[ClusterHttp]:
    """A connection that trusts that server's root alone."""
    made = ClusterHttp(reviews.ca_bundle, AGENT)
    yield made
    await made.close()


def reviewed(
    http: ClusterHttp, reviews: TokenReviews, *, token: bytes | None = None
) -> ReviewedTokens:
    """Return tokens for our audience, reviewed by showing the reviewer's token or another."""
    shown = reviews.reviewer_token.encode() if token is None else token
    return ReviewedTokens(http, reviews.url, "penstock", lambda: shown + b"\n")


async def test_reviewed_token_is_of_its_account(http: ClusterHttp, reviews: TokenReviews) -> None:
    """The API server is asked about the token that came, for our audience."""
    token = parse_token(reviews.mint("postfix", namespace="mail", audience="penstock"))
    found = await reviewed(http, reviews).verify(token)
    assert str(found) == "mail/postfix"
    assert reviews.reviewed[-1] == "system:serviceaccount:mail:postfix"


async def test_token_for_another_audience_is_refused(
    http: ClusterHttp, reviews: TokenReviews
) -> None:
    """A pod's token for Vault is not taken, though its API server knows it."""
    token = parse_token(reviews.mint("postfix", namespace="mail", audience="vault"))
    with pytest.raises(TokenRejected):
        await reviewed(http, reviews).verify(token)


async def test_token_of_a_pod_that_is_gone_is_refused(
    http: ClusterHttp, reviews: TokenReviews
) -> None:
    """What keys alone cannot tell."""
    text = reviews.mint("postfix", namespace="mail", audience="penstock")
    tokens, token = reviewed(http, reviews), parse_token(text)
    assert str(await tokens.verify(token)) == "mail/postfix"
    reviews.revoke(text)
    with pytest.raises(TokenRejected):
        await tokens.verify(token)


async def test_who_may_not_review_is_told_to_try_later(
    http: ClusterHttp, reviews: TokenReviews
) -> None:
    """Our own token is not good: that says nothing of the node's."""
    token = parse_token(reviews.mint("postfix", namespace="mail", audience="penstock"))
    with pytest.raises(Unreachable, match="answered 401"):
        await reviewed(http, reviews, token=b"not-a-token").verify(token)

    def missing() -> bytes:
        raise Broken("secret env:X is not set in the environment")

    with pytest.raises(Unreachable, match="our own token"):
        await ReviewedTokens(http, reviews.url, "penstock", missing).verify(token)


async def test_server_of_another_root_is_not_spoken_to(reviews: TokenReviews) -> None:
    """The token is shown to nobody whose certificate does not hold."""
    stranger = ClusterHttp(None, AGENT)
    token = parse_token(reviews.mint("postfix", namespace="mail", audience="penstock"))
    before = list(reviews.reviewed)
    with pytest.raises(Unreachable):
        await reviewed(stranger, reviews).verify(token)
    await stranger.close()
    assert reviews.reviewed == before


ISSUER = ClusterIssuer(private_key("ES256", "contract"))


@asynccontextmanager
async def key_server(tmp: Path) -> AsyncIterator[tuple[str, ClusterHttp]]:
    """Run an issuer that publishes its keys, and some that go wrong."""
    root = authority.make_root("issuer")
    files = authority.write_server_files(tmp, authority.make_server(root, ["127.0.0.1"]), root)
    tls = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
    tls.load_cert_chain(files[0], files[1])

    async def keys(request: web.Request) -> web.Response:
        # As an API server does it: nothing else is taken for its key set.
        if "application/jwk-set+json" not in request.headers["Accept"]:
            raise web.HTTPNotAcceptable
        return web.Response(body=ISSUER.key_set(), content_type="application/jwk-set+json")

    async def guarded(request: web.Request) -> web.Response:
        if request.headers.get("Authorization") != "Bearer ours":
            raise web.HTTPUnauthorized
        return await keys(request)

    async def elsewhere(request: web.Request) -> web.Response:
        raise web.HTTPFound("/jwks")

    async def endless(request: web.Request) -> web.StreamResponse:
        answer = web.StreamResponse()
        await answer.prepare(request)
        for _ in range(2 * MAX_KEY_SET_BYTES // 65536):
            await answer.write(b" " * 65536)
        return answer

    app = web.Application()
    app.add_routes(
        [
            web.get("/guarded", guarded),
            web.get("/jwks", keys),
            web.get("/elsewhere", elsewhere),
            web.get("/endless", endless),
        ]
    )
    runner = web.AppRunner(app, access_log=None, shutdown_timeout=0.1)
    await runner.setup()
    port = process.free_port()
    await web.TCPSite(runner, "127.0.0.1", port, ssl_context=tls).start()
    http = ClusterHttp(files[2], AGENT)
    try:
        yield f"https://127.0.0.1:{port}", http
    finally:
        await http.close()
        await runner.cleanup()


async def test_keys_of_an_issuer_are_read(tmp_path: Path) -> None:
    """As an API server publishes them."""
    async with key_server(tmp_path) as (url, http):
        assert set(parse_key_set(await KeyUrl(http, f"{url}/jwks").read())) == {ISSUER.key_id}


async def test_keys_that_only_a_service_account_reads(tmp_path: Path) -> None:
    """Our own token is shown, and read anew each time; without it the answer is no."""

    def missing() -> bytes:
        raise Broken("secret env:X is not set in the environment")

    async with key_server(tmp_path) as (url, http):
        where = f"{url}/guarded"
        assert parse_key_set(await KeyUrl(http, where, lambda: b"ours\n").read())
        for source, told in (
            (KeyUrl(http, where), "answered 401"),
            (KeyUrl(http, where, lambda: b"stale"), "answered 401"),
            (KeyUrl(http, where, missing), "our own token"),
        ):
            with pytest.raises(Unreachable, match=told):
                await source.read()


@pytest.mark.parametrize(
    ("path", "told"),
    [
        ("elsewhere", "answered 302"),
        ("nowhere", "answered 404"),
        ("endless", "is larger than"),
    ],
)
async def test_answers_that_are_no_keys(tmp_path: Path, path: str, told: str) -> None:
    """No redirect is followed, and no more is read than is allowed."""
    async with key_server(tmp_path) as (url, http):
        with pytest.raises(Unreachable, match=told):
            await KeyUrl(http, f"{url}/{path}").read()


async def test_issuer_that_is_not_there(tmp_path: Path) -> None:
    """Try later; a bundle of ours that cannot be used is for a person."""
    http = ClusterHttp(None, AGENT)
    with pytest.raises(Unreachable):
        await KeyUrl(http, f"https://127.0.0.1:{process.free_port()}/jwks").read()
    await http.close()
    with pytest.raises(Broken):
        await KeyUrl(ClusterHttp(tmp_path / "none.pem", AGENT), "https://127.0.0.1:1/").read()
