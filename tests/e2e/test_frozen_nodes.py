"""A freeze of a node at a real broker: a real agent and nginx beside it, and Pebble behind it.

Its certificates fall due early in their life, so that a renewal that nobody asked for is refused
under the freeze, and made after it.
"""

from __future__ import annotations

import os
import signal
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import Any, Final

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes

from agents.look import look
from tests.contract.agents.pairs import make_pair, put
from tests.deployments.node_agents import NodeAgent, TrustingPenstock, Wanted
from tests.deployments.penstock import AcmeCa
from tests.peers import process
from tests.peers.nginx import Nginx
from tests.peers.pebble import Pebble, PebbleOptions

pytestmark = [pytest.mark.e2e, pytest.mark.peers]

NODE: Final = "web-01.nodes.example.test"
WEB: Final = "www.example.test"
MAIL: Final = "mail.example.test"

LIFE_SECONDS: Final = 100
"""How long a certificate of Pebble lives here, in seconds: none ends while a test looks at it."""

RENEW_AT: Final = 0.15
"""Share of it after which policy has it renewed: 10 to 20 s after it began."""

PATIENCE_SECONDS: Final = 120.0
"""Longest wait for a step; the longest of them waits for a certificate to fall due."""

FROZEN: Final = "issuance is frozen for this node, ask pki@corp.example"


def wait_for(has_come: Callable[[], Any]) -> Any:
    """Return what *has_come* returns as soon as it is something."""
    end = time.monotonic() + PATIENCE_SECONDS
    while not (found := has_come()):
        assert time.monotonic() < end, "it has not come"
        time.sleep(0.1)
    return found


def fingerprint_of(folder: Path) -> str:
    """Return the fingerprint of the certificate that lies in *folder*."""
    leaf = x509.load_pem_x509_certificates((folder / "fullchain.pem").read_bytes())[0]
    return leaf.fingerprint(hashes.SHA256()).hex()


class Place:
    """A broker before Pebble, and one node with two certificates, of which nginx serves one."""

    def __init__(self, tmp: Path, stack: ExitStack) -> None:
        plain = process.free_port()
        self.pebble = stack.enter_context(
            Pebble(
                tmp / "ca",
                validation_http_port=plain,
                dns_server="127.0.0.1:9",
                options=PebbleOptions(always_valid=True),
            )
        )
        anchors = tmp / "pebble-root.pem"
        anchors.write_bytes(self.pebble.root_pem())
        self.broker = self._broker(tmp / "broker", anchors, plain, stack)
        home = tmp / "agent"
        home.mkdir()
        self.nginx = Nginx(tmp / "nginx", home / "tls" / "web")
        put(make_pair(WEB), self.nginx.pair)
        stack.enter_context(self.nginx)
        self.mail = home / "tls" / "mail"
        wanted = [
            Wanted(
                name="web",
                names=[WEB],
                directory=self.nginx.pair,
                expects=anchors,
                more=self.nginx.toml(WEB),
            ),
            Wanted(name="mail", names=[MAIL], directory=self.mail, expects=anchors),
        ]
        self.agent = stack.enter_context(
            NodeAgent(
                home,
                NODE,
                url=self.broker.agents_url,
                anchors=self.broker.ca_bundle,
                token=self.broker.mint([NODE])[NODE],
                wanted=wanted,
            )
        )

    def _broker(self, home: Path, anchors: Path, plain: int, stack: ExitStack) -> TrustingPenstock:
        home.mkdir()
        ca = AcmeCa(
            name="pebble",
            directory_url=self.pebble.directory_url,
            ca_bundle=self.pebble.ca_bundle,
            anchors=anchors,
            facts={"honours_not_after": True, "is_ct_logged": False, "min_lifetime": "1s"},
        )
        profile = {
            "description": "Certificates that live for a hundred seconds",
            "cap": f"{LIFE_SECONDS}s",
            "renew_at": RENEW_AT,
            "usages": ["server-auth"],
            "upstreams": [{"upstream": "pebble"}],
        }
        return stack.enter_context(
            TrustingPenstock(
                home,
                upstreams=[ca],
                plain_port=plain,
                profiles={"server": profile},
                community={"ask": "pki@corp.example"},
            )
        )

    # ------------------------------------------------------------------------- what the broker has

    def stages(self, name: str) -> list[str]:
        """Return the stages of the deliveries of one certificate, oldest first."""
        rows = self.broker.rows(
            "SELECT d.stage FROM deliveries d JOIN managed m USING (managed_id)"
            " WHERE m.name = ? ORDER BY d.begun_at",
            name,
        )
        return [stage for (stage,) in rows]

    def begun(self) -> tuple[int, int, int, int]:
        """Return how much was begun for the node: deliveries, orders, orders with the CA, and what
        the CA says that it issued."""
        tables = ("deliveries", "orders", "work")
        counts = [self.broker.rows(f"SELECT count(*) FROM {table}")[0][0] for table in tables]
        return (*counts, len(self.pebble.issued()))

    def orders(self, name: str) -> int:
        """Return how many orders there were for one name."""
        ((count,),) = self.broker.rows(
            "SELECT count(*) FROM orders WHERE instr(identifiers, ?) > 0", name
        )
        return int(count)

    def attempts(self, name: str) -> tuple[int, str]:
        """Return how often a certificate was tried in vain, and why."""
        ((attempts, fault),) = self.broker.rows(
            "SELECT attempts, coalesce(fault, '') FROM managed WHERE name = ?", name
        )
        return int(attempts), str(fault)

    def serves(self, fingerprint: str) -> bool:
        """Shake hands with nginx, and see what it serves."""
        return look(self.nginx.look_section(WEB), fingerprint).fingerprint == fingerprint

    def freeze(self) -> tuple[int, int, int, int]:
        """Freeze the node; return what was begun once nothing is under way any more."""
        self.broker.run("freeze", "node", NODE, "--reason", "a shell nobody knows")
        wait_for(lambda: not self.broker.rows("SELECT 1 FROM deliveries WHERE ended_at IS NULL"))
        return self.begun()

    def lift(self) -> None:
        """Let the node go on."""
        self.broker.run("unfreeze", "node", NODE, "--reason", "it was ours")


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Place]:
    """A node whose certificates are seen served; each test freezes it and lets it go on."""
    with ExitStack() as stack:
        made = Place(tmp_path_factory.mktemp("frozen"), stack)
        wait_for(lambda: made.stages("web") and made.stages("mail"))
        wait_for(lambda: "seen" in made.stages("web") and "seen" in made.stages("mail"))
        yield made


