"""The ACME listener: its paths, and the headers that go with every answer."""

import pytest

from tests.unit.web.conftest import ORIGIN, Site

BASE = f"{ORIGIN}/acme/default"


async def test_directory_lists_what_is_built_and_nothing_else(site: Site) -> None:
    """A client learns the URLs of this community and no resource that would answer 404."""
    answer = await site.client.send("GET", f"{BASE}/directory")
    assert answer.status == 200
    assert answer.json() == {
        "newNonce": f"{BASE}/new-nonce",
        "newAccount": f"{BASE}/new-account",
        "newOrder": f"{BASE}/new-order",
        "revokeCert": f"{BASE}/revoke-cert",
        "keyChange": f"{BASE}/key-change",
        "renewalInfo": f"{BASE}/renewal-info",
        "meta": {"website": "https://pki.corp.example", "profiles": {"server": "for default"}},
    }


async def test_default_directory_stands_at_the_short_path_too(site: Site) -> None:
    """Both paths give the same URLs, so that accounts do not depend on the one that was typed."""
    short = await site.client.send("GET", f"{ORIGIN}/acme/directory")
    long = await site.client.send("GET", f"{BASE}/directory")
    assert short.json() == long.json()


async def test_each_community_has_its_own_directory(site: Site) -> None:
    """The lab's URLs are the lab's, and it says that it wants a binding."""
    listed = (await site.client.send("GET", f"{ORIGIN}/acme/lab/directory")).json()
    assert listed["newOrder"] == f"{ORIGIN}/acme/lab/new-order"
    assert listed["meta"]["externalAccountRequired"] is True


async def test_forged_host_changes_no_url(site: Site) -> None:
    """URLs come from the configuration, whatever the request says about its host."""
    answer = await site.client.send(
        "GET",
        f"{BASE}/directory",
        Host="evil.example",
        X_Forwarded_Host="evil.example",
        Forwarded="host=evil.example",
    )
    assert answer.json()["newNonce"] == f"{BASE}/new-nonce"
    assert b"evil" not in answer.body


@pytest.mark.parametrize(("method", "status"), [("HEAD", 200), ("GET", 204)], ids=["head", "get"])
async def test_new_nonce_answers_without_a_body(site: Site, method: str, status: int) -> None:
    """RFC 8555 §7.2 tells HEAD and GET apart by their status."""
    answer = await site.client.send(method, f"{BASE}/new-nonce")
    assert (answer.status, answer.body) == (status, b"")
    assert answer.headers["Cache-Control"] == "no-store"
    assert answer.headers["Link"] == f'<{BASE}/directory>;rel="index"'


@pytest.mark.parametrize(
    ("method", "path", "status"),
    [
        ("GET", "/acme/default/directory", 200),
        ("HEAD", "/acme/default/new-nonce", 200),
        ("GET", "/acme/default/new-order", 405),
        ("POST", "/acme/default/new-order", 415),
        ("GET", "/acme/nowhere/directory", 404),
        ("GET", "/", 404),
        ("DELETE", "/acme/default/order/x/finalize", 405),
    ],
    ids=["directory", "nonce", "wrong-method", "no-jws", "community", "root", "delete"],
)
async def test_every_answer_has_one_fresh_nonce_and_tells_no_software(
    site: Site, method: str, path: str, status: int
) -> None:
    """Errors carry a nonce too, exactly one, and nothing tells what serves them."""
    answers = [await site.client.send(method, ORIGIN + path) for _ in range(2)]
    assert [answer.status for answer in answers] == [status, status]
    nonces = [answer.headers.getall("Replay-Nonce") for answer in answers]
    assert [len(each) for each in nonces] == [1, 1]
    assert nonces[0] != nonces[1]
    for answer in answers:
        assert "Server" not in answer.headers
        assert answer.headers["Access-Control-Allow-Origin"] == "*"


@pytest.mark.parametrize(
    "path",
    ["new-account", "new-order", "order/a", "order/a/finalize", "authz/a", "challenge/a/b",
     "certificate/a", "revoke-cert", "account/a", "account/a/orders", "key-change", "new-authz"],
)  # fmt: skip
async def test_reading_by_get_is_refused_as_the_rfc_says(site: Site, path: str) -> None:
    """RFC 8555 §6.3: 405 with malformed, and what is allowed instead."""
    answer = await site.client.send("GET", f"{BASE}/{path}")
    assert (answer.status, answer.problem) == (405, "malformed")
    assert answer.headers["Allow"] == "OPTIONS,POST"
    assert answer.headers.getall("Link") == [f'<{BASE}/directory>;rel="index"']


async def test_prefix_of_the_external_url_is_served(site: Site) -> None:
    """The routes stand where the external URL says, so a stray path is a problem document."""
    answer = await site.client.send("GET", f"{ORIGIN}/prefix/acme/default/directory")
    assert (answer.status, answer.problem) == (404, "malformed")
