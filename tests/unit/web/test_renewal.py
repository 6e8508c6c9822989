"""Certificates with their other chains, and renewal information, as they go over the wire."""

from datetime import timedelta

import pytest

from broker.issuance.renewals import Suggestion
from broker.protocol.renewal import RenewalInfo, RenewalWindow
from tests.fakes.clock import START
from tests.unit.web.conftest import ORIGIN, Site

BASE = f"{ORIGIN}/acme/default"
CERT_ID = "aYhba4dGQEHhs3uEe6CuLN4ByNQ.AIdlQyE"
DAY = timedelta(days=1)


def known(site: Site, *, retry_after: timedelta = timedelta(hours=6)) -> None:
    """Let a window be known."""
    info = RenewalInfo(window=RenewalWindow(START, START + DAY))
    site.workflows.renewals.known[CERT_ID] = Suggestion(info=info, retry_after=retry_after)


async def test_directory_names_renewal_info(site: Site) -> None:
    """Since every certificate of ours has an answer."""
    directory = (await site.client.send("GET", f"{BASE}/directory")).json()
    assert directory["renewalInfo"] == f"{BASE}/renewal-info"


async def test_renewal_information_is_everybodys(site: Site) -> None:
    """No signature, no nonce, a Retry-After in whole seconds, and caches may keep it a while."""
    known(site, retry_after=timedelta(seconds=3599, milliseconds=1))
    answer = await site.client.send("GET", f"{BASE}/renewal-info/{CERT_ID}")
    assert answer.status == 200
    assert answer.json() == {
        "suggestedWindow": {"start": "2026-03-01T12:00:00Z", "end": "2026-03-02T12:00:00Z"}
    }
    assert answer.headers["Retry-After"] == "3600"
    assert answer.headers["Cache-Control"] == "public, max-age=300"
    assert "Replay-Nonce" not in answer.headers
    assert answer.headers["Content-Type"].startswith("application/json")
    assert answer.headers["Access-Control-Allow-Origin"] == "*"


@pytest.mark.parametrize(
    ("path", "status"),
    [
        pytest.param("AA.AQ", 404, id="unknown"),
        pytest.param("nonsense", 400, id="malformed"),
        pytest.param("%2e%2e%2f.x", 400, id="a path"),
        pytest.param("a" * 1000, 400, id="long"),
    ],
)
async def test_other_identifiers_are_malformed(site: Site, path: str, status: int) -> None:
    """404 for what may be a certificate, 400 for what never is one; neither is cached."""
    known(site)
    answer = await site.client.send("GET", f"{BASE}/renewal-info/{path}")
    assert answer.status == status
    assert answer.json()["type"] == "urn:ietf:params:acme:error:malformed"
    assert answer.headers["Cache-Control"] == "no-store"


async def test_renewal_information_is_not_posted_for(site: Site) -> None:
    """RFC 9773 §4.1 asks for GET."""
    known(site)
    answer = await site.client.send("POST", f"{BASE}/renewal-info/{CERT_ID}")
    assert answer.status == 405


@pytest.mark.parametrize("number", [0, 1, 2])
async def test_each_chain_links_to_the_others(site: Site, number: int) -> None:
    """Under URLs of our own, by relation alternate; and to the directory."""
    await site.client.register()
    site.workflows.handover.chains = 3
    urls = [f"{BASE}/certificate/c1", *(f"{BASE}/certificate/c1/chain/{n}" for n in (1, 2))]
    answer = await site.client.post(urls[number], None)
    assert answer.status == 200
    assert answer.headers["Content-Type"] == "application/pem-certificate-chain"
    assert answer.body.count(b"BEGIN CERTIFICATE") == number + 1
    links = [link for link in answer.headers.getall("Link") if "alternate" in link]
    assert links == [f'<{url}>;rel="alternate"' for url in urls if url != urls[number]]


async def test_certificate_with_one_chain_links_to_none(site: Site) -> None:
    """The twin."""
    await site.client.register()
    answer = await site.client.post(f"{BASE}/certificate/c1", None)
    assert answer.status == 200
    assert not [link for link in answer.headers.getall("Link") if "alternate" in link]


@pytest.mark.parametrize("path", ["chain/0", "chain/3", "chain/x", "chain/10", "chain"])
async def test_chain_that_is_not_there_is_not_found(site: Site, path: str) -> None:
    """The default chain has one URL, and numbers have one digit."""
    await site.client.register()
    site.workflows.handover.chains = 3
    answer = await site.client.post(f"{BASE}/certificate/c1/{path}", None)
    assert answer.status == 404
