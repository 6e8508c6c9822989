"""Nodes at a whole broker: they come, are told, are revoked at once, and are never locked out."""

import asyncio
import contextlib
import datetime
import http.client
import json
import secrets
import sqlite3
import ssl
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.serialization import Encoding

from agents import wire
from broker.clock import SystemClock
from tests.deployments.nodes import NodesPenstock, PlainAgent
from tests.deployments.operator import Operator
from tests.peers import process

pytestmark = pytest.mark.e2e

UNAUTHORIZED = "urn:ietf:params:acme:error:unauthorized"


class Place:
    """A running broker, and agents at it."""

    def __init__(self, folder: Path, **options: Any) -> None:
        self.folder = folder
        self.penstock = NodesPenstock(folder, **options)

    def ask(self, command: str, **arguments: Any) -> Any:
        """Have an operator's command done."""
        return asyncio.run(
            Operator(self.penstock.state / "operator.sock").ask(command, **arguments)
        )

    def token(self, node: str, **arguments: Any) -> str:
        """Mint a token."""
        made: str = self.ask("node_token", node=node, **arguments)["token"]
        return made

    def stranger(self, name: str) -> PlainAgent:
        """Return an agent that nobody knows."""
        return PlainAgent(self.penstock.agents_url, self.penstock.ca_bundle, self.folder, name)

    def agent(self, name: str | None = None, **arguments: Any) -> PlainAgent:
        """Return an agent that is let in."""
        agent = self.stranger(name or f"node-{secrets.token_hex(4)}")
        status, answer = agent.enrol(method="token", credential=self.token(agent.name, **arguments))
        assert status == 200, answer
        return agent

    def events(self, kind: str) -> list[dict[str, Any]]:
        """Return the data of the events of a kind, read past the broker."""
        path = f"file:{self.penstock.database}?mode=ro"
        with contextlib.closing(sqlite3.connect(path, uri=True)) as database:
            rows = database.execute("SELECT data FROM events WHERE kind = ?", (kind,)).fetchall()
        return [json.loads(data) for (data,) in rows]


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Place]:
    """A broker for all tests here that leave it as it is."""
    made = Place(tmp_path_factory.mktemp("nodes"), agents={"connections": 40})
    with made.penstock:
        yield made


def stated(*, certificates: list[dict[str, Any]] | None = None) -> wire.Message:
    """Return what an agent states."""
    body = {"instance": "i", "agent": "9.9", "certificates": certificates or []}
    return wire.Message(secrets.token_hex(8), "stated", body)


# ----------------------------------------------------------------------------------------- joining


def test_token_is_good_for_one_node_and_stolen_ones_look_unknown(place: Place) -> None:
    """By a real TLS connection; nothing of the answer tells which tokens exist."""
    token = place.token("one.example.test", owner="web")
    assert place.stranger("one.example.test").enrol(method="token", credential=token)[0] == 200
    stolen = place.stranger("one.example.test").enrol(method="token", credential=token)
    unknown = place.stranger("one.example.test").enrol(method="token", credential="pnst_x")
    assert stolen == unknown
    assert (stolen[0], stolen[1]["type"]) == (403, UNAUTHORIZED)
    assert place.events("enrolment-refused")


def test_person_lets_a_node_in(place: Place) -> None:
    """It waits, is approved with what it may have, and comes in when it asks again."""
    agent = place.stranger("waiting.example.test")
    status, answer = agent.enrol(method="approval", facts={"hostname": "w"})
    assert (status, answer["retry_seconds"] > 0) == (202, True)
    (waiting,) = [one for one in place.ask("node_requests") if one["node"] == agent.name]
    assert (waiting["key"], waiting["request"]) == (answer["fingerprint"], answer["request"])
    place.ask("node_approve", request_id=answer["request"], owner="mail team")
    assert agent.enrol(method="approval", request=answer["request"])[0] == 200
    assert place.ask("node_show", node=agent.name)["owner"] == "mail team"
    denied = place.stranger("denied.example.test")
    request = denied.enrol(method="approval")[1]["request"]
    place.ask("node_deny", request_id=request)
    assert denied.enrol(method="approval")[0] == 403


def test_identity_is_renewed_and_both_are_good(place: Place) -> None:
    """An answer that is lost costs nothing."""
    agent = place.agent()
    first = agent.chain_pem
    assert agent.renew()[0] == 200
    assert agent.chain_pem != first
    assert agent.poll()[0] == 200
    agent.chain_pem = first
    assert agent.poll()[0] == 200


