"""Secrets stay where they are: a canary in each, looked for in all that leaves the broker."""

import base64
import contextlib
import json
import re
import secrets
import sqlite3
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest

from tests.deployments.penstock import AcmeCa
from tests.e2e.front_door import COMMUNITIES, FARM_KEYS, PROVABLE, FrontDoor, running
from tests.e2e.requester import (
    JOSE,
    Client,
    Reply,
    Wire,
    binding,
    check_refusal,
    fresh_name,
    members,
    sealed,
    target_of,
    thumbprint,
)
from tests.fakes.hostile_ca import Behaviour, HostileCaProcess, Script
from tests.peers import process
from tests.peers.client import DnsUpdates
from tests.unit.protocol.builders import b64url, jwk_json, make_csr, private_key

pytestmark = pytest.mark.e2e

TROUBLE_SECONDS = 60.0
"""Longest wait for something to go wrong at an upstream, so that it is written about."""


class Listening(Wire):
    """A connection that remembers every answer."""

    heard: list[Reply]

    def send(
        self,
        method: str,
        target: str,
        body: bytes | None = None,
        headers: Sequence[tuple[str, str]] = (),
    ) -> Reply:
        """Send one request and keep its answer."""
        reply = super().send(method, target, body, headers)
        self.heard.append(reply)
        return reply


@dataclass
class Secrets:
    """Every secret that there is, by what it is."""

    values: dict[str, bytes] = field(default_factory=dict)

    def keep(self, what: str, value: bytes | str) -> None:
        """Remember a secret."""
        octets = value.encode() if isinstance(value, str) else value
        assert len(octets) >= 12, what
        self.values[what] = octets

    def found_in(self, text: bytes) -> set[str]:
        """Return which secrets stand in a text, as they are or in a usual encoding."""
        lower = text.lower()
        return {
            what
            for what, value in self.values.items()
            if any(form in text for form in forms(value)) or value.hex().encode() in lower
        }


