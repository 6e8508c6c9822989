"""Rules at a real broker: whom they tell apart, when, and what they demand of whom they mean."""

from __future__ import annotations

import json
import os
import signal
from collections.abc import Iterator
from contextlib import closing
from datetime import datetime, timedelta
from pathlib import Path
from typing import Any, Final

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat
from cryptography.x509.oid import ExtendedKeyUsageOID

from tests.e2e.front_door import COMMUNITIES, FARM_KEYS, FrontDoor, running
from tests.e2e.requester import (
    TRUSTED_ZONE,
    Client,
    Wire,
    check_refusal,
    fresh_name,
    target_of,
    thumbprint,
)
from tests.e2e.vouching import pki
from tests.peers import process
from tests.unit.protocol.builders import Authority, b64url, make_csr, private_key

pytestmark = pytest.mark.e2e

ACCOUNT_KEY: Final = private_key("ES256", "the account that a rule names")
CLIENT_KEY: Final = private_key("ES256", "client")
ENDS: Final = pki(timedelta(days=1))
"""Of what clients show: the broker goes by the machine's time, and a long run may reach this file
hours after it has read it."""

CLIENT_CA: Final = Authority.root("CA of the clients", **ENDS)
SPIFFE: Final = "spiffe://corp.example/web"


def client_certificate(name: str | x509.GeneralName) -> x509.Certificate:
    """Return a certificate of a client that is good now."""
    return CLIENT_CA.leaf(name, key=CLIENT_KEY, **ENDS)


KNOWN: Final = client_certificate("build.corp.example")
OTHER: Final = client_certificate("other.corp.example")
WORKLOAD: Final = client_certificate(x509.UniformResourceIdentifier(SPIFFE))
NEIGHBOUR: Final = client_certificate(x509.UniformResourceIdentifier(f"{SPIFFE}-2"))

PROVED: Final = ("p1.example.test", "p2.example.test")
"""Names that nobody is trusted with; a rule speaks of the first."""

BACKTRACKS: Final = "^(a+)+[.]steps[.]"
"""What an engine that goes back and forth takes 2^62 steps to say no to."""

RULES: Final[list[dict[str, Any]]] = [
    {"label": "account", "only": {"accounts": [thumbprint(ACCOUNT_KEY)]}},
    {"label": "any", "only": {"any": [{"eab": ["nobody"]}, {"eab": ["farm"]}]}},
    {"label": "neither", "only": {"any": [{"eab": ["nobody"]}, {"nodes": ["**"]}]}},
    {"label": "who", "who": {"eab": ["farm"]}, "refuse": "not for the farm"},
    {"label": "not-who", "not_who": {"eab": ["farm"]}, "refuse": "for the farm alone"},
    {"label": "node", "only": {"nodes": ["**"]}},
    {
        "label": "print",
        "only": {"client_certificates": ["sha256:" + KNOWN.fingerprint(hashes.SHA256()).hex()]},
    },
    {"label": "uri", "only": {"client_certificates": [SPIFFE]}},
    {"label": "begun", "from": "2020-01-01", "refuse": "it began in 2020"},
    {"label": "to-come", "from": "2999-01-01", "refuse": "it begins in 2999"},
    {"label": "not-over", "until": "2999-01-01", "refuse": "it ends in 2999"},
    {"label": "early", "renew_at": 0.1},
    {"label": "servers", "usages": ["server-auth"]},
    {"label": "node-of", "attestation": ["kubernetes", "approval"]},
    {"label": "steps", "when": f"name.matches('{BACKTRACKS}')", "refuse": "all of it matches"},
    {"label": "proved", "names": [PROVED[0]], "challenges": ["dns-01"]},
]
"""Each about the names below its label, in the trusted zone, unless it names others."""

SHARED: Final = {
    "apiVersion": "penstock.dev/v1",
    "kind": "SharedRules",
    "communities": ["default", "other"],
    "rules": [
        {
            "name": "of-two",
            "because": "what two of three communities share",
            "names": [f"**.shared.{TRUSTED_ZONE}"],
            "refuse": "not in these two",
        }
    ],
}

PROFILE: Final = {
    "description": "servers that are clients, too",
    "cap": "47d",
    "usages": ["server-auth", "client-auth"],
    "upstreams": [{"upstream": "local"}],
}


