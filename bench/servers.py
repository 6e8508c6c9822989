"""The servers that are measured, each started as its operator would, on loopback only.

A `Scene` is one server that clients order from, with what stands behind it and the ports at
which the generator answers challenges and names.
"""

from __future__ import annotations

import base64
import secrets
from collections.abc import Iterator, Mapping
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final

from bench.acme2certifier import Acme2certifier
from bench.filling import fill
from bench.generator import Generator, Target
from tests.deployments.penstock import AcmeCa, BuiltInCa, Penstock, secret
from tests.peers import process
from tests.peers.process import Peer
from tests.peers.stepca import StepCa

__all__ = [
    "Ports",
    "Scene",
    "acme2certifier",
    "behind_penstock",
    "behind_step_ca",
    "built_in",
    "granting",
    "in_front",
    "proving",
    "step_ca",
]

KEY_ID: Final = "bench"
"""Id of the binding key whose accounts are asked for no proof."""

NAMES: Final = ("**.bench.example.test",)
"""Names that the generator makes up."""

CA_CAP: Final = "60d"
"""What the CA behind a tunnel grants at most; more than the cap in front of it."""


UNLIMITED: Final = {
    "rates": dict.fromkeys(("account", "new_orders", "address", "new_accounts"), "off")
}
"""Rate limits that are off: one address and few accounts ask for more than any client may."""


@dataclass(frozen=True, slots=True)
class Ports:
    """Where the generator answers."""

    http: int
    dns: int

    @classmethod
    def free(cls) -> Ports:
        """Return two that nobody uses."""
        return cls(process.free_port(), process.free_port())

    @property
    def resolver(self) -> str:
        """The name server as servers are told it."""
        return f"127.0.0.1:{self.dns}"


@dataclass(frozen=True, slots=True, kw_only=True)
class Scene:
    """One server to order from, running."""

    name: str
    server: Peer
    target: Target
    ports: Ports
    behind: Mapping[str, Peer] = field(default_factory=dict)
    """What stands behind the server, by name; its processor time is told apart."""
    direct: Target | None = None
    """The same CA without the tunnel."""

    def generator(self, home: Path, target: Target | None = None) -> Generator:
        """Return a generator that orders from this server, or from *target*."""
        ports = self.ports
        return Generator(home, target or self.target, http_port=ports.http, dns_port=ports.dns)


@dataclass(frozen=True, slots=True)
class _Granting:
    """A Penstock whose policy trusts the accounts of one binding key."""

    penstock: Penstock
    binding: tuple[str, str]

    @property
    def target(self) -> Target:
        return Target(
            directory_url=self.penstock.directory_url,
            ca_bundle=self.penstock.ca_bundle,
            binding=self.binding,
        )


@contextmanager
def built_in(home: Path, *, filled_with: int = 0) -> Iterator[Scene]:
    """Run a Penstock with its built-in CA; clients prove their names by http-01.

    With *filled_with*, its store holds that many finished orders from the beginning.
    """
    ports = Ports.free()
    penstock = Penstock(
        home / "penstock",
        validation_http_port=ports.http,
        resolver=ports.resolver,
        policy={"names": {"allow": list(NAMES)}},
        limits=UNLIMITED,
    )
    penstock.prepare()
    scene = Scene(name="built-in CA", server=penstock, target=proving(penstock), ports=ports)
    if filled_with:
        # One order of flesh and blood, of which the others are copies.
        with penstock, scene.generator(home / "first") as generator:
            generator.order(1, 1)
        fill(penstock.database, filled_with)
    with penstock:
        yield scene


@contextmanager
def step_ca(home: Path) -> Iterator[Scene]:
    """Run step-ca; clients prove their names by http-01."""
    ports = Ports.free()
    with StepCa(
        home / "step-ca", validation_http_port=ports.http, dns_server=ports.resolver
    ) as server:
        target = Target(directory_url=server.directory_url, ca_bundle=server.ca_bundle)
        yield Scene(name="step-ca", server=server, target=target, ports=ports)


