"""Trusted requesters: names without a challenge, for those that external account binding names.

Nobody listens at the port where the broker looks for http-01, except in the one test that wants
control to be proved: what comes out here was granted by policy.  The CA behind still wants its
proofs, and Penstock itself gives them.
"""

from __future__ import annotations

import asyncio
import base64
import secrets
from collections import Counter
from collections.abc import Iterator
from contextlib import ExitStack
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.serialization import Encoding

from tests.deployments.cas import DNS_ZONE, WEB_ZONE
from tests.deployments.requester import Requester
from tests.deployments.trusting import DECLARED, LAB, LAB_ZONE, NARROW_NAME, Trusting
from tests.fakes.acme_client import make_csr
from tests.fakes.hostile_ca.envelope import b64
from tests.peers.bind import Bind
from tests.peers.certbot import Certbot
from tests.peers.client import ClientFailed, ExternalAccount, Obtained
from tests.peers.lego import Lego

pytestmark = pytest.mark.peers

RACERS = 8
"""Accounts that ask for one single-use key at once."""


@pytest.fixture(scope="module")
def trusting(tmp_path_factory: pytest.TempPathFactory, name_server: Bind) -> Iterator[Trusting]:
    """A broker that knows its requesters."""
    with ExitStack() as stack:
        yield Trusting(tmp_path_factory.mktemp("trusting"), stack, name_server)


def fresh(zone: str = WEB_ZONE) -> str:
    """Return a name that no other test uses."""
    return f"h{secrets.token_hex(4)}.{zone}"


async def bound(requester: Requester, key: ExternalAccount) -> Requester:
    """Register *requester* with the binding *key*."""
    answer = await requester.bind(key.kid, key.hmac_b64url)
    assert answer.status == 201, answer.body
    return requester


async def proofs_of(trusting: Trusting, name: str) -> list[str]:
    """Return how each authorization of the newest order for *name* was come by."""
    orders = await trusting.operator.ask("order_list")
    order_id = next(order["order"] for order in orders if name in order["names"])
    shown = await trusting.operator.ask("order_show", order_id=order_id)
    return [one["proof"] for one in shown["authorizations"]]


async def obtain(client: Certbot | Lego, names: list[str], port: int, profile: str) -> Obtained:
    """Have a stock client ask for *names* by http-01, which it will not need."""
    if isinstance(client, Certbot):
        options = ["--preferred-profile", profile]
        return await client.certonly_standalone(names, http_port=port, options=options)
    return await client.run_http(names, http_port=port, options=["--profile", profile])


# ------------------------------------------------------------------------------ stock clients


@pytest.mark.parametrize("program", [Certbot, Lego])
@pytest.mark.parametrize(
    ("profile", "zone", "has_wildcard"),
    [
        pytest.param("public", WEB_ZONE, False, id="pebble-http-01"),
        pytest.param("public", DNS_ZONE, True, id="pebble-dns-01-wildcard"),
        pytest.param("inner", WEB_ZONE, True, id="built-in"),
    ],
)
async def test_stock_client_gets_names_without_a_challenge(
    trusting: Trusting,
    tmp_path: Path,
    program: type[Certbot] | type[Lego],
    profile: str,
    zone: str,
    has_wildcard: bool,
) -> None:
    """A client with a binding is asked for nothing; what the CA asks, Penstock answers."""
    name = fresh(zone)
    names = [name, f"*.{name}"] if has_wildcard else [name]
    url, bundle = trusting.penstock.directory_url, trusting.penstock.ca_bundle
    client = program(tmp_path, url, bundle, external_account=trusting.keys["farm"])
    # A port that is not the broker's: an answer that is put there would never be seen.
    obtained = await obtain(client, names, trusting.client_port + 1, profile)
    assert obtained.names() == sorted(names)
    assert await proofs_of(trusting, name) == ["policy"] * len(names)
    at_pebble = [int(one.serial_hex, 16) for one in trusting.pebble.issued()]
    built_in = trusting.penstock.ca_serials()
    issued = at_pebble if profile == "public" else built_in
    assert obtained.leaf().serial_number in issued