def written(rule: dict[str, Any]) -> dict[str, Any]:
    """Return a rule as it stands in the file."""
    label = rule["label"]
    rest = {key: value for key, value in rule.items() if key != "label"}
    about = {"name": label, "because": "a test is about it"}
    return {**about, "names": [f"**.{label}.{TRUSTED_ZONE}"], **rest}


def name_of(label: str) -> str:
    """Return a name that one rule speaks of and nobody has asked for."""
    return fresh_name(f"{label}.{TRUSTED_ZONE}")


@pytest.fixture(scope="module")
def door(tmp_path_factory: pytest.TempPathFactory) -> Iterator[FrontDoor]:
    """A broker with a rule for each test, whose clients may show certificates."""
    folder = tmp_path_factory.mktemp("who")
    anchors = folder / "clients.pem"
    anchors.write_bytes(CLIENT_CA.certificate.public_bytes(Encoding.PEM))
    with running(
        folder / "broker",
        policy={"rules": [written(rule) for rule in RULES]},
        profiles={"server": PROFILE},
        limits={"rates": {"new_accounts": "off"}},
        acme={"client_anchors": str(anchors)},
    ) as made:
        yield made


def check_refused(door: FrontDoor, client: Client, label: str, says: str = "") -> None:
    """See that the rule refuses a name of its own, and no other name."""
    refused = client.order(name_of(label))
    check_refusal(refused, "rejectedIdentifier", 400, rf"rule '{label}' .*{says}")
    assert client.order(fresh_name()).status == 201


def test_rule_for_one_account(door: FrontDoor) -> None:
    """By the thumbprint of its key; another account of the same requester is refused."""
    check_refused(door, door.trusted(), "account", "not for this requester")
    assert door.trusted(key=ACCOUNT_KEY).order(name_of("account")).status == 201


def test_rule_for_any_of_several(door: FrontDoor) -> None:
    """One description that fits is enough, and none is not."""
    client = door.trusted()
    assert client.order(name_of("any")).status == 201
    check_refused(door, client, "neither", "not for this requester")


def test_rule_about_some_and_about_all_others(door: FrontDoor) -> None:
    """Whom it means it refuses, and whom it leaves out it does not."""
    client = door.trusted()
    check_refused(door, client, "who", "not for the farm")
    assert client.order(name_of("not-who")).status == 201
    stranger = door.account()
    refused = stranger.order(name_of("not-who"))
    check_refusal(refused, "rejectedIdentifier", 400, "for the farm alone")
    assert stranger.order(name_of("who")).status == 201


def test_rule_for_nodes_refuses_an_account_that_is_none(door: FrontDoor) -> None:
    """``test_approved_nodes`` has a node that is served under such a rule."""
    check_refused(door, door.trusted(), "node", "not for this requester")


@pytest.mark.parametrize(
    ("label", "right", "wrong"),
    [
        pytest.param("print", KNOWN, OTHER, id="fingerprint"),
        pytest.param("uri", WORKLOAD, NEIGHBOUR, id="uri"),
    ],
)
def test_rule_for_a_client_certificate(
    door: FrontDoor, tmp_path: Path, label: str, right: x509.Certificate, wrong: x509.Certificate
) -> None:
    """That one is let in; another of the same CA is not, nor who shows none."""
    check_refused(door, door.trusted(), label)
    for leaf, status in ((right, 201), (wrong, 400)):
        with closing(Wire(door.penstock)) as wire:
            show(wire, leaf, tmp_path)
            client = Client(wire, f"{door.penstock.external_url}/acme/default")
            assert client.register(mac_key=FARM_KEYS["default"]).status == 201
            assert client.order(name_of(label)).status == status


def show(wire: Wire, leaf: x509.Certificate, folder: Path) -> None:
    """Have a connection show a certificate."""
    pem = CLIENT_KEY.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption())
    file = folder / "client.pem"
    file.write_bytes(leaf.public_bytes(Encoding.PEM) + pem)
    wire.context.load_cert_chain(file)


def test_rule_is_in_force_from_its_first_day_to_its_last(door: FrontDoor) -> None:
    """Not before, though it stands in the file."""
    client = door.trusted()
    check_refused(door, client, "begun", "it began in 2020")
    check_refused(door, client, "not-over", "it ends in 2999")
    assert client.order(name_of("to-come")).status == 201


