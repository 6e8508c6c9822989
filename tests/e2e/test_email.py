"""Addresses of e-mail at a real broker: who may have which, unproven, from a CA of its own."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any, Final

import pytest
from cryptography import x509
from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID

from tests.e2e.front_door import COMMUNITIES, FrontDoor, running
from tests.e2e.requester import TRUSTED_ZONE, Client, Reply, check_refusal, fresh_name, leaf_of
from tests.peers import process
from tests.unit.protocol.builders import make_csr

pytestmark = pytest.mark.e2e

MAIL = x509.RFC822Name
JANE: Final = "jane@corp.example"


def profile(ca_profile: str, **more: Any) -> dict[str, Any]:
    """Return a profile of the policy that takes one of the CA."""
    return {
        "description": f"as {ca_profile}",
        "cap": "47d",
        "upstreams": [{"upstream": "local", "profile": ca_profile}],
        **more,
    }


POLICY: Final[dict[str, Any]] = {
    "names": {
        "allow": [f"**.{TRUSTED_ZONE}", "**.example.test", "@corp.example", "@**.eu.corp.example"],
        "deny": ["root@corp.example"],
    },
    "profiles": {
        "server": profile("server", usages=["server-auth"]),
        "mail": profile(
            "mail",
            usages=["email-protection"],
            subject=["1.2.840.113549.1.9.1"],
            same_csr_within="1h",
        ),
        "open": profile("mail", usages=["email-protection"]),
    },
    "trusted": [
        {
            "eab": ["farm"],
            "names": [f"**.{TRUSTED_ZONE}", "@corp.example", "@**.eu.corp.example"],
            "profiles": ["mail"],
            "because": "the farm is the directory of our people",
        }
    ],
    "caps": [{"names": ["@**.eu.corp.example"], "cap": "7d"}],
}


@pytest.fixture(scope="module")
def door(tmp_path_factory: pytest.TempPathFactory) -> Iterator[FrontDoor]:
    """A broker whose CA has a profile for e-mail beside that for servers."""
    with running(
        tmp_path_factory.mktemp("email"),
        policy=POLICY,
        ca_profiles={
            "server": {"usages": ["server-auth"]},
            "mail": {"usages": ["email-protection"]},
        },
        limits={"rates": {"new_accounts": "off"}},
    ) as made:
        yield made


def order(client: Client, *names: str, profile: str = "mail") -> Reply:
    """Ask for names, those with an ``@`` as addresses of e-mail."""
    identifiers = [{"type": "email" if "@" in name else "dns", "value": name} for name in names]
    return client.post(client.url("new-order"), {"identifiers": identifiers, "profile": profile})


def leaf(client: Client, made: Mapping[str, Any], csr_der: bytes) -> x509.Certificate:
    """Finalize an order and return its certificate."""
    reply = client.finalize(made, csr_der)
    assert reply.json().get("status") == "valid", reply.body
    return x509.load_der_x509_certificate(leaf_of(client.post(reply.json()["certificate"]).body))


def names_of(certificate: x509.Certificate) -> list[x509.GeneralName]:
    """Return the subject alternative names."""
    return list(certificate.extensions.get_extension_for_class(x509.SubjectAlternativeName).value)


def address_subject(address: str) -> x509.Name:
    """Return a subject with an address in it."""
    return x509.Name([x509.NameAttribute(NameOID.EMAIL_ADDRESS, address)])


def test_an_address_under_a_rule_is_certified_for_mail(door: FrontDoor) -> None:
    """The domain in lower case, the local part as it was asked for, and nothing to prove."""
    client = door.trusted()
    reply = order(client, "Jane.O'Hara+x@CORP.example")
    assert reply.status == 201, reply.body
    made, address = reply.json(), "Jane.O'Hara+x@corp.example"
    assert (made["status"], made["identifiers"]) == (
        "ready", [{"type": "email", "value": address}]
    )  # fmt: skip
    (url,) = made["authorizations"]
    authorization = client.post(url).json()
    assert (authorization["status"], authorization["challenges"]) == ("valid", [])
    certificate = leaf(client, made, make_csr([MAIL(address)]))
    assert names_of(certificate) == [MAIL(address)]
    usages = certificate.extensions.get_extension_for_class(x509.ExtendedKeyUsage).value
    assert list(usages) == [ExtendedKeyUsageOID.EMAIL_PROTECTION]
    serial = f"{certificate.serial_number:x}"
    evidence = door.penstock.json("cert", "evidence", serial)
    assert address in json.dumps(evidence)
    assert address in json.dumps(door.penstock.json("cert", "list"))
    assert door.penstock.json("audit", "trace", serial)


def test_an_address_of_another_domain_is_refused_with_the_rule(door: FrontDoor) -> None:
    """Each address by itself, whatever stands beside it."""
    refused = order(door.trusted(), JANE, "jane@corp.example.net")
    says = r"'jane@corp.example.net' is allowed by no rule \(default.yaml:[0-9]+\)"
    check_refusal(refused, "rejectedIdentifier", 400, says)
    denied = order(door.trusted(), "Root@corp.example")
    check_refusal(denied, "rejectedIdentifier", 400, r"denied by policy \(default.yaml:[0-9]+\)")


@pytest.mark.parametrize(
    "address",
    [f"jane@h.{TRUSTED_ZONE}", "jane@*.eu.corp.example", '"jane doe"@corp.example', "@corp.example",
     "jane@[10.0.0.1]", "jane@bücher.corp.example", "jane@eu.corp.example"],
)  # fmt: skip
def test_no_other_rule_opens_an_address(door: FrontDoor, address: str) -> None:
    """A rule of DNS names, a star, and what is no address in its one spelling."""
    reply = order(door.trusted(), address)
    assert (reply.status, reply.problem) == (400, "rejectedIdentifier"), reply.body


def test_an_address_is_no_dns_name(door: FrontDoor) -> None:
    """A rule of e-mail gives neither its domain nor a name that looks like an address."""
    client = door.trusted()
    check_refusal(order(client, "corp.example"), "rejectedIdentifier", 400, "allowed by no rule")
    identifiers = [{"type": "dns", "value": JANE}]
    reply = client.post(client.url("new-order"), {"identifiers": identifiers, "profile": "mail"})
    assert (reply.status, reply.problem) == (400, "rejectedIdentifier"), reply.body


@pytest.mark.parametrize(
    "csr_der",
    [
        pytest.param(make_csr([MAIL("john@corp.example")]), id="another"),
        pytest.param(make_csr([MAIL(JANE), MAIL("john@corp.example")]), id="one-more"),
        pytest.param(make_csr([MAIL("Jane@corp.example")]), id="in-another-case"),
        pytest.param(make_csr([MAIL(JANE), "corp.example"]), id="its-domain-too"),
        pytest.param(
            make_csr([MAIL(JANE)], subject=address_subject("john@corp.example")),
            id="in-the-subject",
        ),
    ],
)
def test_a_csr_names_the_address_of_its_order(door: FrontDoor, csr_der: bytes) -> None:
    """The order stays ready, and the right CSR brings the certificate."""
    client = door.trusted()
    made = order(client, JANE).json()
    check_refusal(client.finalize(made, csr_der), "badCSR", 400, "CSR ")
    right = make_csr([MAIL(JANE)], subject=address_subject("jane@Corp.example"))
    assert names_of(leaf(client, made, right)) == [MAIL(JANE)]


@pytest.mark.parametrize("profile", ["open", "server"])
def test_an_address_that_would_need_proof_is_refused(door: FrontDoor, profile: str) -> None:
    """Under a profile, or for a requester, of which nothing says that no proof is needed."""
    says = (
        r"no challenge here can prove: .* 'trusted' .* profile '(open|server|mail)' \(default.yaml:"
    )
    refused = order(door.trusted(), JANE, profile=profile)
    check_refusal(refused, "rejectedIdentifier", 400, says)
    check_refusal(order(door.account(), JANE), "rejectedIdentifier", 400, says)


def test_names_and_addresses_in_one_order(door: FrontDoor) -> None:
    """Each by its own rules: the name is proven, the address given; the tighter cap holds."""
    client, name, address = door.trusted(), "p0.example.test", "jane@it.eu.corp.example"
    made = order(client, name, address).json()
    states = {
        one["identifier"]["value"]: one["status"]
        for one in (client.post(url).json() for url in made["authorizations"])
    }
    assert states == {name: "pending", address: "valid"}
    pending = [u for u in made["authorizations"] if client.post(u).json()["status"] == "pending"]
    client.prove(door.answers.key_authorizations, {"authorizations": pending})
    certificate = leaf(client, made, make_csr([name, MAIL(address)]))
    assert set(names_of(certificate)) == {x509.DNSName(name), MAIL(address)}
    assert (certificate.not_valid_after_utc - certificate.not_valid_before_utc).days <= 7


def test_the_same_csr_again_brings_the_same_certificate(door: FrontDoor) -> None:
    """Names of every type are compared, so that of a young certificate is none lost or won."""
    client, csr_der = door.trusted(), make_csr([MAIL("young@corp.example")])
    first, again = (
        leaf(client, order(client, "young@corp.example").json(), csr_der) for _ in range(2)
    )
    assert first == again


def test_caa_of_its_domain_is_looked_at(door: FrontDoor) -> None:
    """By issuemail (RFC 9495); here no resolver answers, which is reported and no more."""
    client = door.trusted("strict")
    leaf(client, order(client, JANE).json(), make_csr([MAIL(JANE)]))

    def looked() -> list[str]:
        rows = door.penstock.rows("SELECT data FROM events WHERE kind = 'caa-looked-at'")
        return [one["outcome"] for (data,) in rows for one in json.loads(data)["names"]
                if one["name"] == JANE]  # fmt: skip

    process.wait_until(lambda: looked() == ["failed"], 30, "the look-up is reported")


def test_the_ca_is_held_to_the_addresses_that_policy_allows(door: FrontDoor) -> None:
    """Made from the policy: the host of one pattern and what is below the other."""
    issuing = x509.load_pem_x509_certificates(door.penstock.ca_bundle.read_bytes())[0]
    constraints = issuing.extensions.get_extension_for_class(x509.NameConstraints).value
    permitted = constraints.permitted_subtrees or []
    found = {one.value for one in permitted if isinstance(one, x509.RFC822Name)}
    assert found == {"corp.example", ".eu.corp.example"}


def test_tools_take_addresses(door: FrontDoor, tmp_path: Path) -> None:
    """Explained with the rule that gives it, and compared against a policy that no longer does."""
    order_of = ("policy", "explain", "--eab", "farm", "--profile")
    told = door.penstock.json(*order_of, "mail", JANE, fresh_name())
    assert told["allowed"], told
    refused = door.penstock.json(*order_of, "open", f"email:{JANE}")
    assert not refused["allowed"]
    assert "no challenge here can prove" in json.dumps(refused)
    client = door.trusted()
    leaf(client, order(client, JANE).json(), make_csr([MAIL(JANE)]))
    without = {**door.penstock.policy_document(), "names": {"allow": ["**.example.test"]}}
    for community in COMMUNITIES:
        policy = json.dumps({**without, "community": community})
        (tmp_path / f"{community}.yaml").write_text(policy, "utf-8")
    assert JANE in json.dumps(door.penstock.json("policy", "diff", str(tmp_path)))
