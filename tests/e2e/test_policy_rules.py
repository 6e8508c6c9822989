"""Rules of a policy at a real broker: refusing, narrowing, warning, and told apart by who asks."""

from __future__ import annotations

import json
import os
import re
import signal
from collections.abc import Iterator, Sequence
from contextlib import closing, contextmanager
from datetime import timedelta
from pathlib import Path
from typing import Any, Final

import pytest
from cryptography import x509
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat

from tests.e2e.front_door import FARM_KEYS, FrontDoor, running
from tests.e2e.requester import TRUSTED_ZONE, Client, Reply, Wire, check_refusal, fresh_name
from tests.e2e.vouching import pki
from tests.peers import process
from tests.unit.protocol.builders import Authority, make_csr, private_key

pytestmark = pytest.mark.e2e


def zone(label: str) -> str:
    """Return the pattern of the names that one test has."""
    return f"**.{label}.{TRUSTED_ZONE}"


def name_in(label: str) -> str:
    """Return a name that one rule speaks of and nobody has asked for."""
    return fresh_name(f"{label}.{TRUSTED_ZONE}")


RULES: Final[list[dict[str, Any]]] = [
    {"name": "closed", "names": [zone("closed")], "refuse": "ask the bank"},
    {"name": "soon", "names": [zone("soon")], "mode": "warn", "refuse": "soon no more"},
    {"name": "short", "names": [zone("short")], "cap": "7d", "keys": ["ec-p384"]},
    {"name": "inside", "names": [zone("inside")], "only": {"networks": ["192.0.2.0/24"]}},
    {"name": "badge", "names": [zone("badge")], "only": {"client_names": ["**.corp.example"]}},
    {"name": "bound", "names": [zone("bound")], "only": {"eab": ["another"]}},
    {"name": "odd", "names": [zone("odd")], "when": "names[9] == ''", "cap": "30d"},
    {"name": "numbers", "when": "name.matches('^h[0-9]+[.]named[.]')", "refuse": "no numbers"},
]

ENDS: Final = pki(timedelta(days=1))
"""Of what clients show: the broker goes by the machine's time, and a long run may reach this file
hours after it has read it."""

CLIENT_CA: Final = Authority.root("CA of the clients", **ENDS)


@pytest.fixture(scope="module")
def door(tmp_path_factory: pytest.TempPathFactory) -> Iterator[FrontDoor]:
    """A broker behind proxies of this machine, whose policy has a rule for each test."""
    folder = tmp_path_factory.mktemp("rules")
    anchors = folder / "clients.pem"
    anchors.write_bytes(CLIENT_CA.certificate.public_bytes(Encoding.PEM))
    rules = [{"because": "a test is about it", **rule} for rule in RULES]
    with running(
        folder,
        policy={"rules": rules},
        limits={"rates": {"new_accounts": "off"}},
        more={"policy": {"look_every": "200ms"}},
    ) as made:
        yield made


class Proxied(Wire):
    """A connection through a proxy that says whom it speaks for."""

    def __init__(self, door: FrontDoor, said: str) -> None:
        super().__init__(door.penstock)
        self._said = said

    def send(
        self,
        method: str,
        target: str,
        body: bytes | None = None,
        headers: Sequence[tuple[str, str]] = (),
    ) -> Reply:
        """Send one request with the proxy's line."""
        return super().send(method, target, body, [*headers, ("X-Forwarded-For", self._said)])


def events(door: FrontDoor, kind: str) -> list[dict[str, Any]]:
    """Return the data of each event of a kind, oldest first."""
    query = "SELECT data FROM events WHERE kind = ? ORDER BY seq"
    return [json.loads(data) for (data,) in door.penstock.rows(query, kind)]


def through(door: FrontDoor, wire: Wire) -> Client:
    """Return a trusted client on *wire*."""
    client = Client(wire, f"{door.penstock.external_url}/acme/default")
    assert client.register(mac_key=FARM_KEYS["default"]).status == 201
    return client


def explained(door: FrontDoor, name: str, *options: str) -> dict[str, Any]:
    """Return how an order of the farm would be decided."""
    words = ("policy", "explain", name, "--eab", "farm", *options)
    told: dict[str, Any] = door.penstock.json(*words)
    return told


def findings_of(told: dict[str, Any]) -> list[dict[str, Any]]:
    """Return all that the checks of an explanation found."""
    return [one for step in told["checks"] for one in step["findings"]]


