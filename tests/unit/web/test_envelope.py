"""What a request must be before a workflow sees it."""

import asyncio
import json
from datetime import timedelta

import pytest

from broker.protocol.encoding import encode_base64url
from tests.fakes.raw_client import JOSE, RawClient
from tests.unit.web.conftest import ORIGIN, Site

BASE = f"{ORIGIN}/acme/default"
NEW_ORDER = f"{BASE}/new-order"
ORDER = {"identifiers": [{"type": "dns", "value": "www.corp.example"}]}


@pytest.fixture
async def client(site: Site) -> RawClient:
    """A client with an account."""
    await site.client.register()
    return site.client


async def test_right_request_passes(site: Site, client: RawClient) -> None:
    """The twin of every refusal below: signed, fresh, by the account, for this URL."""
    answer = await client.post(NEW_ORDER, ORDER)
    assert answer.status == 201
    assert len(site.workflows.orders.asked) == 1


async def test_nonce_is_good_once(site: Site, client: RawClient) -> None:
    """A replay of a valid request is refused, with a fresh nonce to go on with."""
    body = client.sign(NEW_ORDER, ORDER, await client.nonce())
    first, *replays = [
        await client.send("POST", NEW_ORDER, body, Content_Type=JOSE) for _ in range(5)
    ]
    assert first.status == 201
    assert {(each.status, each.problem) for each in replays} == {(400, "badNonce")}
    assert len(site.workflows.orders.asked) == 1
    retried = await client.post(NEW_ORDER, ORDER, nonce=replays[-1].headers["Replay-Nonce"])
    assert retried.status == 201


async def test_two_requests_at_once_with_one_nonce_make_one(site: Site, client: RawClient) -> None:
    """Spending a nonce is one step, whoever comes first."""
    nonce = await client.nonce()
    answers = await asyncio.gather(*(client.post(NEW_ORDER, ORDER, nonce=nonce) for _ in range(8)))
    assert sorted(answer.status for answer in answers) == [201] + [400] * 7


async def test_signature_of_another_key_is_refused(site: Site, client: RawClient) -> None:
    """Knowing an account's URL is not being it."""
    thief = RawClient(client.session, ORIGIN, kid=client.kid)
    answer = await thief.post(NEW_ORDER, ORDER)
    assert (answer.status, answer.problem) == (400, "malformed")
    assert site.workflows.orders.asked == []


@pytest.mark.parametrize(
    "url",
    [
        f"{BASE}/new-order/",
        f"{BASE}/new-order?a=b",
        f"{BASE}/NEW-ORDER",
        "https://acme.corp.example/acme/default/new-order",
        "http://acme.corp.example:80/acme/default/new-order",
        "http://evil.example/acme/default/new-order",
        "http://acme.corp.example/acme/lab/new-order",
        f"{BASE}/new-account",
    ],
    ids=["slash", "query", "case", "scheme", "port", "host", "community", "resource"],
)
async def test_request_for_another_url_is_refused(site: Site, client: RawClient, url: str) -> None:
    """What was signed for one URL is good there alone (RFC 8555 §6.4)."""
    body = client.sign(url, ORDER, await client.nonce())
    answer = await client.send("POST", NEW_ORDER, body, Content_Type=JOSE, Host="evil.example")
    assert (answer.status, answer.problem) == (403, "unauthorized")
    assert site.workflows.orders.asked == []


async def test_query_that_was_not_signed_is_refused(site: Site, client: RawClient) -> None:
    """A query string is part of the URL."""
    body = client.sign(NEW_ORDER, ORDER, await client.nonce())
    answer = await client.send("POST", f"{NEW_ORDER}?x=1", body, Content_Type=JOSE)
    assert (answer.status, answer.problem) == (403, "unauthorized")


@pytest.mark.parametrize(
    "kid",
    [
        f"{BASE}/account/acct2",
        f"{BASE}/account/acct1/",
        f"{BASE}/account/../account/acct1",
        f"{BASE}/account/acct1?x",
        f"{ORIGIN}/acme/lab/account/acct1",
        "https://acme.corp.example/acme/default/account/acct1",
        "http://evil.example/acme/default/account/acct1",
        "acct1",
    ],
    ids=["unknown", "slash", "dots", "query", "community", "scheme", "host", "id"],
)
async def test_kid_is_our_account_url_or_nothing(client: RawClient, kid: str) -> None:
    """RFC 8555 §6.2: the account URL as text, and no other spelling of it."""
    assert client.kid == f"{BASE}/account/acct1"
    answer = await client.post(NEW_ORDER, ORDER, kid=kid)
    assert (answer.status, answer.problem) == (400, "accountDoesNotExist")


@pytest.mark.parametrize(
    "path",
    ["new-order", "order/a", "order/a/finalize", "authz/a", "challenge/a/b", "certificate/a",
     "account/acct1"],
)  # fmt: skip
async def test_embedded_key_is_refused_where_an_account_is_needed(
    client: RawClient, path: str
) -> None:
    """A jwk speaks for itself alone; with kid beside it, for nobody."""
    url = f"{BASE}/{path}"
    embedded = await client.post(url, ORDER, kid=None, jwk=client.jwk.to_json())
    both = await client.post(url, ORDER, jwk=client.jwk.to_json())
    neither = await client.post(url, ORDER, kid=None)
    for answer in (embedded, both, neither):
        assert (answer.status, answer.problem) == (400, "malformed")


async def test_account_url_is_refused_at_new_account(client: RawClient) -> None:
    """A newAccount is signed by the key that it registers."""
    answer = await client.post(f"{BASE}/new-account", {})
    assert (answer.status, answer.problem) == (400, "malformed")