@contextmanager
def behind_penstock(home: Path, *, is_granted: bool = False) -> Iterator[Scene]:
    """Run a Penstock in front of a second one that grants every name without a challenge.

    With *is_granted* the one in front asks for no proof either, so that what is left is the
    tunnel alone.
    """
    ports = Ports.free()
    with ExitStack() as stack:
        ca = granting(home / "ca", ports)
        stack.enter_context(ca.penstock)
        anchors = home / "anchors.pem"
        anchors.write_bytes(ca.penstock.ca_bundle.read_bytes())
        upstream = AcmeCa(
            name="upstream",
            directory_url=ca.penstock.directory_url,
            ca_bundle=ca.penstock.ca_bundle,
            anchors=anchors,
            external_account=ca.binding,
            facts={"honours_not_after": True, "max_lifetime": CA_CAP, "is_ct_logged": False},
        )
        front = in_front(home, ports, upstream, is_granted=is_granted)
        stack.enter_context(front.penstock)
        target = front.target if is_granted else proving(front.penstock)
        yield Scene(
            name="tunnel, granted" if is_granted else "tunnel",
            server=front.penstock,
            target=target,
            ports=ports,
            behind={"Penstock as the CA": ca.penstock},
            direct=ca.target,
        )


@contextmanager
def behind_step_ca(home: Path) -> Iterator[Scene]:
    """Run a Penstock in front of step-ca, both of which want http-01."""
    ports, plain = Ports.free(), process.free_port()
    with ExitStack() as stack:
        ca = StepCa(home / "step-ca", validation_http_port=plain, dns_server=ports.resolver)
        stack.enter_context(ca)
        anchors = home / "anchors.pem"
        anchors.write_bytes(ca.root_pem())
        upstream = AcmeCa(
            name="upstream",
            directory_url=ca.directory_url,
            ca_bundle=ca.ca_bundle,
            anchors=anchors,
            description="step-ca",
        )
        front = in_front(home, ports, upstream, plain_port=plain, usages=STEP_CA_USAGES)
        stack.enter_context(front.penstock)
        yield Scene(
            name="tunnel to step-ca",
            server=front.penstock,
            target=proving(front.penstock),
            ports=ports,
            behind={"step-ca": ca},
        )


@contextmanager
def acme2certifier(home: Path) -> Iterator[Scene]:
    """Run acme2certifier in front of a Penstock that grants every name without a challenge."""
    ports = Ports.free()
    ca = granting(home / "ca", ports)
    with ca.penstock, Acme2certifier(home / "acme2certifier", ca.target) as front:
        yield Scene(
            name="acme2certifier",
            server=front,
            target=front.target,
            ports=ports,
            behind={"Penstock as the CA": ca.penstock},
        )


STEP_CA_USAGES: Final = ("server-auth", "client-auth")
"""Usages that step-ca's own template puts into every certificate."""


def proving(penstock: Penstock) -> Target:
    """Return how to order from a broker that wants http-01."""
    return Target(directory_url=penstock.directory_url, ca_bundle=penstock.ca_bundle)


def in_front(
    home: Path,
    ports: Ports,
    upstream: AcmeCa,
    *,
    is_granted: bool = False,
    plain_port: int | None = None,
    usages: tuple[str, ...] = ("server-auth",),
    more: Mapping[str, Any] | None = None,
) -> _Granting:
    """Return a Penstock in front of *upstream*, not started yet."""
    profile = {
        "description": "TLS servers of the benchmark",
        "cap": "47d",
        "usages": list(usages),
        "upstreams": [{"upstream": upstream.name}],
    }
    return granting(
        home / "front",
        ports,
        upstreams=[upstream],
        plain_port=plain_port,
        profiles={"server": profile},
        is_granting=is_granted,
        more=more,
    )


def granting(
    home: Path,
    ports: Ports,
    *,
    is_granting: bool = True,
    more: Mapping[str, Any] | None = None,
    **options: Any,
) -> _Granting:
    """Return a Penstock, not started yet, that trusts whoever is bound to one declared key."""
    home.mkdir(parents=True, exist_ok=True)
    mac_key = base64.urlsafe_b64encode(secrets.token_bytes(32)).rstrip(b"=").decode("ascii")
    rule = {
        "eab": [KEY_ID],
        "names": list(NAMES),
        "profiles": ["server"],
        "because": "the names of a benchmark",
    }
    declared = {"key_id": KEY_ID, "mac_key": secret(home, "binding.mac", mac_key)}
    policy: dict[str, Any] = {"names": {"allow": list(NAMES)}}
    sections = dict(more or {})
    if is_granting:
        policy["trusted"] = [rule]
        sections["external_account_bindings"] = [declared]
    penstock = Penstock(
        home,
        validation_http_port=ports.http,
        resolver=ports.resolver,
        built_in=BuiltInCa(max_lifetime=CA_CAP),
        policy=policy,
        limits=UNLIMITED,
        more=sections,
        **options,
    )
    return _Granting(penstock, (KEY_ID, mac_key))
