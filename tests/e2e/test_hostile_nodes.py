"""Hostile nodes, a broker that lies, and one that is none: refused, recorded, and still served.

Attacks by requests alone are in test_nodes.py; here real agents have something to lose.
"""

from __future__ import annotations

import datetime
import secrets
import time
from collections.abc import AsyncIterator, Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import pytest

from agents import wire
from tests.deployments.node_agents import NodeAgent, TrustingPenstock, Wanted
from tests.deployments.nodes import PlainAgent
from tests.fakes.stand_in_broker import StandInBroker
from tests.peers import authority, process
from tests.simulator.behaviour import Behaviour
from tests.simulator.fleet import Fleet, certificate

pytestmark = pytest.mark.e2e

PATIENCE_SECONDS: Final = 120.0

NAME: Final = "www.example.test"

DAYS: Final = 86_400


def wait_for(is_so: Callable[[], Any], what: str) -> None:
    """Wait until another process has come that far."""
    process.wait_until(lambda: bool(is_so()), PATIENCE_SECONDS, what)


# --------------------------------------------------------------------------------- at a real broker


@pytest.fixture(scope="module")
def broker(tmp_path_factory: pytest.TempPathFactory) -> Iterator[TrustingPenstock]:
    """A broker that lets each node have names below its own."""
    home = tmp_path_factory.mktemp("hostile")
    with TrustingPenstock(home / "broker", names=["**.example.test"]) as made:
        yield made


def real_agent(broker: TrustingPenstock, home: Path, node: str, token: str) -> NodeAgent:
    """Return an agent that wants one certificate."""
    wanted = Wanted(name="www", names=[node], directory=home / "pair", expects=broker.ca_bundle)
    return NodeAgent(
        home / "agent",
        node,
        url=broker.agents_url,
        anchors=broker.ca_bundle,
        token=token,
        wanted=[wanted],
    )


def plain_agent(broker: TrustingPenstock, home: Path, node: str) -> PlainAgent:
    """Return an agent of few lines that is let in."""
    made = PlainAgent(broker.agents_url, broker.ca_bundle, home, node)
    status, answer = made.enrol(method="token", credential=broker.mint([node])[node])
    assert status == 200, answer
    return made


def stages(broker: TrustingPenstock, node: str) -> list[str]:
    """Return the stages of a node's deliveries."""
    rows = broker.rows(
        "SELECT d.stage FROM deliveries d JOIN nodes n ON n.node_id = d.node_id"
        " WHERE n.name = ? ORDER BY d.generation",
        node,
    )
    return [stage for (stage,) in rows]


def stating(name: str, *names: str) -> wire.Message:
    """Return what an agent states that wants one certificate."""
    body = {"instance": "i", "agent": "0.0"}
    one = {"name": name, "names": list(names), "key_kind": "ec-p256"}
    return wire.Message(secrets.token_hex(8), "stated", {**body, "certificates": [one]})


def test_stolen_token_lets_nobody_in_and_its_node_goes_on(
    broker: TrustingPenstock, tmp_path: Path
) -> None:
    """Whoever comes second is refused and recorded; the first is renewed as before."""
    node = "stolen.example.test"
    token = broker.mint([node])[node]
    with real_agent(broker, tmp_path / "owner", node, token) as owner:
        wait_for(lambda: stages(broker, node) == ["seen"], "the owner is served")
        refusals = len(broker.events("enrolment-refused"))
        with real_agent(broker, tmp_path / "thief", node, token):
            wait_for(
                lambda: len(broker.events("enrolment-refused")) > refusals, "the thief is refused"
            )
        assert not (tmp_path / "thief" / "pair" / "fullchain.pem").exists()
        broker.json("renew", node, "--reason", "after the theft")
        assert stages(broker, node) == ["seen", "seen"]
        assert owner.pid