@pytest.mark.parametrize(
    ("alg", "problem"),
    [("none", "badSignatureAlgorithm"), ("HS256", "badSignatureAlgorithm"),
     ("ES384", "badSignatureAlgorithm"), ("RS256", "badSignatureAlgorithm")],
)  # fmt: skip
async def test_other_algorithms_are_refused_by_name(
    client: RawClient, alg: str, problem: str
) -> None:
    """An algorithm that the key is not for never reaches the library."""
    answer = await client.post(NEW_ORDER, ORDER, alg=alg)
    assert (answer.status, answer.problem) == (400, problem)
    assert "ES256" in answer.json()["algorithms"]


@pytest.mark.parametrize(
    "content_type",
    ["application/json", "application/jose", "text/plain", "application/jose+jsonx"],
)
async def test_other_content_types_are_refused(client: RawClient, content_type: str) -> None:
    """RFC 8555 §6.2: 415, before the body is looked at."""
    body = client.sign(NEW_ORDER, ORDER, await client.nonce())
    answer = await client.send("POST", NEW_ORDER, body, Content_Type=content_type)
    assert (answer.status, answer.problem) == (415, "malformed")


async def test_compressed_body_is_refused(client: RawClient) -> None:
    """A small body that unpacks to a large one is never unpacked."""
    answer = await client.send(
        "POST", NEW_ORDER, b"\x1f\x8b\x08", Content_Type=JOSE, Content_Encoding="gzip"
    )
    assert (answer.status, answer.problem) == (415, "malformed")


async def test_oversized_body_is_refused_before_anything_else(site: Site) -> None:
    """413 at one byte over the limit; at the limit it is read (and is no JSON)."""
    at_limit = await site.client.send("POST", NEW_ORDER, b"x" * 4096, Content_Type=JOSE)
    over = await site.client.send("POST", NEW_ORDER, b"x" * 4097, Content_Type=JOSE)
    assert (at_limit.status, at_limit.problem) == (400, "malformed")
    assert (over.status, over.problem) == (413, "malformed")


async def _raw(site: Site, request: bytes) -> bytes:
    reader, writer = await asyncio.open_unix_connection(str(site.socket))
    writer.write(request)
    await writer.drain()
    head = await asyncio.wait_for(reader.readuntil(b"\r\n\r\n"), 30)
    writer.close()
    await writer.wait_closed()
    return head


_HEAD = (
    b"POST /acme/default/new-order HTTP/1.1\r\nHost: acme.corp.example\r\n"
    b"Content-Type: application/jose+json\r\n"
)


async def test_endless_chunks_are_refused_at_the_limit(site: Site) -> None:
    """A body without a stated length is counted while it arrives."""
    chunk = b"1000\r\n" + b"x" * 4096 + b"\r\n"
    head = await _raw(site, _HEAD + b"Transfer-Encoding: chunked\r\n\r\n" + chunk * 2)
    assert head.startswith(b"HTTP/1.1 413 ")


@pytest.mark.parametrize("site", [timedelta(milliseconds=50)], indirect=True, ids=["50ms"])
async def test_slow_body_is_given_up(site: Site) -> None:
    """A client that sends its headers and then nothing is answered 408."""
    head = await _raw(site, _HEAD + b"Content-Length: 100\r\n\r\n{")
    assert head.startswith(b"HTTP/1.1 408 ")
    assert b"application/problem+json" in head


@pytest.mark.parametrize(
    "body",
    [
        b"",
        b"{",
        b"[]",
        b'{"protected":"","payload":"","signature":""}',
        b'{"payload":"","signatures":[]}',
        b'{"protected":"e30","payload":"","signature":"AA","header":{}}',
        b'{"protected":"e30","protected":"e30","payload":"","signature":"AA"}',
        b"\xef\xbb\xbf{}",
        b"[" * 4000,
        b'{"protected":' + b"9" * 4000 + b"}",
        json.dumps({"protected": "e30=", "payload": "", "signature": "AA"}).encode(),
    ],
    ids=["empty", "torn", "list", "blank", "general", "unprotected", "twice", "bom", "deep",
         "digits", "padded"],
)  # fmt: skip
async def test_anything_but_a_flattened_jws_is_malformed(site: Site, body: bytes) -> None:
    """None of it reaches a library, an account or a nonce."""
    answer = await site.client.send("POST", NEW_ORDER, body, Content_Type=JOSE)
    assert (answer.status, answer.problem) == (400, "malformed")


async def test_nonce_of_nobody_is_refused(client: RawClient) -> None:
    """A forged nonce is badNonce, one outside the alphabet malformed (RFC 8555 §6.5.1)."""
    forged = await client.post(NEW_ORDER, ORDER, nonce=encode_base64url(b"x" * 30))
    strange = await client.post(NEW_ORDER, ORDER, nonce="a+b/")
    assert (forged.status, forged.problem) == (400, "badNonce")
    assert (strange.status, strange.problem) == (400, "malformed")


async def test_account_of_another_community_is_unknown_here(site: Site) -> None:
    """An account's key and URL are good in its own community alone."""
    await site.client.register("lab")
    assert site.client.kid == f"{ORIGIN}/acme/lab/account/acct1"
    answer = await site.client.post(NEW_ORDER, ORDER)
    assert (answer.status, answer.problem) == (400, "accountDoesNotExist")
    own = await site.client.post(f"{ORIGIN}/acme/lab/new-order", ORDER)
    assert own.status == 201


async def test_deactivated_account_is_refused_everywhere(client: RawClient) -> None:
    """RFC 8555 §7.3.6: 401 from then on."""
    assert client.kid is not None
    gone = await client.post(client.kid, {"status": "deactivated"})
    assert gone.json()["status"] == "deactivated"
    answer = await client.post(NEW_ORDER, ORDER)
    assert (answer.status, answer.problem) == (401, "unauthorized")
