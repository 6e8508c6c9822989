"""Pages of any origin: what a browser asks beforehand, and which headers a script may read."""

import pytest

from tests.unit.web.conftest import ORIGIN, Site

BASE = f"{ORIGIN}/acme/default"


@pytest.mark.parametrize(
    ("url", "methods"),
    [
        (f"{BASE}/directory", "GET, HEAD, POST"),
        (f"{ORIGIN}/acme/directory", "GET, HEAD, POST"),
        (f"{BASE}/new-nonce", "GET, HEAD, POST"),
        (f"{BASE}/new-account", "POST"),
        (f"{BASE}/order/a/finalize", "POST"),
        (f"{BASE}/challenge/a/b", "POST"),
        (f"{BASE}/certificate/a", "POST"),
        (f"{BASE}/key-change", "POST"),
    ],
)
async def test_preflight_is_answered(site: Site, url: str, methods: str) -> None:
    """204 without a body, for every origin, with what the resource takes."""
    answer = await site.client.send(
        "OPTIONS",
        url,
        Origin="https://page.example",
        Access_Control_Request_Method="POST",
        Access_Control_Request_Headers="content-type",
    )
    assert (answer.status, answer.body) == (204, b"")
    assert answer.headers["Access-Control-Allow-Origin"] == "*"
    assert answer.headers["Access-Control-Allow-Methods"] == methods
    assert answer.headers["Access-Control-Allow-Headers"] == "Content-Type"
    assert int(answer.headers["Access-Control-Max-Age"]) > 0


async def test_script_may_read_what_it_needs(site: Site) -> None:
    """On every answer, refusals too: without the nonce it could do nothing."""
    refused = await site.client.send("GET", f"{BASE}/new-order")
    for answer in (await site.client.send("HEAD", f"{BASE}/new-nonce"), refused):
        exposed = answer.headers["Access-Control-Expose-Headers"].split(", ")
        assert exposed == ["Replay-Nonce", "Location", "Link", "Retry-After"]


async def test_preflight_of_nothing_is_404(site: Site) -> None:
    """Only resources that are there are told of."""
    assert (await site.client.send("OPTIONS", f"{BASE}/nothing")).status == 404
