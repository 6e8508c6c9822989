"""What stock clients rely on beside the letter of RFC 8555: headers, shapes, order, tolerance."""

import json
import re
from collections.abc import Callable, Iterator
from datetime import datetime
from pathlib import Path
from typing import Any

import pytest
from cryptography import x509

from tests.e2e.client_rules import RULES, Rule
from tests.e2e.front_door import PROVABLE, FrontDoor
from tests.e2e.requester import JOSE, Reply, fresh_name, leaf_of, sealed, target_of
from tests.unit.protocol.builders import b64url, jwk_json, make_csr, private_key

pytestmark = pytest.mark.e2e

GOLDEN = Path(__file__).parents[1] / "golden" / "stock_client.txt"

Life = dict[str, Reply]
"""Every answer of a client's life, by what was asked."""


def live(door: FrontDoor) -> Life:
    """Do all that a client does, and return the answers."""
    life: Life = {}
    client = door.client("strict")
    wire, base = door.wire, client.base
    life["directory"] = wire.send("GET", target_of(f"{base}/directory"))
    life["HEAD newNonce"] = wire.send("HEAD", target_of(f"{base}/new-nonce"))
    life["GET newNonce"] = wire.send("GET", target_of(f"{base}/new-nonce"))
    contact = ["mailto:admin@example.com"]
    mac_key = b"and in the one that wants a binding"
    life["newAccount"] = client.register(mac_key=mac_key, contact=contact)
    life["newAccount again"] = client.register()
    life["account"] = client.post(client.kid or "")
    life["account update"] = client.post(client.kid or "", {"contact": []})
    names = [fresh_name(), f"*.{fresh_name()}"]
    life["newOrder, trusted"] = client.order(*names)
    granted = life["newOrder, trusted"].json()
    life["authorization, granted"] = client.post(granted["authorizations"][0])
    life["authorization, wildcard"] = client.post(granted["authorizations"][1])
    life["newOrder, to prove"] = client.order(PROVABLE[-1])
    order_url, order = life["newOrder, to prove"].one("Location"), life["newOrder, to prove"].json()
    life["order, pending"] = client.post(order_url)
    life["finalize, too early"] = client.finalize(order, make_csr([PROVABLE[-1]]))
    (authorization,) = order["authorizations"]
    life["authorization, pending"] = client.post(authorization)
    challenge = life["authorization, pending"].json()["challenges"][0]
    life["challenge, read"] = client.post(challenge["url"])
    token = challenge["token"]
    client.prove(door.answers.key_authorizations, order)
    life["challenge, answered again"] = client.post(challenge["url"], {})
    life["authorization, valid"] = client.post(authorization)
    life["order, ready"] = client.post(order_url)
    key = private_key("ES256", "stock")
    life["finalize"] = client.finalize(order, make_csr([PROVABLE[-1]], key=key))
    life["order, valid"] = client.post(order_url)
    life["certificate"] = client.post(life["order, valid"].json()["certificate"])
    revocation = {"certificate": b64url(leaf_of(life["certificate"].body)), "reason": 4}
    life["revokeCert"] = client.post(f"{base}/revoke-cert", revocation)
    life["revokeCert again"] = client.post(f"{base}/revoke-cert", revocation)
    life["authorization, given up"] = client.post(authorization, {"status": "deactivated"})
    life["deactivation"] = client.post(client.kid or "", {"status": "deactivated"})
    life["deactivated"] = client.post(client.kid or "")
    assert token in life["authorization, valid"].body.decode()
    return life


@pytest.fixture(scope="module")
def life(front_door: FrontDoor) -> Life:
    """One client's life."""
    return live(front_door)


def values(document: Any) -> Iterator[tuple[str, Any]]:
    """Yield every member of a JSON document, wherever it stands."""
    if isinstance(document, dict):
        for name, value in document.items():
            yield name, value
            yield from values(value)
    elif isinstance(document, list):
        for value in document:
            yield from values(value)


def documents(life: Life) -> dict[str, Any]:
    """Return the answers that are JSON."""
    return {what: reply.json() for what, reply in life.items() if reply.body[:1] == b"{"}