def test_rule_leaves_challenges(door: FrontDoor) -> None:
    """One of the two that the community has; the other name keeps both."""
    client = door.account()
    offered = []
    for name in PROVED:
        _, order = client.new_order(name)
        (authorization,) = order["authorizations"]
        challenges = client.post(authorization).json()["challenges"]
        offered.append({one["type"] for one in challenges})
    assert offered == [{"dns-01"}, {"http-01", "dns-01"}]


def test_rule_has_certificates_renewed_early(door: FrontDoor) -> None:
    """Renewal info says so: after a tenth of the lifetime instead of two thirds."""
    client = door.trusted()
    early, plain = (share_at_renewal(client, name_of(label)) for label in ("early", "plain"))
    assert 0.0 < early < 0.25
    assert plain > 0.5


def share_at_renewal(client: Client, name: str) -> float:
    """Return after which share of its lifetime a new certificate is to be renewed."""
    _, leaf_der = client.certificate(name)
    leaf = x509.load_der_x509_certificate(leaf_der)
    authority = leaf.extensions.get_extension_for_class(x509.AuthorityKeyIdentifier).value
    number = leaf.serial_number
    serial = number.to_bytes(number.bit_length() // 8 + 1, "big")
    cert_id = f"{b64url(authority.key_identifier or b'')}.{b64url(serial)}"
    directory = client.wire.send("GET", target_of(client.url("directory"))).json()
    info = client.wire.send("GET", f"{target_of(directory['renewalInfo'])}/{cert_id}").json()
    start = datetime.fromisoformat(info["suggestedWindow"]["start"])
    lifetime = leaf.not_valid_after_utc - leaf.not_valid_before_utc
    assert lifetime > timedelta(days=1)
    return (start - leaf.not_valid_before_utc) / lifetime


def test_rule_leaves_usages(door: FrontDoor) -> None:
    """A CSR that asks for more is refused; under no rule the same one is signed."""
    client = door.trusted()
    asked = x509.ExtendedKeyUsage(
        [ExtendedKeyUsageOID.SERVER_AUTH, ExtendedKeyUsageOID.CLIENT_AUTH]
    )
    for label, status in (("servers", 400), ("plain", 200)):
        name = name_of(label)
        _, order = client.new_order(name)
        reply = client.finalize(order, make_csr([name], extensions=[(asked, False)]))
        assert reply.status == status, reply.body
        if status == 400:
            says = r"asks for the extended key usages client-auth, .*default.yaml:[0-9]+"
            check_refusal(reply, "badCSR", 400, says)


def test_client_without_an_agent_is_no_attested_node(door: FrontDoor) -> None:
    """Its account key says nothing of a machine; the refusal names the rule and the ways."""
    client = door.trusted()
    refused = client.order(name_of("node-of"))
    says = r"rule 'node-of' .*wants a node attested by approval or kubernetes, and this account"
    check_refusal(refused, "unauthorized", 403, says)
    assert client.order(fresh_name()).status == 201


def test_pattern_that_backtracks_costs_one_look(door: FrontDoor) -> None:
    """The answer comes, where trying each way to split sixty letters would outlive the broker."""
    client = door.trusted()
    letters = "a" * 62
    refused = client.order(f"{letters}.steps.{TRUSTED_ZONE}")
    check_refusal(refused, "rejectedIdentifier", 400, "all of it matches")
    assert client.order(f"{letters}b.steps.{TRUSTED_ZONE}").status == 201


def test_rules_that_communities_share(door: FrontDoor) -> None:
    """They hold in the two that the file names and not in the third, once it is taken."""
    clients = [door.trusted(community) for community in COMMUNITIES]
    name = name_of("shared")
    assert [client.order(name).status for client in clients] == [201, 201, 201]
    file = door.penstock.policy_file.parent / "shared" / "two.yaml"
    file.parent.mkdir()
    file.write_text(json.dumps(SHARED, indent=1), "utf-8")
    os.kill(door.penstock.pid, signal.SIGHUP)
    process.wait_until(lambda: clients[0].order(name).status == 400, 60, "it is in force")
    says = r"rule 'of-two' \(shared/two.yaml:[0-9]+\): not in these two"
    for client in clients[:2]:
        check_refusal(client.order(name), "rejectedIdentifier", 400, says)
    assert clients[2].order(name).status == 201