async def test_same_name_without_a_binding_needs_a_challenge(trusting: Trusting) -> None:
    """What policy grants to some is granted to nobody else."""
    async with trusting.requester() as stranger, trusting.requester() as known:
        await stranger.register()
        ordered = (await stranger.order(fresh(), profile="inner")).json()
        assert ordered["status"] == "pending"
        (url,) = ordered["authorizations"]
        authorization = (await stranger.post(url)).json()
        assert authorization["status"] == "pending"
        assert {one["type"] for one in authorization["challenges"]} == {"http-01", "dns-01"}

        await bound(known, trusting.keys["farm"])
        ordered = (await known.order(fresh(), profile="inner")).json()
        assert ordered["status"] == "ready"
        (url,) = ordered["authorizations"]
        assert (await known.post(url)).json()["status"] == "valid"


async def test_declared_key_works_and_is_kept_nowhere(trusting: Trusting) -> None:
    """A key by reference binds as a minted one does, and its octets stay out of the store."""
    async with trusting.requester() as requester:
        await bound(requester, trusting.keys[DECLARED])
        placed = await requester.request(fresh(), profile="inner")
        assert await placed.settled() == "valid"
    listed = {key["key_id"]: key for key in trusting.penstock.json("eab", "list")}
    assert DECLARED in listed
    assert "mac_key" not in listed[DECLARED]
    mac = base64.urlsafe_b64decode(trusting.declared_mac + "=")
    kept = b"".join(
        path.read_bytes() for path in trusting.penstock.state.rglob("*") if path.is_file()
    )
    assert mac not in kept
    assert trusting.declared_mac.encode() not in kept
    assert trusting.declared_mac not in trusting.penstock.log_text()


# ------------------------------------------------------------------------------------ limits


@pytest.mark.parametrize(
    ("key", "name", "profile", "problem", "sentence"),
    [
        pytest.param(
            "narrow", f"other.{WEB_ZONE}", "inner", "rejectedIdentifier",
            "is outside the names of EAB key", id="name-outside-the-key",
        ),
        pytest.param(
            "narrow", f"*.{WEB_ZONE}", "inner", "rejectedIdentifier",
            "is outside the names of EAB key", id="wildcard-outside-the-key",
        ),
        pytest.param(
            "narrow", NARROW_NAME, "public", "unauthorized",
            "is outside the profiles of EAB key", id="profile-outside-the-key",
        ),
        pytest.param(
            "farm", "www.example.org", "inner", "rejectedIdentifier",
            "is allowed by no rule", id="name-outside-the-policy",
        ),
        pytest.param(
            "farm", "*.co.uk", "inner", "rejectedIdentifier",
            "covers a whole public suffix", id="public-suffix",
        ),
        pytest.param(
            "lab", f"h.{WEB_ZONE}", "server", "rejectedIdentifier",
            "is allowed by no rule", id="name-of-another-community",
        ),
    ],
)  # fmt: skip
async def test_trust_ends_at_its_limits(
    trusting: Trusting, key: str, name: str, profile: str, problem: str, sentence: str
) -> None:
    """A key's names and profiles, and the policy's, bind a trusted requester as well."""
    async with trusting.requester(LAB if key == "lab" else "default") as requester:
        await bound(requester, trusting.keys[key])
        refused = await requester.order(name, profile=profile)
        assert refused.status in (400, 403)
        assert refused.problem == problem
        assert sentence in refused.body.decode()


async def test_within_its_limits_a_narrow_key_is_trusted(trusting: Trusting) -> None:
    """The same key gets the name and the profile that it is limited to."""
    async with trusting.requester() as requester:
        await bound(requester, trusting.keys["narrow"])
        placed = await requester.request(NARROW_NAME, profile="inner")
        assert await placed.settled() == "valid"