def test_deliveries_of_another_node_cannot_be_touched(
    broker: TrustingPenstock, tmp_path: Path
) -> None:
    """Neither by a CSR, nor by a receipt, nor by giving up; and the delivery goes on."""
    victim = plain_agent(broker, tmp_path, "victim.example.test")
    thief = plain_agent(broker, tmp_path, "thief.example.test")
    assert victim.post(stating("www", "victim.example.test"))[0] == 200
    _, answer = victim.poll(wait=10)
    (asked,) = answer["messages"]
    delivery = asked["body"]["delivery"]
    about = {"delivery": delivery, "certificate": "www"}
    receipt = {"generation": 1, "stage": "seen", "fingerprint": "ab" * 32, "at": 0}
    attacks = [
        wire.Message("a-1", "csr", {**about, "csr_der": thief.csr()}),
        wire.Message("a-2", "receipt", {**about, **receipt}),
        wire.Message("a-3", "unable", {"delivery": delivery, "reason": "x", "is_final": True}),
    ]
    recorded = len(broker.events("node-request-refused"))
    status, reply = thief.post(*attacks)
    assert status == 200
    assert reply["accepted"] == []
    assert {one["is_final"] for one in reply["refused"]} == {True}
    unknown = wire.Message("a-4", "csr", {**about, "delivery": "0" * 32, "csr_der": thief.csr()})
    _, other = thief.post(unknown)
    # Nothing tells whether another node has such a delivery.
    assert other["refused"][0]["reason"] == reply["refused"][0]["reason"]
    wait_for(lambda: len(broker.events("node-request-refused")) > recorded, "it is recorded")
    assert stages(broker, "victim.example.test") == ["asked"]


def test_names_of_others_are_refused_and_its_own_are_not(
    broker: TrustingPenstock, tmp_path: Path
) -> None:
    """A node that states a name that is not its own is told so, and gets the other one."""
    agent = plain_agent(broker, tmp_path, "greedy.example.test")
    body = {"instance": "i", "agent": "0.0"}
    kind = {"key_kind": "ec-p256"}
    certificates = [
        {"name": "theirs", "names": ["www.example.org"], **kind},
        {"name": "own", "names": ["greedy.example.test"], **kind},
    ]
    message = wire.Message(secrets.token_hex(8), "stated", {**body, "certificates": certificates})
    assert agent.post(message)[0] == 200
    got: dict[str, str] = {}
    while len(got) < 2:
        _, answer = agent.poll(wait=10)
        for one in answer["messages"]:
            got[one["body"]["certificate"]] = one["kind"]
    assert got == {"theirs": "refused", "own": "want-csr"}


def test_revoked_node_is_cut_off_and_keeps_what_it_serves(
    broker: TrustingPenstock, tmp_path: Path
) -> None:
    """Its stream ends, it is let in no more, and its certificate lies where it lay."""
    node = "revoked.example.test"
    with real_agent(broker, tmp_path, node, broker.mint([node])[node]) as agent:
        wait_for(lambda: stages(broker, node) == ["seen"], "it is served")
        pair = agent.wanted[0].directory
        before = [(pair / one).read_bytes() for one in ("fullchain.pem", "privkey.pem")]
        broker.json("node", "revoke", node, "--reason", "a test")
        wait_for(
            lambda: "penstock_agent_connected 0" in agent.metrics(), "it notices that it is cut off"
        )
        assert [(pair / one).read_bytes() for one in ("fullchain.pem", "privkey.pem")] == before