def forms(value: bytes) -> set[bytes]:
    """Return a value as it is, in base64 wherever it may begin there, and as JSON writes it."""
    found = {value}
    for before in range(3):
        for encode in (base64.b64encode, base64.urlsafe_b64encode):
            # What the neighbours of a value can change is left out at both ends.
            encoded = encode(b"\x00" * before + value).rstrip(b"=")
            found.add(encoded[(before * 8 + 5) // 6 + (before > 0) : -2])
    with contextlib.suppress(UnicodeDecodeError):
        found.add(json.dumps(value.decode())[1:-1].encode())
    return found


@dataclass
class Watched:
    """A broker that writes all it can, in front of a CA whose challenges cannot be answered."""

    door: FrontDoor
    ca: HostileCaProcess
    secrets: Secrets
    wire: Listening

    def texts(self) -> dict[str, bytes]:
        """Return everything that leaves the broker, by where it stands."""
        penstock = self.door.penstock
        proc = Path(f"/proc/{penstock.pid}")
        events = penstock.rows("SELECT * FROM events")
        (order_id, *_), *_ = penstock.rows("SELECT order_id FROM orders WHERE csr_der IS NOT NULL")
        commands = (
            ("order", "list"), ("order", "show", order_id), ("account", "list"), ("eab", "list"),
            ("upstream", "list"), ("check",), ("audit", "status"), ("audit", "trace", order_id),
        )  # fmt: skip
        return {
            "log": penstock.log_file.read_bytes(),
            "metrics": penstock.metrics().encode(),
            "command line": (proc / "cmdline").read_bytes(),
            "environment": (proc / "environ").read_bytes(),
            "events": repr(events).encode(),
            "audit export": penstock.run("audit", "export").stdout.encode(),
            **{
                " ".join(command): json.dumps(penstock.json(*command)).encode()
                for command in commands
            },
        }


@pytest.fixture(scope="module")
def watched(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Watched]:
    """Start the broker with a canary in every secret, and let things go wrong."""
    folder = tmp_path_factory.mktemp("watched")
    known = Secrets()
    tsig, upstream_mac = secrets.token_bytes(32), secrets.token_bytes(32)
    known.keep("TSIG secret", tsig)
    known.keep("upstream's MAC key", upstream_mac)
    known.keep("passphrase", "a passphrase for tests")
    for community, key in FARM_KEYS.items():
        known.keep(f"MAC key of {community}", key)
    script = Script(
        standing=Behaviour(challenge_types=("dns-01",), authorizations_valid=False),
        external_accounts={"kid-1": b64url(upstream_mac)},
    )
    with HostileCaProcess(folder / "ca", script) as ca:
        nobody = DnsUpdates(
            "127.0.0.1", process.free_port(), "update-key", base64.b64encode(tsig).decode()
        )
        upstream = AcmeCa(
            name="elsewhere",
            directory_url=ca.directory_url,
            ca_bundle=ca.ca_bundle,
            facts={"max_lifetime": "40d", "default_lifetime": "40d", "is_ct_logged": False},
            external_account=("kid-1", b64url(upstream_mac)),
            dns_01=nobody,
            dns_01_zone="example.test",
            http_01=False,
            options={"communities": list(COMMUNITIES)},
        )
        profiles = {
            name: {
                "description": f"Certificates from {upstream_name}",
                "cap": "47d",
                "usages": ["server-auth"],
                "upstreams": [{"upstream": upstream_name}],
            }
            for name, upstream_name in (("server", "local"), ("elsewhere", "elsewhere"))
        }
        more = {"log": {"level": "debug"}}
        options = {"upstreams": [upstream], "profiles": profiles, "more": more}
        limits = {"finalize_wait": "200ms"}
        with running(folder / "broker", limits=limits, **options) as door:
            wire = Listening(door.penstock)
            wire.heard = []
            made = Watched(door, ca, known, wire)
            busy(made)
            yield made
            wire.close()


def busy(watched: Watched) -> None:
    """Do everything that a secret is needed for, rightly and wrongly."""
    door, known = watched.door, watched.secrets
    client = Client(watched.wire, door.client().base)
    assert client.register(mac_key=FARM_KEYS["default"]).status == 201
    minted = door.penstock.json("eab", "mint", "--label", "hello")
    (mac_key,) = [value for name, value in minted.items() if "mac" in name or "hmac" in name]
    known.keep("MAC key minted", base64.urlsafe_b64decode(mac_key + "=" * (-len(mac_key) % 4)))

    key = private_key("ES256", "watched")
    name = fresh_name()
    _, order = client.new_order(name)
    csr_der = make_csr([name], key=key)
    known.keep("CSR", csr_der[40:-40])
    assert client.finalize(order, csr_der).json()["status"] == "valid"
    bad = make_csr([name, "evil.example"], key=private_key("ES256", "bad"))
    known.keep("refused CSR", bad[-80:])
    _, again = client.new_order(name)
    assert client.finalize(again, bad).problem == "badCSR"
    prove_and_fail(watched, client)
    strangers(watched, client)
    stuck = client.order(fresh_name(), profile="elsewhere").json()
    client.finalize(stuck, make_csr([stuck["identifiers"][0]["value"]], key=key))
    process.wait_until(
        lambda: (
            re.search(
                r'penstock_upstream_errors_total\{[^}]*upstream="elsewhere"[^}]*\} [1-9]',
                door.penstock.metrics(),
            )
            is not None
        ),
        TROUBLE_SECONDS,
        "the upstream order runs into trouble",
    )


def prove_and_fail(watched: Watched, client: Client) -> None:
    """Answer one challenge rightly and one with a page that is nobody's business."""
    answers, known = watched.door.answers.key_authorizations, watched.secrets
    page = "this page is internal: " + secrets.token_hex(8)
    known.keep("page that was fetched", page)
    for number, is_right in enumerate((True, False)):
        _, order = client.new_order(PROVABLE[number])
        (url,) = order["authorizations"]
        challenges = client.post(url).json()["challenges"]
        (challenge,) = [one for one in challenges if one["type"] == "http-01"]
        for one in challenges:
            known.keep(f"token {number} of {one['type']}", one["token"])
        token = challenge["token"]
        answers[token] = f"{token}.{thumbprint(client.key)}" if is_right else page
        client.post(challenge["url"], {})
        due = "valid" if is_right else "invalid"
        process.wait_until(
            lambda url=url, due=due: client.post(url).json()["status"] == due,  # type: ignore[misc]
            60,
            f"the challenge is {due}",
        )


def strangers(watched: Watched, client: Client) -> None:
    """Send secrets where none belong: the broker must not repeat them."""
    known, wire = watched.secrets, watched.wire
    words = {what: f"canary-{secrets.token_hex(8)}" for what in ("header", "query", "text", "jws")}
    for what, word in words.items():
        known.keep(f"word in a {what}", word)
    sent = [("Authorization", f"Bearer {words['header']}"), ("Cookie", f"s={words['header']}"),
            ("User-Agent", words["header"]), ("X-Api-Key", words["header"])]  # fmt: skip
    wire.send("GET", f"/acme/directory?token={words['query']}", None, sent)
    wire.send("GET", f"/nowhere?token={words['query']}", None, sent)
    text = b'{"protected": "' + words["text"].encode()
    wire.send("POST", "/acme/default/new-order", text, [("Content-Type", JOSE)])
    url = client.url("new-account")
    key = private_key("ES256", "careless")
    known.keep("account's private key", private_octets(key))
    header = client.header(url, by_key=True)
    header["jwk"] = {**jwk_json(key), "d": b64url(private_octets(key))}
    body = sealed(header, b"{}", key)
    refused = wire.send("POST", target_of(url), body, [("Content-Type", JOSE)])
    check_refusal(refused, "malformed", 400, "private member 'd'")
    wrong = binding(url, client.key, b"not the MAC key")
    known.keep("MAC that does not verify", base64.urlsafe_b64decode(wrong["signature"] + "=="))
    stranger = Client(wire, client.base)
    wrong = binding(url, stranger.key, b"not the MAC key")
    payload = {"termsOfServiceAgreed": True, "externalAccountBinding": wrong}
    check_refusal(stranger.post(url, payload, by_key=True), "unauthorized", 403, "is refused")
    confided = json.dumps({"x": words["jws"]}).encode()
    good = members(client.header(client.kid or ""), confided, client.key)
    known.keep("signature", base64.urlsafe_b64decode(good["signature"] + "=="))
    body = json.dumps(good).encode()
    watched.wire.send("POST", target_of(client.kid or ""), body, [("Content-Type", JOSE)])


def private_octets(key: Any) -> bytes:
    """Return the number that only the owner of an EC key knows."""
    number: int = key.private_numbers().private_value
    return number.to_bytes(32, "big")


@pytest.fixture(scope="module")
def texts(watched: Watched) -> dict[str, bytes]:
    """What had left the broker when all was done."""
    return watched.texts()


def test_no_secret_leaves_the_broker(watched: Watched, texts: dict[str, bytes]) -> None:
    """Logs at their most talkative, metrics, events, commands, /proc: none holds a secret."""
    assert len(watched.secrets.values) >= 15
    leaks = {
        place: found for place, text in texts.items() if (found := watched.secrets.found_in(text))
    }
    assert leaks == {}


def test_no_secret_is_in_any_refusal(watched: Watched) -> None:
    """What a client sent in confidence does not come back, nor does anybody else's."""
    refusals = [reply for reply in watched.wire.heard if reply.status >= 400]
    assert len(refusals) >= 5
    for reply in refusals:
        text = reply.body + repr(reply.headers).encode()
        assert watched.secrets.found_in(text) == set(), text
    everything = b"".join(reply.body for reply in watched.wire.heard)
    allowed = {what for what in watched.secrets.values if what.startswith("token ")}
    assert watched.secrets.found_in(everything) <= allowed


def test_the_sweep_finds_what_is_there(watched: Watched, texts: dict[str, bytes]) -> None:
    """The twin: ids, names and fingerprints are found in these same places."""
    account_id = watched.door.penstock.rows("SELECT account_id FROM accounts")[0][0].encode()
    for place in ("log", "events", "account list", "order list"):
        assert account_id in texts[place]
    assert b"penstock_orders_total" in texts["metrics"]
    assert b"serve" in texts["command line"]
    for value in watched.secrets.values.values():
        for shown in (value, base64.b64encode(b"xy" + value), b64url(b"x" + value).encode()):
            assert watched.secrets.found_in(b"..." + shown + b"...")
        assert watched.secrets.found_in(value.hex().upper().encode())


def test_keys_at_rest_are_encrypted(watched: Watched) -> None:
    """Account keys, CA keys and the listener's own TLS key need the passphrase."""
    state = watched.door.penstock.state
    kinds = {}
    for path in state.rglob("*"):
        content = path.read_bytes() if path.is_file() else b""
        assert b"a passphrase for tests" not in content
        for kind in re.findall(rb"-----BEGIN ([A-Z ]*PRIVATE KEY)-----", content):
            kinds[path.relative_to(state)] = kind
        if content and not content.startswith(b"-----BEGIN CERTIFICATE-----"):
            assert path.stat().st_mode & 0o077 == 0, path
    assert Path("tls/tls.key") in kinds
    assert len(kinds) >= 6
    assert set(kinds.values()) == {b"ENCRYPTED PRIVATE KEY"}
    assert state.stat().st_mode & 0o077 == 0


def test_failure_of_the_store_leaks_no_text(watched: Watched) -> None:
    """A trigger makes the store fail: the client hears of an incident, the log of its reason."""
    door = watched.door
    client = Client(watched.wire, door.client().base)
    assert client.register(mac_key=FARM_KEYS["default"]).status == 201
    said = f"canary-{secrets.token_hex(8)}"
    refuse = (
        f"CREATE TRIGGER canary BEFORE INSERT ON orders BEGIN SELECT raise(ABORT, '{said}'); END"
    )
    with contextlib.closing(sqlite3.connect(door.penstock.database, timeout=10)) as db:
        db.execute(refuse)
        db.commit()
        try:
            reply = client.order(fresh_name())
        finally:
            db.execute("DROP TRIGGER canary")
            db.commit()
    assert reply.status in {500, 503}
    assert reply.problem == "serverInternal"
    assert said not in reply.body.decode()
    assert "trigger" not in reply.body.decode().lower()
    assert "Traceback" not in reply.body.decode()
    assert reply.nonce
    assert client.order(fresh_name()).status == 201