async def test_stock_client_is_told_of_the_limit(trusting: Trusting, tmp_path: Path) -> None:
    """The sentence reaches whoever runs a stock client."""
    url, bundle = trusting.penstock.directory_url, trusting.penstock.ca_bundle
    for program in (Certbot, Lego):
        client = program(
            tmp_path / program.__name__, url, bundle, external_account=trusting.keys["narrow"]
        )
        with pytest.raises(ClientFailed, match="is outside the names of EAB key"):
            await obtain(client, [fresh()], trusting.client_port, "inner")


# --------------------------------------------------------------------------- revoked and used up


async def test_revoked_key_orders_nothing_more(trusting: Trusting) -> None:
    """After `eab revoke` neither new accounts nor new orders nor open orders go on."""
    key = trusting.keys["doomed"]
    async with trusting.requester() as requester, trusting.requester() as late:
        await bound(requester, key)
        kept = await requester.request(fresh(), profile="inner")
        assert await kept.settled() == "valid"
        name = fresh()
        opened = (await requester.order(name, profile="inner")).json()
        assert opened["status"] == "ready"

        revoked = await asyncio.to_thread(
            trusting.penstock.json, "eab", "revoke", key.kid, "--reason", "it was lost"
        )
        assert revoked["revoked"] is not None

        refused = await requester.order(fresh(), profile="inner")
        assert (refused.status, refused.problem) == (403, "unauthorized")
        assert "has been revoked" in refused.json()["detail"]
        refused = await requester.finalize(opened, make_csr([name]))
        assert (refused.status, refused.problem) == (403, "unauthorized")
        answer = await late.bind(key.kid, key.hmac_b64url)
        assert (answer.status, answer.problem) == (403, "unauthorized")
        # What it had is still its own: to look at, and to revoke.
        leaf = (await kept.chain())[0]
        revocation = {"certificate": b64(leaf.public_bytes(Encoding.DER))}
        answer = await requester.post(requester.directory["revokeCert"], revocation)
        assert answer.status == 200


async def test_single_use_key_binds_one_of_many(trusting: Trusting) -> None:
    """However many accounts present a single-use key at once, one of them is bound."""
    for _ in range(3):
        made = await trusting.operator.ask("eab_mint", label="once")
        async with RacingRequesters(trusting) as racers:
            answers = await asyncio.gather(
                *(racer.bind(made["key_id"], made["mac_key"]) for racer in racers)
            )
        assert Counter(one.status for one in answers) == {201: 1, 403: RACERS - 1}
        assert {one.problem for one in answers if one.status == 403} == {"unauthorized"}
        keys = await trusting.operator.ask("eab_list", community="default")
        (key,) = [one for one in keys if one["key_id"] == made["key_id"]]
        winner = next(one for one in answers if one.status == 201)
        assert key["account"] == winner.headers["Location"].rpartition("/")[2]


class RacingRequesters:
    """Several raw clients that are opened and closed together."""

    def __init__(self, trusting: Trusting) -> None:
        self._racers = [trusting.requester() for _ in range(RACERS)]

    async def __aenter__(self) -> list[Requester]:
        return [await racer.__aenter__() for racer in self._racers]

    async def __aexit__(self, *reason: Any) -> None:
        for racer in self._racers:
            await racer.__aexit__(*reason)


async def test_wrong_mac_and_unknown_key_get_the_same_answer(trusting: Trusting) -> None:
    """Nobody learns by asking which key ids exist, and a right key works afterwards."""
    wrong = replace(trusting.keys["farm"], hmac_b64url=trusting.keys["narrow"].hmac_b64url)
    unknown = ExternalAccount("eab-0000000000000000", wrong.hmac_b64url)
    answers = []
    async with trusting.requester() as requester:
        for key in (wrong, unknown):
            answer = await requester.bind(key.kid, key.hmac_b64url)
            answers.append((answer.status, answer.json()["type"], answer.json()["detail"]))
        assert answers[0] == answers[1]
        assert answers[0][0] == 403
        await bound(requester, trusting.keys["farm"])


# -------------------------------------------------------------------------------- communities