def test_a_refusing_rule_names_itself_and_the_name(door: FrontDoor) -> None:
    """The sentence says which rule, where it stands, and what its author wrote."""
    client, name = door.trusted(), name_in("closed")
    refused = client.order(fresh_name(), name)
    says = rf"'{name}' is refused by rule 'closed' \(default.yaml:[0-9]+\): ask the bank"
    check_refusal(refused, "rejectedIdentifier", 400, says)
    assert client.order(fresh_name()).status == 201


def test_a_rule_narrows_cap_and_keys(door: FrontDoor) -> None:
    """The certificate ends within the rule's cap, and another kind of key is refused."""
    client, name = door.trusted(), name_in("short")
    _, order = client.new_order(name)
    refused = client.finalize(order, make_csr([name]))
    says = r"key of the CSR is ec-p256, allowed: ec-p384 \(default.yaml:[0-9]+\)"
    check_refusal(refused, "badPublicKey", 400, says)
    key = ec.generate_private_key(ec.SECP384R1())
    _, leaf_der = client.certificate(name, key=key)
    leaf = x509.load_der_x509_certificate(leaf_der)
    assert leaf.not_valid_after_utc - leaf.not_valid_before_utc < timedelta(days=8)


def test_a_rule_that_warns_lets_pass_and_tells(door: FrontDoor) -> None:
    """An event beside the order, and a count by rule, tell what enforcing would do."""
    client, name = door.trusted(), name_in("soon")
    client.certificate(name)
    of_orders = [one for one in events(door, "rule-warned") if one["resource"] == "new-order"]
    # Other tests here have warnings too, about names of their own.
    (warning,) = [
        each for one in of_orders for each in one["warnings"] if name in each["identifier"]
    ]
    assert "rule 'soon'" in warning["sentence"]
    series = r'^penstock_rule_warnings_total\{community="default",rule="rule \'soon\'"\} ([0-9.]+)$'
    (count,) = re.findall(series, door.penstock.metrics(), re.MULTILINE)
    assert float(count) >= 1


def test_names_for_the_holder_of_another_binding(door: FrontDoor) -> None:
    """The requester's own name for it is not told, only the rule."""
    refused = door.trusted().order(name_in("bound"))
    check_refusal(refused, "rejectedIdentifier", 400, "not for this requester: a test is about it")


def test_an_expression_that_fails_refuses(door: FrontDoor) -> None:
    """Unsure means no; the same rule about another order says nothing."""
    client = door.trusted()
    refused = client.order(name_in("odd"))
    check_refusal(refused, "serverInternal", 403, "rule 'odd' .* could not be evaluated")
    assert client.order(fresh_name()).status == 201


def test_an_expression_about_names(door: FrontDoor) -> None:
    """It speaks of those that it is true of."""
    client = door.trusted()
    check_refusal(
        client.order(f"h12.named.{TRUSTED_ZONE}"), "rejectedIdentifier", 400, "no numbers"
    )
    assert client.order(f"web.named.{TRUSTED_ZONE}").status == 201


def test_headers_of_nobody_we_know_are_not_believed(door: FrontDoor) -> None:
    """Without a named proxy the address is the connection's, whatever a header says."""
    with closing(Proxied(door, "192.0.2.7")) as wire:
        refused = through(door, wire).order(name_in("inside"))
    check_refusal(refused, "rejectedIdentifier", 400, "rule 'inside'")


def test_a_client_without_a_certificate_is_served_and_told_apart(door: FrontDoor) -> None:
    """Where no client certificates are asked for, a rule about them refuses."""
    refused = door.trusted().order(name_in("badge"))
    check_refusal(refused, "rejectedIdentifier", 400, "rule 'badge'")


@pytest.fixture(scope="module")
def inner(tmp_path_factory: pytest.TempPathFactory) -> Iterator[FrontDoor]:
    """A broker behind named proxies, which may show certificates of their own."""
    with asking_for_certificates(tmp_path_factory, "inner", proxies=["127.0.0.0/8"]) as made:
        yield made


@pytest.fixture(scope="module")
def direct(tmp_path_factory: pytest.TempPathFactory) -> Iterator[FrontDoor]:
    """A broker whose clients come themselves, and may show certificates."""
    with asking_for_certificates(tmp_path_factory, "direct", proxies=[]) as made:
        yield made


@contextmanager
def asking_for_certificates(
    folders: pytest.TempPathFactory, name: str, *, proxies: Sequence[str]
) -> Iterator[FrontDoor]:
    """Run a broker that asks for client certificates."""
    folder = folders.mktemp(name)
    anchors = folder / "clients.pem"
    anchors.write_bytes(CLIENT_CA.certificate.public_bytes(Encoding.PEM))
    rules = [{"because": "a test is about it", **rule} for rule in RULES]
    with running(
        folder,
        policy={"rules": rules},
        limits={"rates": {"new_accounts": "off"}},
        acme={"proxies": list(proxies), "client_anchors": str(anchors)},
    ) as made:
        yield made


