"""A broker before two CAs; its own certificates lack something that they had before."""

from __future__ import annotations

import asyncio
import dataclasses
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any, Final

from tests.deployments.node_agents import NodeAgent, TrustingPenstock, Wanted
from tests.deployments.penstock import AcmeCa, BuiltInCa
from tests.peers import process
from tests.peers.client import Obtained
from tests.peers.lego import Lego
from tests.peers.pebble import ChallTestSrv, Pebble, PebbleOptions

__all__ = ["Scene", "deployed", "make_agent", "wait_for"]

PATIENCE_SECONDS: Final = 150.0
"""Longest wait: clients are looked after each minute."""

SHORT_SECONDS: Final = 110
"""What a client's certificate lives here, in seconds.

It is dated back by 60 and first looked at after half of its life, so 25 after it was issued; with a
look each minute it is told of after 85 at the latest, which is 25 before its end.
"""

UNSEEN_SECONDS: Final = 500
"""What a certificate lives here that is told to be unseen after the shortest time there is."""

HOST: Final = "mail.nodes.example.test"
"""The node with certificates of a CA that leaves something out from one day to the next."""

HELD: Final = ("smtp", "imap")


@dataclasses.dataclass(frozen=True, slots=True)
class Scene:
    """A broker before two CAs, and an agent with what the built-in one gave before."""

    broker: TrustingPenstock
    pebble: Pebble
    anchors: Path
    agent: NodeAgent
    client_port: int

    def obtain(self, tmp: Path, name: str, *options: str) -> Obtained:
        """Have lego obtain a certificate."""
        lego = Lego(tmp, self.broker.directory_url, self.broker.ca_bundle)
        return asyncio.run(lego.run_http([name], http_port=self.client_port, options=options))

    def watched(self, kind: str) -> list[dict[str, Any]]:
        """Return one of the lists."""
        found: list[dict[str, Any]] = self.broker.json("cert", "list", f"--{kind}")
        return found

    def named(self, kind: str) -> set[str]:
        """Return what one of the lists names, but for what another test has held."""
        rows = self.watched(kind)
        if kind == "not-renewed":
            return {name for one in rows for name in one["names"]}
        return {one["certificate"] for one in rows} - {"smtp"}

    def stages(self, certificate: str) -> list[str]:
        """Return the stages of a certificate's deliveries, oldest first."""
        statement = (
            "SELECT d.stage FROM deliveries d JOIN managed m USING (managed_id) WHERE m.name = ?"
            " ORDER BY d.generation"
        )
        return [stage for (stage,) in self.broker.rows(statement, certificate)]


def profile(cap: str, upstream: str, **more: Any) -> dict[str, Any]:
    """Return a profile of the policy."""
    return {
        "description": "Servers of the tests",
        "cap": cap,
        "usages": ["server-auth", "client-auth"],
        "upstreams": [{"upstream": upstream}],
        **more,
    }


PROFILES: Final = {
    "server": profile("47d", "local"),
    "unseen": profile(f"{UNSEEN_SECONDS}s", "local"),
    "short": profile(f"{SHORT_SECONDS}s", "local", renew_at=0.1),
    "pebble": profile("47d", "pebble"),
}


def local(*usages: str) -> BuiltInCa:
    """Return the built-in CA, which gives these usages."""
    known = {"usages": list(usages), "lifetime": "47d", "max_lifetime": "90d"}
    return BuiltInCa(options={"profiles": {"server": known}})


def make_broker(
    tmp: Path, pebble: Pebble, anchors: Path, plain: int, http: int
) -> TrustingPenstock:
    """Return the broker; its own CA gives both usages at first."""
    ca = AcmeCa(
        name="pebble",
        directory_url=pebble.directory_url,
        ca_bundle=pebble.ca_bundle,
        anchors=anchors,
        facts={"honours_not_after": True, "is_ct_logged": False},
    )
    names = ["alone.example.test", "adopted.example.test", "fine.example.test"]
    trusted = {
        "nodes": ["*.nodes.example.test"],
        "names": ["**.example.test"],
        "profiles": list(PROFILES),
        "because": "nodes of the tests",
    }
    tmp.mkdir()
    return TrustingPenstock(
        tmp,
        upstreams=[ca],
        built_in=local("server-auth", "client-auth"),
        plain_port=plain,
        profiles=PROFILES,
        policy={"trusted": [trusted]},
        hosts={name: ["127.0.0.1"] for name in names},
        validation_http_port=http,
    )


def make_agent(
    broker: TrustingPenstock, tmp: Path, node: str, wanted: Sequence[Wanted], **more: Any
) -> NodeAgent:
    """Return an agent that has a token."""
    return NodeAgent(
        tmp,
        node,
        url=broker.agents_url,
        anchors=broker.ca_bundle,
        token=broker.mint([node])[node],
        wanted=wanted,
        **more,
    )


def wait_for(is_so: Any, what: str) -> None:
    """Wait until other processes have come that far."""
    process.wait_until(lambda: bool(is_so()), PATIENCE_SECONDS, what)


@contextmanager
def deployed(tmp: Path) -> Iterator[Scene]:
    """Yield the deployment, once its built-in CA has stopped to give clientAuth."""
    plain, http = process.free_port(), process.free_port()
    with ExitStack() as stack:
        names = stack.enter_context(ChallTestSrv(tmp / "dns"))
        pebble = stack.enter_context(
            Pebble(
                tmp / "ca",
                validation_http_port=plain,
                dns_server=names.dns_address,
                options=PebbleOptions(always_valid=True),
            )
        )
        anchors = tmp / "pebble-root.pem"
        anchors.write_bytes(pebble.root_pem())
        broker = make_broker(tmp / "broker", pebble, anchors, plain, http)
        stack.enter_context(broker)
        wanted = [
            Wanted(
                name=name,
                names=[f"{name}.example.test"],
                directory=tmp / "tls" / name,
                expects=broker.ca_bundle,
            )
            for name in HELD
        ]
        agent = stack.enter_context(make_agent(broker, tmp / "agent", HOST, wanted))
        made = Scene(broker, pebble, anchors, agent, http)
        wait_for(lambda: [made.stages(one) for one in HELD] == [["seen"]] * 2, "what was before")
        broker.stop()
        broker.set_built_in(local("server-auth"))
        broker.start()
        yield made
