"""The plain listener: answers, issuers, CRLs, and nothing else."""

from collections.abc import AsyncIterator
from datetime import timedelta
from pathlib import Path

import aiohttp
import pytest

from broker.issuance.errors import Broken, Unreachable
from broker.web.listeners import start_unix
from broker.web.plain import Publication, create_plain_app
from tests.fakes.clock import START

PUBLISHED = Publication(
    body=b"\x30\x03abc",
    modified_at=START,
    fresh_for=timedelta(minutes=10),
    expires_at=START + timedelta(minutes=10),
)
CACHED = "public, max-age=600, must-revalidate"
PATHS = ["/ca/ca-local-1.crt", "/crl/ca-local-1.crl"]
FAILING: dict[str, Unreachable | Broken] = {
    "away": Unreachable("the disk is full"),
    "broken": Broken("its key is gone"),
}


@pytest.fixture
async def session(tmp_path: Path) -> AsyncIterator[aiohttp.ClientSession]:
    """A client of a plain listener with one of each."""

    async def find(name: str) -> Publication | None:
        if name in FAILING:
            raise FAILING[name]
        return PUBLISHED if name == "ca-local-1" else None

    def answer(host: str, path: str) -> bytes | None:
        is_ours = (host, path) == ("pki.example", "/.well-known/acme-challenge/token")
        return b"token.thumb" if is_ours else None

    app = create_plain_app(
        answers=answer,
        issuer_certificates=find,
        revocation_lists=find,
    )
    path = tmp_path / "plain.sock"
    listener = await start_unix(app, path)
    async with aiohttp.ClientSession(
        "http://pki.example", connector=aiohttp.UnixConnector(str(path))
    ) as made:
        yield made
    await listener.stop()


@pytest.mark.parametrize(
    ("path", "body", "content_type", "caching"),
    [
        ("/.well-known/acme-challenge/token", b"token.thumb", "application/octet-stream",
         "no-store"),
        ("/ca/ca-local-1.crt", b"\x30\x03abc", "application/pkix-cert", CACHED),
        ("/crl/ca-local-1.crl", b"\x30\x03abc", "application/pkix-crl", CACHED),
    ],
    ids=["answer", "issuer", "crl"],
)  # fmt: skip
async def test_what_is_there_is_served(
    session: aiohttp.ClientSession, path: str, body: bytes, content_type: str, caching: str
) -> None:
    """With its content type, and with how long it may be cached."""
    async with session.get(path) as answer:
        assert (answer.status, await answer.read()) == (200, body)
        assert answer.headers["Content-Type"] == content_type
        assert answer.headers["Cache-Control"] == caching
        assert "Server" not in answer.headers


@pytest.mark.parametrize("path", PATHS, ids=["issuer", "crl"])
@pytest.mark.parametrize("method", ["GET", "HEAD"])
async def test_what_is_published_says_how_old_it_is(
    session: aiohttp.ClientSession, path: str, method: str
) -> None:
    """When it was made, until when it is fresh, and what tells it from the next; HEAD as GET."""
    async with session.request(method, path) as answer:
        assert answer.status == 200
        assert answer.headers["Last-Modified"] == "Sun, 01 Mar 2026 12:00:00 GMT"
        assert answer.headers["Expires"] == "Sun, 01 Mar 2026 12:10:00 GMT"
        assert answer.headers["ETag"] == f'"{PUBLISHED.tag}"'
        assert answer.headers["Content-Length"] == str(len(PUBLISHED.body))
        assert await answer.read() == (PUBLISHED.body if method == "GET" else b"")


OLD = "Sun, 01 Mar 2026 11:59:59 GMT"
SAME = "Sun, 01 Mar 2026 12:00:00 GMT"


@pytest.mark.parametrize(
    ("headers", "status"),
    [
        ({"If-None-Match": f'"{PUBLISHED.tag}"'}, 304),
        ({"If-None-Match": f'W/"{PUBLISHED.tag}"'}, 304),
        ({"If-None-Match": f'"other", "{PUBLISHED.tag}"'}, 304),
        ({"If-None-Match": "*"}, 304),
        ({"If-None-Match": '"other"'}, 200),
        ({"If-Modified-Since": SAME}, 304),
        ({"If-Modified-Since": OLD}, 200),
        ({"If-Modified-Since": "yesterday"}, 200),
        ({"If-None-Match": '"other"', "If-Modified-Since": SAME}, 200),
    ],
    ids=["tag", "weak", "one-of", "any", "other", "since", "older", "no-date", "tag-counts"],
)
async def test_what_a_cache_has_already_is_not_sent_again(
    session: aiohttp.ClientSession, headers: dict[str, str], status: int
) -> None:
    """RFC 9110 §13.2.2: a tag is asked first, and a date only without one."""
    async with session.get("/crl/ca-local-1.crl", headers=headers) as answer:
        assert answer.status == status
        assert await answer.read() == (b"" if status == 304 else PUBLISHED.body)
        assert answer.headers["ETag"] == f'"{PUBLISHED.tag}"'
        assert answer.headers["Cache-Control"] == CACHED


async def test_failure_is_not_kept_by_caches(session: aiohttp.ClientSession) -> None:
    """The next one to ask may find the list."""
    async with session.get("/crl/away.crl") as answer:
        assert answer.headers["Cache-Control"] == "no-store"


@pytest.mark.parametrize(
    "path",
    ["/.well-known/acme-challenge/other", "/ca/other.crt", "/crl/other.crl", "/ca/../x.crt",
     "/ca/UPPER.crt", "/acme/directory", "/"],
)  # fmt: skip
async def test_what_is_not_there_is_404(session: aiohttp.ClientSession, path: str) -> None:
    """Nothing of the ACME listener is reachable without TLS."""
    async with session.get(path) as answer:
        assert answer.status == 404


@pytest.mark.parametrize("name", FAILING)
async def test_what_cannot_be_made_now_is_503(session: aiohttp.ClientSession, name: str) -> None:
    """A verifier comes again; the reason is for the log."""
    async with session.get(f"/crl/{name}.crl") as answer:
        assert (answer.status, answer.headers["Retry-After"]) == (503, "60")
        assert FAILING[name].reason not in await answer.text()


async def test_answer_is_for_its_host_alone(session: aiohttp.ClientSession) -> None:
    """Whoever answers knows the name that was asked for."""
    path = "/.well-known/acme-challenge/token"
    async with session.get(path, headers={"Host": "other.example"}) as answer:
        assert answer.status == 404


async def test_nothing_is_served_that_was_not_asked_for(tmp_path: Path) -> None:
    """A broker without a built-in CA has no /ca."""
    assert [str(each) for each in create_plain_app().router.resources()] == []