# ------------------------------------------------------------------------------------------ who is


@pytest.mark.parametrize("path", ["messages", "stream", "identity"])
def test_nobody_is_served_without_an_identity(place: Place, path: str) -> None:
    """Neither by asking nor by posting; each attempt is on record."""
    stranger = place.stranger("nobody.example.test")
    before = len(place.events("node-request-refused"))
    method = "POST" if path == "identity" else "GET"
    status, answer = stranger.ask(method, path, {"version": "1.0"} if method == "POST" else None)
    assert (status, answer["type"]) == (403, UNAUTHORIZED)
    process.wait_until(
        lambda: len(place.events("node-request-refused")) > before, 60, "no refusal on record"
    )


def test_certificate_of_another_ca_is_no_identity(place: Place) -> None:
    """TLS refuses what the node CA did not sign."""
    agent = place.agent()
    now = SystemClock().now()
    leaf = x509.load_pem_x509_certificate((agent.chain_pem or "").encode())
    forged = (
        x509.CertificateBuilder(issuer_name=leaf.issuer, subject_name=leaf.subject)
        .public_key(agent.key.public_key())
        .serial_number(leaf.serial_number)
        .not_valid_before(now - datetime.timedelta(hours=1))
        .not_valid_after(now + datetime.timedelta(days=1))
    )
    for extension in leaf.extensions:
        forged = forged.add_extension(extension.value, critical=extension.critical)
    agent.chain_pem = forged.sign(agent.key, hashes.SHA256()).public_bytes(Encoding.PEM).decode()
    with pytest.raises((ssl.SSLError, ConnectionError)):
        agent.poll()


# ------------------------------------------------------------------------------------ signed mode


def test_signed_requests_are_served_once_each(place: Place) -> None:
    """Where a load balancer has ended TLS; a replay is refused and on record."""
    agent = place.agent()
    agent.is_signing = True
    # What is signed within the second of the start might be from before it.
    process.wait_until(lambda: agent.poll()[0] == 200, 60, "the agent was not served")
    assert agent.post(stated())[0] == 200
    assert agent.renew()[0] == 200
    batch = wire.Batch(wire.VERSION, 0, (stated(),)).encode()
    headers = agent.signed("POST", "messages", batch)
    first = agent.ask_raw("POST", "messages", batch, headers=headers)
    again = agent.ask_raw("POST", "messages", batch, headers=headers)
    assert (first[0], again[0]) == (200, 403)
    told = place.events("node-request-refused")[-1]
    assert agent.fingerprint in told["signature"]


def test_signature_with_a_wrong_clock_is_told_to_sign_anew(place: Place) -> None:
    """A clock that is days off gets a word of its own, and nothing is believed."""
    agent = place.agent()
    agent.is_signing = True
    headers = agent.signed("GET", "messages", b"", created=1_700_000_000)
    status, answer = agent.ask_raw("GET", "messages", headers=headers)
    assert status == 401
    assert answer["type"].endswith("stale-signature")


def test_signature_for_one_request_is_none_for_another(place: Place) -> None:
    """Path and body are covered."""
    agent = place.agent()
    agent.is_signing = True
    process.wait_until(lambda: agent.poll()[0] == 200, 60, "signatures were not taken")
    headers = agent.signed("POST", "messages", b"{}")
    assert agent.ask_raw("POST", "identity", b"{}", headers=headers)[0] == 403


# --------------------------------------------------------------------------------------- messages


def test_batch_is_judged_message_by_message(place: Place) -> None:
    """A kind from the future is kept, a misfit refused for good, its neighbours are taken in."""
    agent = place.agent()
    future = wire.Message("m-future", "teleport", {"to": "mars"})
    misfit = {"id": "m-misfit", "kind": "receipt", "body": {"delivery": 7}}
    foreign = wire.Message(
        "m-foreign", "csr",
        {"delivery": "of-another", "certificate": "x", "csr_der": wire.encode_bytes(b"x")},
    )  # fmt: skip
    body = json.loads(wire.Batch(wire.VERSION, 0, (stated(), future, foreign)).encode())
    body["messages"].append(misfit)
    status, reply = agent.ask("POST", "messages", body)
    assert status == 200
    assert "m-future" in reply["accepted"]
    refused = {one["id"]: one["is_final"] for one in reply["refused"]}
    assert refused["m-misfit"] is True
    shown = place.ask("node_show", node=agent.name)
    assert (shown["agent_version"], shown["wire_version"]) == ("9.9", "1.0")