def test_frozen_node_gets_nothing_new_and_serves_on_until_it_is_lifted(place: Place) -> None:
    """What falls due and what was revoked wait, no key is made, no CA asked; reads and revocation
    go on; after it both are renewed with nobody's help."""
    before = place.freeze()
    web, mail = fingerprint_of(place.nginx.pair), fingerprint_of(place.mail)
    place.broker.run("renew", NODE, "--reason", "a try", status=1)

    place.broker.run("cert", "revoke", mail, "--code", "key-compromise", "--reason", "copied")
    serial = int(place.broker.json("cert", "show", mail)["serial"], 16)
    wait_for(lambda: place.pebble.status(f"{serial:x}").is_revoked)
    for name in ("web", "mail"):
        wait_for(lambda name=name: place.attempts(name)[0] >= 2)
        assert FROZEN in place.attempts(name)[1]
    assert place.begun() == before
    assert (fingerprint_of(place.nginx.pair), fingerprint_of(place.mail)) == (web, mail)
    assert place.serves(web)
    assert place.broker.json("cert", "trace", web)["stages"]["seen"]
    assert 'penstock_frozen{kind="node"} 1.0' in place.broker.metrics()

    place.lift()
    wait_for(lambda: web != fingerprint_of(place.nginx.pair) and mail != fingerprint_of(place.mail))
    wait_for(lambda: (place.stages("web")[-1], place.stages("mail")[-1]) == ("seen", "seen"))
    # It falls due again after seconds, and is in its place a moment before nginx has it.
    wait_for(lambda: place.serves(fingerprint_of(place.nginx.pair)))


def stop_at_rest(place: Place) -> bool:
    """Stop the agent, and say whether nothing is under way for mail; if there is, it goes on."""
    os.kill(place.agent.pid, signal.SIGSTOP)
    if place.stages("mail")[-1] == "seen":
        return True
    os.kill(place.agent.pid, signal.SIGCONT)
    return False


def test_csr_that_comes_under_a_freeze_is_not_ordered_and_is_after_it(place: Place) -> None:
    """The question was on its way to the node when the freeze came."""
    # A renewal that fell due by itself and has come further would be gone on with.
    wait_for(lambda: stop_at_rest(place))
    try:
        place.broker.run("renew", MAIL, "--reason", "a test", "--wait", "0")
        assert place.stages("mail")[-1] == "asked"
        before, begun = place.orders(MAIL), place.stages("mail")
        place.broker.run("freeze", "node", NODE, "--reason", "a shell nobody knows")
    finally:
        os.kill(place.agent.pid, signal.SIGCONT)
    wait_for(lambda: place.stages("mail") == [*begun[:-1], "failed"])
    assert FROZEN in place.attempts("mail")[1]
    assert place.orders(MAIL) == before
    place.lift()
    wait_for(lambda: place.stages("mail")[len(begun) :] == ["seen"])