def test_reload_that_fails_everywhere_touches_the_canaries_alone(tmp_path: Path) -> None:
    """Two hundred agents, of which none can reload: the wave halts, and the rest is not pushed."""
    nodes = [f"n{number:03d}.example.test" for number in range(200)]
    canaries = nodes[:2]
    group = {"nodes": ["**"], "canaries": canaries, "at_once": 50, "halt_after": 1}
    limits = {"rates": dict.fromkeys(("account", "new_orders", "address", "new_accounts"), "off")}
    broker = TrustingPenstock(tmp_path / "broker", agents={"groups": {"all": group}}, limits=limits)
    with (
        broker,
        Fleet(
            tmp_path / "fleet",
            port=broker.agents_port,
            anchors=broker.ca_bundle,
            behaviour=Behaviour(reload_fails=True),
        ) as fleet,
    ):
        tokens = broker.mint(nodes)
        fleet.add(
            [
                {"name": node, "token": tokens[node], "certificates": [certificate("s", node)]}
                for node in nodes
            ]
        )
        assert fleet.enrol() == len(nodes)
        fleet.connect(spread=1)
        statement = "SELECT count(*) FROM deliveries WHERE stage = ?"
        process.wait_until(
            lambda: broker.rows(statement, "issued")[0][0] >= len(nodes) - len(canaries),
            120,
            "all others have their certificate and wait",
        )
        wait_for(lambda: broker.rows(statement, "restored")[0][0], "a canary was put back")
        wait_for(lambda: broker.events("rollout-halted"), "the wave is halted")
        shown = broker.json("rollout", "show", "all")
        assert shown["halted"], shown
        touched = reached(fleet, broker)
    assert touched
    assert touched <= set(canaries)
    assert pushed(broker) == touched


def reached(fleet: Fleet, broker: TrustingPenstock) -> set[str]:
    """Return the nodes that say that they got a certificate, once what was pushed has come."""
    found: set[str] = set()

    def has_come() -> bool:
        times = fleet.times()  # what was noted since the last look
        found.update(node for node, _, what, _ in times if what == "got certificate")
        return found >= pushed(broker)

    wait_for(has_come, "what was pushed has come")
    return found


def pushed(broker: TrustingPenstock) -> set[str]:
    """Return the nodes that the broker says it pushed one to."""
    rows = broker.rows(
        "SELECT DISTINCT n.name FROM deliveries d JOIN nodes n ON n.node_id = d.node_id"
        " WHERE d.pushed_at IS NOT NULL"
    )
    return {name for (name,) in rows}


# ---------------------------------------------------------------------------- at a broker that lies


@dataclass(slots=True)
class Deceived:
    """A real agent that serves a good certificate of generation 5, and its lying broker."""

    broker: StandInBroker
    agent: NodeAgent
    csr_der: bytes

    @property
    def served(self) -> bytes:
        """What lies where the server reads."""
        pair = self.agent.wanted[0].directory
        return (pair / "fullchain.pem").read_bytes() + (pair / "privkey.pem").read_bytes()

    async def push(self, delivery: str, chain: str, spki: str, generation: int) -> None:
        """Send a certificate."""
        sent = {"delivery": delivery, "certificate": "www", "generation": generation}
        limits = {"longest_seconds": 90 * DAYS, "keep_previous_seconds": 0}
        await self.broker.send(
            "certificate", {**sent, **limits, "chain_pem": chain, "spki_sha256": spki}
        )

    async def ask(self, delivery: str) -> bytes:
        """Ask for a CSR with a new key."""
        asked = {"delivery": delivery, "certificate": "www", "names": [NAME]}
        await self.broker.send("want-csr", {**asked, "key_kind": "ec-p256", "is_new_key": True})
        (csr,) = await self.broker.hear("csr", where=lambda one: one.body["delivery"] == delivery)
        return wire.decode_bytes(csr.body["csr_der"], "csr_der")

    async def ended(self, delivery: str) -> str:
        """Return how the agent says that a delivery ended."""
        ends = ("seen", "refused", "failed", "restored")
        found = await self.broker.hear(
            "receipt",
            where=lambda one: one.body["delivery"] == delivery and one.body["stage"] in ends,
        )
        return str(found[-1].body["stage"])

    async def renew(self, delivery: str, generation: int) -> None:
        """Renew as an honest broker does."""
        self.csr_der = await self.ask(delivery)
        chain, spki = self.broker.issue(self.csr_der, [NAME])
        await self.push(delivery, chain, spki, generation)
        assert await self.ended(delivery) == "seen"