@pytest.mark.parametrize(
    ("body", "status"),
    [
        (b"no json", 400),
        (b"[]", 400),
        (b'{"version":"9.0","messages":[]}', 400),
        (b'{"version":"1.0","ack":-1}', 400),
        (json.dumps({"version": "1.0", "messages": [{}] * 300}).encode(), 400),
        (b" " * (wire.MAX_BATCH_BYTES + 1), 413),
        (b"[" * 100_000, 400),
    ],
    ids=["text", "list", "version", "ack", "many", "large", "deep"],
)
def test_unreadable_batch_is_refused(place: Place, body: bytes, status: int) -> None:
    """In our own words, within our own bounds."""
    assert place.agent().ask_raw("POST", "messages", body)[0] == status


def next_event(stream: http.client.HTTPResponse) -> dict[str, Any]:
    """Return the next message of a stream, past its beats."""
    while line := stream.readline():
        if line.startswith(b"data: "):
            told: dict[str, Any] = json.loads(line[6:])
            return told
    raise ConnectionResetError("the stream ended")


def test_message_is_sent_until_it_is_acknowledged(place: Place) -> None:
    """By the stream and by a poll, at once and again after a gap; then never again."""
    agent = place.agent()
    odd = [{"name": "odd", "names": ["not a name"], "key_kind": "ec-p256"}]
    with agent.streaming() as stream:
        assert stream.readline() == b": beat\n"
        assert agent.post(stated(certificates=odd))[0] == 200
        told = next_event(stream)
    assert (told["kind"], told["body"]["certificate"]) == ("refused", "odd")
    message = wire.parse_message(told)
    with agent.streaming() as stream:
        assert next_event(stream)["id"] == message.id
    (again,) = agent.poll()[1]["messages"]
    assert again["id"] == message.id
    assert agent.post(ack=message.seq)[0] == 200
    assert agent.poll()[1]["messages"] == []
    assert agent.poll(after=message.seq)[1]["messages"] == []


# ---------------------------------------------------------------------------------------- revoking


def test_revoked_node_is_cut_off_at_once(place: Place) -> None:
    """While it is connected: the stream ends, and neither way of being believed works."""
    agent = place.agent()
    with agent.streaming() as stream:
        assert stream.readline() == b": beat\n"
        assert place.ask("node_show", node=agent.name)["connected"] is True
        place.ask("node_revoke", node=agent.name)
        assert has_been_cut(stream)
    assert agent.poll()[0] == 403
    agent.is_signing = True
    # What was signed in the second in which the broker started may be older than it.
    process.wait_until(lambda: agent.poll()[0] != 401, 60, "signatures were not taken")
    assert agent.poll()[0] == 403
    assert agent.enrol(method="former")[0] == 403
    agent.is_signing = False  # nobody signs who shows a token
    token = place.token(agent.name)
    assert agent.enrol(method="token", credential=token)[0] == 403
    successor = place.stranger(agent.name)
    assert successor.enrol(method="token", credential=token)[0] == 200


def has_been_cut(stream: http.client.HTTPResponse) -> bool:
    """Read to the end, and return whether that came without the stream's own last word."""
    try:
        stream.read()
    except (ConnectionError, http.client.IncompleteRead):
        return True
    return False


def test_newest_connection_of_a_node_wins(place: Place) -> None:
    """The older one ends in order."""
    agent = place.agent()
    with agent.streaming() as older:
        assert older.readline() == b": beat\n"
        with agent.streaming() as newer:
            assert newer.readline() == b": beat\n"
            assert older.read() == b"\n"
            assert place.ask("node_show", node=agent.name)["connected"] is True


def test_connections_are_bounded(place: Place) -> None:
    """One more than may be is asked to come later, and comes when there is room."""
    agents = [place.agent() for _ in range(41)]
    with contextlib.ExitStack() as stack:
        streams = [stack.enter_context(agent.streaming()) for agent in agents[:40]]
        assert [stream.status for stream in streams] == [200] * 40
        with agents[40].streaming() as late:
            assert late.status == 503
            assert 10 <= int(late.headers["Retry-After"]) <= 20
        place.ask("node_revoke", node=agents[0].name)
        with agents[40].streaming() as late:
            assert late.status == 200


# ------------------------------------------------------------------------------ brokers that change