def test_the_network_that_a_named_proxy_reports(inner: FrontDoor) -> None:
    """The last that the proxies wrote counts; what a client put in front of it does not."""
    name = name_in("inside")
    with closing(Proxied(inner, "192.0.2.7, 203.0.113.9")) as wire:
        refused = through(inner, wire).order(name)
    check_refusal(refused, "rejectedIdentifier", 400, "rule 'inside'")
    (outside,) = findings_of(explained(inner, name, "--address", "203.0.113.9"))
    assert outside["sentence"] in refused.json()["detail"]
    with closing(Proxied(inner, "203.0.113.9, 192.0.2.7")) as wire:
        through(inner, wire).certificate(name)
    inside = explained(inner, name, "--address", "192.0.2.7")
    assert inside["allowed"], findings_of(inside)
    # Where nobody saw an address, the answer is the one for those outside.
    assert findings_of(explained(inner, name)) == [outside]
    query = "SELECT decision FROM orders WHERE identifiers LIKE ?"
    ((decision,),) = inner.penstock.rows(query, f"%{name}%")
    assert json.loads(decision)["requester"]["address"] == "192.0.2.7"


def test_the_client_certificate_of_a_requester(direct: FrontDoor, tmp_path: Path) -> None:
    """One of the listener's anchors is believed; another breaks the handshake; none is served."""
    name = name_in("badge")
    with closing(Wire(direct.penstock)) as wire:
        present(wire, CLIENT_CA, tmp_path)
        through(direct, wire).certificate(name)
    query = "SELECT decision FROM orders WHERE identifiers LIKE ?"
    ((decision,),) = direct.penstock.rows(query, f"%{name}%")
    kept = json.loads(decision)["requester"]["client_certificate"]
    assert kept["names"] == ["build.corp.example"]
    check_refusal(direct.trusted().order(name), "rejectedIdentifier", 400, "rule 'badge'")
    assert not explained(direct, name)["allowed"]
    assert explained(direct, name, "--client-name", "build.corp.example")["allowed"]
    forger = Authority.root("CA of the clients", key=private_key("ES256", "forged"), **ENDS)
    with closing(Wire(direct.penstock)) as wire:
        present(wire, forger, tmp_path)
        with pytest.raises(OSError, match=r"(?i)alert|reset|closed|broken|eof"):
            wire.send("HEAD", "/acme/default/new-nonce")


def test_the_certificate_of_a_named_proxy_is_not_its_clients(
    inner: FrontDoor, tmp_path: Path
) -> None:
    """Everybody behind it would have the names that are in it."""
    with closing(Wire(inner.penstock)) as wire:
        present(wire, CLIENT_CA, tmp_path)
        refused = through(inner, wire).order(name_in("badge"))
    check_refusal(refused, "rejectedIdentifier", 400, "rule 'badge'")


def present(wire: Wire, ca: Authority, folder: Path) -> None:
    """Have a connection show a certificate of *ca*."""
    key = private_key("ES256", "client")
    chain = ca.leaf("build.corp.example", key=key, **ENDS).public_bytes(Encoding.PEM)
    pem = key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption())
    file = folder / "client.pem"
    file.write_bytes(chain + pem)
    wire.context.load_cert_chain(file)


def test_a_new_rule_strands_no_fleet(door: FrontDoor) -> None:
    """Graded apart, it refuses new orders and only warns of renewals of unchanged names."""
    client, name, other = door.trusted(), name_in("fleet"), name_in("fleet")
    client.certificate(name)
    file = door.penstock.policy_file
    document = json.loads(file.read_text("utf-8"))
    document["rules"].append(
        {
            "name": "no-new",
            "because": "the fleet moves away",
            "names": [zone("fleet")],
            "refuse": "no new ones",
            "renewals": "warn",
        }
    )
    before = len(events(door, "rule-warned"))
    file.write_text(json.dumps(document, indent=1), "utf-8")
    os.kill(door.penstock.pid, signal.SIGHUP)
    process.wait_until(lambda: client.order(other).status == 400, 60, "the new rule is in force")
    client.certificate(name)
    assert len(events(door, "rule-warned")) > before
    stranger = door.trusted()
    check_refusal(stranger.order(name), "rejectedIdentifier", 400, "no new ones")