STATUSES = {
    "directory": 200,
    "HEAD newNonce": 200,
    "GET newNonce": 204,
    "newAccount": 201,
    "newOrder, trusted": 201,
    "newOrder, to prove": 201,
    "finalize, too early": 403,
    "revokeCert again": 400,
    "deactivated": 401,
}


def test_statuses_are_what_clients_compare_with(life: Life) -> None:
    """Go's x/crypto wants exactly 201 of newOrder and exactly 200 of finalize."""
    assert {what: reply.status for what, reply in life.items()} == {
        what: STATUSES.get(what, 200) for what in life
    }


def test_transcript_is_as_it_was(life: Life, update_golden: bool) -> None:
    """Every header and every member, in the order in which they come."""
    text = transcript(life)
    if update_golden:
        GOLDEN.write_text(text, "utf-8")
    assert GOLDEN.read_text("utf-8") == text


def transcript(life: Life) -> str:
    """Return the answers as text, with everything replaced that differs from run to run."""
    seen: dict[str, str] = {}

    def named(kind: str) -> Callable[[re.Match[str]], str]:
        def replace(found: re.Match[str]) -> str:
            count = sum(name.startswith(f"<{kind} ") for name in seen.values())
            return seen.setdefault(found[0], f"<{kind} {count + 1}>")

        return replace

    lines = ["# Answers to one client, made by tests/e2e/test_stock_rules.py --update-golden\n"]
    for what, reply in life.items():
        lines.append(f"\n{what}: {reply.status}\n")
        for name, value in sorted(reply.headers):
            if name not in {"Date", "Content-Length"}:
                lines.append(f"  {name}: {'<nonce>' if name == 'Replay-Nonce' else value}\n")
        if reply.body[:1] == b"{":
            shown = json.dumps(reply.json(), indent=2, ensure_ascii=False)
        else:
            shown = re.sub(r"\n(?!-)[A-Za-z0-9+/=\n]+", "\n<DER>\n", reply.body.decode())
        lines += [f"  {line}\n" for line in shown.splitlines()]
    text = "".join(lines)
    text = re.sub(r"https://127\.0\.0\.1:\d+", "https://penstock", text)
    text = re.sub(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\dZ", "<time>", text)
    text = re.sub(r'(?<="token": ")[A-Za-z0-9_-]{22,}', named("token"), text)
    text = re.sub(r'(?<="payload": ")[A-Za-z0-9_-]{22,}', "<key>", text)
    text = re.sub(r'(?<="protected": ")[A-Za-z0-9_-]{22,}', "<header>", text)
    text = re.sub(r'(?<="signature": ")[A-Za-z0-9_-]{22,}', "<MAC>", text)
    text = re.sub(r"\b[0-9a-f]{32}\b", named("id"), text)
    return re.sub(r"\bh[0-9a-f]{12}\b", named("host"), text)


def test_nonce_stands_once_in_every_answer(life: Life) -> None:
    """acme.sh takes what it finds first, others what they find last; each nonce is new."""
    assert len({reply.nonce for reply in life.values()}) == len(life)
    for reply in life.values():
        assert re.fullmatch(r"[A-Za-z0-9_-]+", reply.nonce)
        assert reply.one("Cache-Control") == "no-store"
        assert reply.one("Access-Control-Allow-Origin") == "*"


LOCATED = {"newAccount", "newAccount again", "newOrder, trusted", "newOrder, to prove",
           "order, pending", "order, ready", "order, valid", "finalize"}  # fmt: skip


def test_location_stands_once_where_it_belongs(life: Life) -> None:
    """At newAccount (201 and 200), newOrder and finalize; the same one for one object."""
    assert {what for what, reply in life.items() if reply.all("Location")} == LOCATED
    assert life["newAccount"].one("Location") == life["newAccount again"].one("Location")
    order = life["newOrder, to prove"].one("Location")
    for what in ("order, pending", "order, ready", "finalize", "order, valid"):
        assert life[what].one("Location") == order


def test_links_lead_where_clients_look(life: Life) -> None:
    """``index`` everywhere but in the directory, ``up`` from a challenge; no folded lines."""
    base = life["directory"].json()["newNonce"].rpartition("/")[0]
    index = f'<{base}/directory>;rel="index"'
    for what, reply in life.items():
        links = reply.all("Link")
        assert links.count(index) == (what != "directory")
        others = [link for link in links if link != index]
        if what.startswith("challenge"):
            (authorization,) = life["newOrder, to prove"].json()["authorizations"]
            assert others == [f'<{authorization}>;rel="up"']
        else:
            assert others == []


def test_retry_after_is_a_whole_number(life: Life) -> None:
    """acme.sh reads integers alone; what is still open says when to ask again."""
    told = {what: reply.all("Retry-After") for what, reply in life.items()}
    assert told["authorization, pending"]
    assert told["finalize"] == told["order, valid"] == told["authorization, valid"] == []
    for value in [value for each in told.values() for value in each]:
        assert re.fullmatch(r"[1-9]\d{0,3}", value)


def test_nothing_is_null_or_empty(life: Life) -> None:
    """Strict clients fail at ``null`` and at ``""`` where they expect a time or a list."""
    for what, document in documents(life).items():
        for name, value in values(document):
            assert value is not None, (what, name)
            assert value != "", (what, name)
            if name in {"expires", "validated", "notBefore", "notAfter"}:
                assert re.fullmatch(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\dZ", value)
                assert datetime.fromisoformat(value).tzinfo is not None


def test_content_types_are_exact(life: Life) -> None:
    """Problem documents, JSON, PEM chains, and nothing at all where there is no body."""
    for what, reply in life.items():
        kinds = reply.all("Content-Type")
        if what == "certificate":
            assert kinds == ["application/pem-certificate-chain"]
        elif reply.status >= 400:
            assert kinds == ["application/problem+json"]
        elif what in documents(life):
            assert kinds == ["application/json"]
        else:
            assert reply.body == b""
            assert reply.all("Content-Length") == (["0"] if what == "revokeCert" else [])
        assert reply.all("Content-Encoding") == []


def test_members_come_in_one_order(life: Life) -> None:
    """acme.sh reads by pattern: the first ``status`` is the object's own."""
    order = ["status", "expires", "identifiers", "authorizations", "finalize", "certificate",
             "profile"]  # fmt: skip
    for what, document in documents(life).items():
        if "finalize" in document:
            assert list(document) == [name for name in order if name in document], what
            assert ("certificate" in document) == (document["status"] == "valid")
        if "challenges" in document:
            text = life[what].body.decode()
            assert f'"status": "{document["status"]}"' == re.findall(r'"status": "\w+"', text)[0]
            assert text.count('"value"') == 1


def test_order_says_nothing_that_reads_like_a_status(life: Life) -> None:
    """acme.sh looks for the words ready and processing anywhere in an order."""
    for what, document in documents(life).items():
        if "finalize" in document:
            text = life[what].body.decode().replace(f'"status": "{document["status"]}"', "")
            assert not re.search(r"ready|processing|pending|invalid|\bvalid\b", text)


def test_wildcard_stands_there_only_when_true(life: Life) -> None:
    """Its authorization names the base (RFC 8555 §7.1.4)."""
    for what, document in documents(life).items():
        assert ("wildcard" in document) == (what == "authorization, wildcard")
    wildcard = life["authorization, wildcard"].json()
    assert wildcard["wildcard"] is True
    asked = life["newOrder, trusted"].json()["identifiers"][1]["value"]
    assert f"*.{wildcard['identifier']['value']}" == asked


def test_challenges_are_flat_and_their_tokens_long(life: Life) -> None:
    """For certbot a token has 16 octets or more, for acme.sh a challenge has no object within."""
    tokens = []
    for what in ("authorization, pending", "authorization, valid"):
        for challenge in life[what].json()["challenges"]:
            assert re.fullmatch(r"[A-Za-z0-9_-]{22,256}", challenge["token"])
            assert all(isinstance(value, str) for value in challenge.values())
            assert ("validated" in challenge) == (challenge["status"] == "valid")
            tokens.append(challenge["token"])
    pending = life["authorization, pending"].json()["challenges"]
    assert {challenge["type"] for challenge in pending} == {"http-01", "dns-01"}
    assert len(set(tokens)) == len(pending)
    read = life["challenge, read"].json()
    assert read == pending[0]
    assert life["challenge, answered again"].json()["url"] == read["url"]


def test_authorizations_come_in_the_order_of_identifiers(front_door: FrontDoor) -> None:
    """Lego takes the nth authorization for the nth name, and wants the names as it wrote them."""
    client = front_door.trusted()
    names = [fresh_name() for _ in range(7)]
    names[3:3] = [f"*.{names[0]}"]
    order = client.order(*names).json()
    assert [one["value"] for one in order["identifiers"]] == names
    shown = [client.post(url).json() for url in order["authorizations"]]
    assert [one["identifier"]["value"] for one in shown] == [n.removeprefix("*.") for n in names]
    assert {one["status"] for one in shown} == {"valid"}


def test_chain_is_leaf_first_and_nothing_but_certificates(
    life: Life, front_door: FrontDoor
) -> None:
    """RFC 8555 §9.1: no text outside the blocks, each certificate certifies the one before."""
    text = life["certificate"].body.decode()
    block = r"-----BEGIN CERTIFICATE-----\n(?:[A-Za-z0-9+/=]{1,64}\n)+-----END CERTIFICATE-----\n"
    assert re.fullmatch(f"(?:{block})+", text)
    chain = x509.load_pem_x509_certificates(text.encode())
    (root,) = x509.load_pem_x509_certificates(front_door.penstock.ca_bundle.read_bytes())
    assert root not in chain
    for child, issuer in zip(chain, [*chain[1:], root], strict=True):
        child.verify_directly_issued_by(issuer)


@pytest.mark.parametrize("rule", list(RULES.values()), ids=list(RULES))
def test_rule_of_a_client_holds(rule: Rule, life: Life) -> None:
    """Clients that can't be had here find what they look for, where they look for it."""
    rule(life)


@pytest.mark.parametrize("rule", list(RULES.values()), ids=list(RULES))
def test_rule_of_a_client_notices_what_is_amiss(rule: Rule, life: Life) -> None:
    """The same rule fails where every answer is a wrong one."""
    lines = [("Location", "http://elsewhere/acme/"), ("Link", "<x/y/z>;rel=up, <u>"),
             ("Replay-Nonce", "a,b"), ("Retry-After", "soon")]  # fmt: skip
    members = (
        b'"status": "valid", "url": "http://elsewhere/acme/1", "certificate": "no", "expires": ""'
    )
    body = b"{" + members + b', "status": "ready"}'
    wrong = Reply(status=302, headers=tuple(lines * 2), body=body, seconds=0)
    with pytest.raises((AssertionError, LookupError, ValueError)):
        rule(dict.fromkeys(life, wrong))


def test_proxmox_is_served_as_it_speaks(front_door: FrontDoor) -> None:
    """Its key says what it is for, its challenge says the answer, its reading sends ``{}``."""
    client = front_door.client("default")
    client.key = private_key("RS256", "proxmox")
    url = client.url("new-account")
    header = client.header(url, by_key=True)
    header["jwk"] = {**jwk_json(client.key), "use": "sig"}
    body = sealed(header, b'{"termsOfServiceAgreed":true}', client.key)
    made = client.wire.send("POST", target_of(url), body, [("Content-Type", JOSE)])
    assert made.status == 201
    client.kid = made.one("Location")
    assert client.post(client.kid, {}).status == 200
    order_url, order = client.new_order(PROVABLE[-2])
    (authorization,) = order["authorizations"]
    challenges = client.post(authorization).json()["challenges"]
    (challenge,) = [one for one in challenges if one["type"] == "http-01"]
    answer = client.post(challenge["url"], {"keyAuthorization": f"{challenge['token']}.anything"})
    assert answer.status == 200
    assert client.post(order_url).status == 200