@pytest.fixture
async def deceived(tmp_path: Path) -> AsyncIterator[Deceived]:
    """An agent whose broker will lie from now on."""
    async with StandInBroker(tmp_path / "broker") as broker:
        wanted = Wanted(
            name="www", names=[NAME], directory=tmp_path / "pair", expects=broker.ca_anchors
        )
        agent = NodeAgent(
            tmp_path / "agent",
            "web.example.test",
            url=broker.url,
            anchors=broker.anchors,
            token="a token",
            wanted=[wanted],
        )
        async with agent:
            await broker.hear("stated")
            made = Deceived(broker, agent, b"")
            await made.renew("first", 5)
            yield made


async def test_certificates_that_are_not_what_was_asked_for_are_refused(
    deceived: Deceived,
) -> None:
    """Another key, other names, another CA, too long a life: nothing is touched, all is told."""
    before = deceived.served
    stranger = authority.make_root("another CA")
    month = datetime.timedelta(days=400)
    lies: list[tuple[str, Callable[[bytes], tuple[str, str]]]] = [
        ("another-key", lambda _: deceived.broker.issue(None, [NAME])),
        ("fewer-names", lambda csr: deceived.broker.issue(csr, ["other.example.test"])),
        ("more-names", lambda csr: deceived.broker.issue(csr, [NAME, "more.example.test"])),
        ("another-ca", lambda csr: deceived.broker.issue(csr, [NAME], issuer=stranger)),
        ("too-long", lambda csr: deceived.broker.issue(csr, [NAME], lifetime=month)),
    ]
    for number, (name, lie) in enumerate(lies):
        chain, spki = lie(await deceived.ask(name))
        await deceived.push(name, chain, spki, 6 + number)
        assert await deceived.ended(name) == "refused", name
        assert deceived.served == before, name
    await deceived.renew("honest", 20)
    assert deceived.served != before


async def test_older_generation_is_not_gone_back_to(deceived: Deceived) -> None:
    """What was pushed before, or numbered lower, is not installed again."""
    old_chain, old_spki = deceived.broker.issue(deceived.csr_der, [NAME])
    await deceived.renew("newer", 7)
    before = deceived.served
    await deceived.push("older", old_chain, old_spki, 6)
    marker = await deceived.broker.send("withdraw-challenge", {"challenge": "none"})
    await deceived.broker.acknowledged(marker)
    seen = [one for one in deceived.broker.heard("receipt") if one.body["delivery"] == "older"]
    assert "installed" not in {one.body["stage"] for one in seen}
    assert deceived.served == before
    await deceived.renew("newest", 8)
    assert deceived.served != before


async def test_broker_that_is_not_the_broker_is_told_nothing(
    deceived: Deceived, tmp_path: Path
) -> None:
    """Another server at the broker's address, with another CA behind its certificate."""
    before = deceived.served
    await deceived.broker.stop()
    impostor = StandInBroker(tmp_path / "impostor")
    impostor.port, impostor.url = deceived.broker.port, deceived.broker.url
    async with impostor:
        length = len(deceived.agent.log_text())

        def has_complained() -> bool:
            return "certificate" in deceived.agent.log_text()[length:]

        deadline = time.monotonic() + PATIENCE_SECONDS
        while not has_complained() and time.monotonic() < deadline:
            await impostor.pause()
        assert has_complained()
        assert (impostor.batches, impostor.enrolments) == ([], [])
    assert deceived.served == before
    await deceived.broker.start()
    await deceived.renew("after", 6)
    assert deceived.served != before


@pytest.mark.parametrize("days", [-12, 12], ids=["ahead", "behind"])
async def test_clock_that_is_wrong_by_days_costs_nothing_that_is_served(
    deceived: Deceived, days: int
) -> None:
    """To a node whose clock is days off what it is sent is over or not good yet: it keeps what it
    has, says so, and goes on when both agree again."""
    before = deceived.served
    begins = datetime.timedelta(days=days)
    chain, spki = deceived.broker.issue(await deceived.ask("off"), [NAME], begins=begins)
    await deceived.push("off", chain, spki, 6)
    assert await deceived.ended("off") == "refused"
    assert deceived.served == before
    await deceived.renew("right", 7)
    assert deceived.served != before