def test_restart_asks_agents_to_come_back_and_refuses_what_was_signed_before(
    tmp_path: Path,
) -> None:
    """An honest agent signs anew and is served."""
    place = Place(tmp_path)
    with place.penstock:
        agent = place.agent()
        agent.is_signing = True
        # What is signed within the second of the start might be from before it.
        process.wait_until(lambda: agent.poll()[0] == 200, 60, "the agent was not served")
        old = agent.signed("GET", "messages", b"")
        with agent.streaming() as stream:
            stream.readline()
            with ThreadPoolExecutor(1) as pool:
                reading = pool.submit(stream.read)
                place.penstock.stop()
                farewell = reading.result().decode()
        assert "event: goaway" in farewell
        assert "retry: " in farewell
        place.penstock.start()
        status, answer = agent.ask_raw("GET", "messages", headers=old)
        assert (status, answer["type"]) == (401, "urn:penstock:agent:stale-signature")
        process.wait_until(lambda: agent.poll()[0] == 200, 60, "the agent was not served again")


def test_nobody_is_locked_out_when_the_node_ca_rolls_over(tmp_path: Path) -> None:
    """One agent is away while another issuer takes over: its identity, of the one before, is good
    until it ends.  What comes after that is in test_agent_identities.py."""
    place = Place(tmp_path)
    with place.penstock:
        away, present = place.agent(), place.agent()
        for step in ("ca_rotate_prepare", "ca_rotate_activate"):
            place.ask(step, upstream="nodes")
        assert present.renew()[0] == 200
        newcomer = place.agent()
        for agent in (away, present, newcomer):
            assert agent.poll()[0] == 200
        place.penstock.stop()
        place.penstock.start()
        for agent in (away, present, newcomer):
            assert agent.poll()[0] == 200
        assert away.renew()[0] == 200


def test_agent_whose_identity_has_ended_comes_back_by_its_key(tmp_path: Path) -> None:
    """It shows no certificate, since that has ended, and signs with the key that it had."""
    place = Place(tmp_path, lifetime="4s", agents={"identity": {"return_within": "1h"}})
    with place.penstock:
        agent = place.agent()

        def has_ended() -> bool:
            try:
                return agent.poll()[0] != 200
            except (ssl.SSLError, ConnectionError):
                return True

        process.wait_until(has_ended, 60, "the identity did not end")
        node = place.ask("node_show", node=agent.name)["node_id"]
        status, answer = agent.enrol(method="former")
        assert (status, answer["node_id"]) == (200, node)
        assert agent.poll()[0] == 200


# ------------------------------------------------------------------------------------------ limits


def test_a_flood_of_strangers_is_refused_and_nodes_at_their_address_are_not(
    tmp_path: Path,
) -> None:
    """Whoever shows nothing, or something that nobody believes, is counted by address."""
    rates = {"limits": {"rates": {"agents": "6/10m", "nodes": "30/10m"}}}
    place = Place(tmp_path, **rates)
    with place.penstock:
        known, revoked = place.agent(), place.agent()
        place.ask("node_revoke", node=revoked.name, reason="a test")
        stranger = place.stranger("nobody.example.test")
        # Two have enrolled already.
        assert [stranger.poll()[0] for _ in range(2)] == [403] * 2
        assert [revoked.poll()[0] for _ in range(4)] == [403] * 2 + [429] * 2
        status, answer = stranger.poll()
        assert (status, answer["type"]) == (429, "urn:ietf:params:acme:error:rateLimited")
        assert stranger.enrol(method="approval")[0] == 429
        assert [known.poll()[0] for _ in range(20)] == [200] * 20
        assert known.renew()[0] == 200
        # A node in a loop has a bound of its own.
        assert [known.poll()[0] for _ in range(15)][-1] == 429
        for limit in ("agents", "nodes"):
            assert f'penstock_rate_limited_total{{limit="{limit}"}}' in place.penstock.metrics()


def test_a_signature_is_no_way_around_the_limit(tmp_path: Path) -> None:
    """Whoever asks to be let in by anything but a former identity gains nothing by signing."""
    place = Place(tmp_path, limits={"rates": {"agents": "4/10m"}})
    with place.penstock:
        agent = place.agent()  # which paid once
        body = {
            "version": str(wire.VERSION), "node": agent.name, "csr_der": agent.csr(),
            "method": "approval",
        }  # fmt: skip
        asked = [
            agent.ask("POST", "enrol", body, is_shown=False, is_signed=True)[0] for _ in range(4)
        ]
        assert asked == [400, 400, 400, 429]
        assert agent.enrol(method="former")[0] == 200
