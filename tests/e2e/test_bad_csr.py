"""CSRs at finalize: refused with what was expected, the order stays ready, nothing is issued."""

import json
from functools import partial

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes
from cryptography.x509.oid import ExtendedKeyUsageOID as Eku

from tests.e2e.bad_csrs import (
    BAD_CSR,
    BAD_KEY,
    KEY,
    KEYS,
    TABLE,
    Asking,
    Make,
    extended,
    named,
    of_key,
    usages,
)
from tests.e2e.front_door import FrontDoor
from tests.e2e.requester import Client, check_refusal, fresh_name, leaf_of
from tests.unit.protocol.builders import make_csr, name, private_key

pytestmark = pytest.mark.e2e


@pytest.fixture(scope="module")
def owner(front_door: FrontDoor) -> Client:
    """A trusted requester: its orders are ready at once."""
    return front_door.trusted()


@pytest.mark.parametrize(("make", "kind", "says"), TABLE.values(), ids=TABLE)
def test_csr_is_refused_and_the_order_stays_ready(
    front_door: FrontDoor, owner: Client, make: Make, kind: str, says: str
) -> None:
    """The order is as it was to the byte, the CA issued nothing; a good CSR finalizes it then."""
    asking = Asking(front_door, owner, [fresh_name(), fresh_name()])
    url, order = owner.new_order(*asking.names)
    csr_der = make(asking)
    before, counts = owner.post(url).body, front_door.penstock.counts()
    check_refusal(owner.finalize(order, csr_der), kind, 400, says)
    assert (owner.post(url).body, front_door.penstock.counts()) == (before, counts)
    assert json.loads(before)["status"] == "ready"
    finalized = owner.finalize(order, make_csr(asking.names, key=private_key("ES256", "good")))
    assert finalized.json()["status"] == "valid", finalized.body
    issued = front_door.penstock.count("ca_certificates")
    assert issued == counts["ca_certificates"] + 1


@pytest.mark.parametrize("label", ["RSA of 1024 bits", "RSA of 2047 bits", "RSA of 4104 bits"])
def test_detail_alone_says_what_was_expected(
    front_door: FrontDoor, owner: Client, label: str
) -> None:
    """Several things are wrong with these keys; most clients print nothing but the detail."""
    names = [fresh_name()]
    _, order = owner.new_order(*names)
    make, _ = KEYS[label]
    reply = owner.finalize(order, make(Asking(front_door, owner, names)))
    assert "ec-p256" in reply.json()["detail"]


def test_the_table_is_long_enough() -> None:
    """At least 60 CSRs are tried."""
    assert len(TABLE) >= 60


GOOD: dict[str, Make] = {
    "in capitals": lambda a: make_csr([one.upper() for one in a.names], key=KEY),
    "in another order": lambda a: make_csr(a.names[::-1], key=KEY),
    "a name twice": lambda a: make_csr([*a.names, a.names[0], a.names[1].upper()], key=KEY),
    "common name of the order": lambda a: make_csr(a.names, key=KEY, subject=name(a.names[1])),
    "common name and one alternative": lambda a: make_csr(
        a.names[:1], key=KEY, subject=name(a.names[1])
    ),
    "no CA": extended(x509.BasicConstraints(ca=False, path_length=None)),
    "usages of the profile": extended(
        usages("digital_signature", "key_encipherment"), x509.ExtendedKeyUsage([Eku.SERVER_AUTH])
    ),
    "SHA-384": named(hash_algorithm=hashes.SHA384()),
    **{
        kind: of_key(partial(private_key, kind, "good csr"))
        for kind in ("RS256", "rsa-3072", "rsa-4096", "ES256", "ES384")
    },
}


@pytest.mark.parametrize("make", GOOD.values(), ids=GOOD)
def test_csr_is_accepted_and_the_certificate_is_what_the_order_says(
    front_door: FrontDoor, owner: Client, make: Make
) -> None:
    """The twins: however the same names are written, the certificate names the order's."""
    asking = Asking(front_door, owner, [fresh_name(), fresh_name()])
    _, order = owner.new_order(*asking.names)
    csr_der = make(asking)
    finalized = owner.finalize(order, csr_der).json()
    assert finalized["status"] == "valid"
    leaf = x509.load_der_x509_certificate(leaf_of(owner.post(finalized["certificate"]).body))
    names = leaf.extensions.get_extension_for_class(x509.SubjectAlternativeName).value
    assert sorted(names.get_values_for_type(x509.DNSName)) == sorted(asking.names)
    assert leaf.public_key() == x509.load_der_x509_csr(csr_der).public_key()
    constraints = leaf.extensions.get_extension_for_class(x509.BasicConstraints).value
    assert not constraints.ca


def test_second_csr_for_a_finalized_order_is_refused(front_door: FrontDoor, owner: Client) -> None:
    """The same CSR gets the order as it stands; another one is refused, and nothing is issued."""
    names = [fresh_name()]
    _, order = owner.new_order(*names)
    csr_der = make_csr(names, key=KEY)
    first = owner.finalize(order, csr_der)
    issued = front_door.penstock.count("ca_certificates")
    other = owner.finalize(order, make_csr(names, key=private_key("ES256", "second")))
    check_refusal(other, "orderNotReady", 403, "finalized with another CSR already")
    again = owner.finalize(order, csr_der)
    assert (again.status, again.body) == (200, first.body)
    assert front_door.penstock.count("ca_certificates") == issued


def test_key_becomes_nobodys_account_after_its_certificate(
    front_door: FrontDoor, owner: Client
) -> None:
    """The check is on keys of accounts there are: the twin of an account's key."""
    key = private_key("ES256", fresh_name())
    owner.certificate(fresh_name(), key=key)
    front_door.account(key=key)
    names = [fresh_name()]
    _, order = owner.new_order(*names)
    check_refusal(owner.finalize(order, make_csr(names, key=key)), BAD_CSR, 400, "account key")


def test_weak_keys_cost_little(front_door: FrontDoor, owner: Client) -> None:
    """Looking for weaknesses takes under half a second of processor time for each key."""
    names = [fresh_name()]
    _, order = owner.new_order(*names)
    asking = Asking(front_door, owner, names)
    csrs = [make(asking) for make, _ in KEYS.values()]
    before = front_door.penstock.processor_seconds()
    for csr_der in csrs:
        assert owner.finalize(order, csr_der).problem == BAD_KEY
    used = front_door.penstock.processor_seconds() - before
    assert used < 0.5 * len(csrs), f"{used:.2f} s for {len(csrs)} keys"