async def test_community_that_requires_a_binding_refuses_accounts_without(
    trusting: Trusting,
) -> None:
    """What the directory says of bindings is meant; with a key all goes well."""
    async with trusting.requester(LAB) as requester:
        assert requester.directory["meta"]["externalAccountRequired"] is True
        refused = await requester.register()
        assert (refused.status, refused.problem) == (403, "externalAccountRequired")
        await bound(requester, trusting.keys["lab"])
        placed = await requester.request(fresh(LAB_ZONE))
        assert await placed.settled() == "valid"


async def test_communities_share_nothing(trusting: Trusting) -> None:
    """Accounts, keys and certificates of one community are unknown in the other."""
    async with trusting.requester() as home, trusting.requester(LAB) as away:
        assert home.directory["newOrder"] != away.directory["newOrder"]
        foreign = await away.bind(trusting.keys["farm"].kid, trusting.keys["farm"].hmac_b64url)
        assert (foreign.status, foreign.problem) == (403, "unauthorized")

        await bound(home, trusting.keys["farm"])
        placed = await home.request(fresh(), profile="inner")
        assert await placed.settled() == "valid"
        leaf = (await placed.chain())[0].public_bytes(Encoding.DER)

        away.key, away.account_url = home.key, home.account_url
        refused = await away.order(fresh(LAB_ZONE))
        assert (refused.status, refused.problem) == (400, "accountDoesNotExist")
        away.account_url = None
        answer = await away.register(onlyReturnExisting=True)
        assert (answer.status, answer.problem) == (400, "accountDoesNotExist")
        # The same key may have an account of its own here, and that one owns nothing there.
        await bound(away, trusting.keys["lab"])
        assert away.account_url != home.account_url
        for url in (placed.url, placed.order["certificate"]):
            answer = await away.post(url)
            assert answer.status in (400, 403, 404)
            answer = await away.post(url.replace("/acme/default/", f"/acme/{LAB}/"))
            assert (answer.status, answer.problem) == (404, "malformed")
        revoked = await away.post(away.directory["revokeCert"], {"certificate": b64(leaf)})
        assert (revoked.status, revoked.problem) == (403, "unauthorized")
        assert (await home.post(placed.url)).status == 200


async def test_default_community_has_two_directories(trusting: Trusting) -> None:
    """`/acme/directory` and `/acme/default/directory` are the same community."""
    async with trusting.requester() as named:
        short = await named.get(trusting.penstock.directory_url)
        assert short.json() == named.directory
        unknown = await named.get(trusting.directory_of("nowhere"))
        assert (unknown.status, unknown.problem) == (404, "malformed")


# -------------------------------------------------------------------------------- revocation


async def test_only_proved_control_confers_the_right_to_revoke(
    trusting: Trusting, tmp_path: Path
) -> None:
    """A name that policy gave away revokes nobody else's certificate; a challenge's proof does."""
    name = fresh()
    url, bundle = trusting.penstock.directory_url, trusting.penstock.ca_bundle
    owner = Lego(tmp_path / "owner", url, bundle, external_account=trusting.keys["farm"])
    held = await obtain(owner, [name], trusting.client_port, "inner")

    granted = Certbot(tmp_path / "granted", url, bundle, external_account=trusting.keys["farm"])
    await obtain(granted, [name], trusting.client_port, "inner")
    assert await proofs_of(trusting, name) == ["policy"]
    with pytest.raises(ClientFailed):
        await granted.revoke(held)
    assert await revoked_at(trusting, held) is None

    prover = Certbot(tmp_path / "prover", url, bundle)
    await obtain(prover, [name], trusting.client_port, "inner")
    assert await proofs_of(trusting, name) == ["challenge"]
    await prover.revoke(held)
    assert await revoked_at(trusting, held) is not None


async def revoked_at(trusting: Trusting, obtained: Obtained) -> Any:
    """Return when the broker says that a certificate was revoked, or None."""
    fingerprint = obtained.leaf().fingerprint(hashes.SHA256()).hex()
    shown = await trusting.operator.ask("cert_show", certificate=fingerprint)
    return shown["revoked"]
