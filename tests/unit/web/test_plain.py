"""The plain listener: answers, issuers, CRLs, and nothing else."""

from collections.abc import AsyncIterator
from pathlib import Path

import aiohttp
import pytest

from broker.issuance.errors import Broken, Unreachable
from broker.web.listeners import start_unix
from broker.web.plain import create_plain_app

PUBLISHED = {"ca-local-1": b"\x30\x03abc"}
FAILING = {"away": Unreachable("the disk is full"), "broken": Broken("its key is gone")}


@pytest.fixture
async def session(tmp_path: Path) -> AsyncIterator[aiohttp.ClientSession]:
    """A client of a plain listener with one of each."""

    async def find(name: str) -> bytes | None:
        if name in FAILING:
            raise FAILING[name]
        return PUBLISHED.get(name)

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
        ("/ca/ca-local-1.crt", b"\x30\x03abc", "application/pkix-cert", "public, max-age=86400"),
        ("/crl/ca-local-1.crl", b"\x30\x03abc", "application/pkix-crl", "public, max-age=600"),
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
