"""Roots and issuing CAs: what they say, and what they are published under."""

import hashlib
from dataclasses import replace
from datetime import timedelta

import pytest
from cryptography import x509

from broker.issuance.errors import Broken, Conflict
from broker.upstreams.authority import (
    Authority,
    AuthorityPlan,
    IssuerSet,
    PermittedNames,
    RetiredIssuer,
    create_issuing,
    create_root,
    issuing_csr,
    new_serial,
)
from tests.fakes.builtin_ca import DAY, dns, make_world
from tests.fakes.clock import START, FakeClock
from tests.fakes.signer import FakeSigner

KINDS = ["ec-p256", "ec-p384", "rsa-2048"]
ROOT = AuthorityPlan(key_id="root", subject="CN=Root,O=Corp", lifetime=3650 * DAY)
ISSUING = AuthorityPlan(key_id="issuing-1", subject="CN=Issuing,O=Corp", lifetime=365 * DAY)


@pytest.mark.parametrize("kind", KINDS)
async def test_root_says_what_a_root_says(kind: str) -> None:
    """Path length one, critical, both signing usages and no other, its own key's identifier."""
    root = await create_root(FakeSigner(), FakeClock(), replace(ROOT, kind=kind))
    root.certificate.verify_directly_issued_by(root.certificate)
    extensions = root.certificate.extensions
    basic = extensions.get_extension_for_class(x509.BasicConstraints)
    assert (basic.critical, basic.value) == (True, x509.BasicConstraints(ca=True, path_length=1))
    assert usages(extensions) == {"key_cert_sign", "crl_sign"}
    assert root.certificate.not_valid_after_utc == START + ROOT.lifetime
    assert root.certificate.not_valid_before_utc == START - timedelta(seconds=60)


def usages(extensions: x509.Extensions) -> set[str]:
    """Return the key usages that are set; the extension has to be critical."""
    usage = extensions.get_extension_for_class(x509.KeyUsage)
    assert usage.critical
    named = ["digital_signature", "content_commitment", "key_encipherment", "data_encipherment"]
    named += ["key_agreement", "key_cert_sign", "crl_sign"]
    return {name for name in named if getattr(usage.value, name)}


@pytest.mark.parametrize("kind", KINDS)
async def test_issuing_ca_says_what_an_issuing_ca_says(kind: str) -> None:
    """Path length zero, critical name constraints, and a pointer back to the root's key."""
    signer, clock = FakeSigner(), FakeClock()
    root = await create_root(signer, clock, replace(ROOT, kind=kind))
    plan = replace(ISSUING, kind=kind, permitted=PermittedNames(("corp.example",)))
    issuing = await create_issuing(signer, clock, plan, root)
    issuing.certificate.verify_directly_issued_by(root.certificate)
    extensions = issuing.certificate.extensions
    basic = extensions.get_extension_for_class(x509.BasicConstraints)
    assert (basic.critical, basic.value) == (True, x509.BasicConstraints(ca=True, path_length=0))
    assert usages(extensions) == {"key_cert_sign", "crl_sign"}
    constraints = extensions.get_extension_for_class(x509.NameConstraints)
    assert constraints.critical
    assert constraints.value.permitted_subtrees == [x509.DNSName("corp.example")]
    pointer = extensions.get_extension_for_class(x509.AuthorityKeyIdentifier).value
    assert pointer == root.authority_key_identifier


async def test_constraints_of_the_root_hold_below_it() -> None:
    """A name has to pass both certificates of the path."""
    signer, clock = FakeSigner(), FakeClock()
    root = await create_root(
        signer, clock, replace(ROOT, permitted=PermittedNames(("corp.example",)))
    )
    issuing = await create_issuing(signer, clock, ISSUING, root)
    assert issuing.check_names(dns("www.corp.example")) is None
    fault = issuing.check_names(dns("www.corp.example", "www.else.example"))
    assert fault is not None
    assert "www.else.example" in fault


async def test_issuing_ca_is_not_permitted_more_than_its_root() -> None:
    """Constraints that could never be met are a typing error, and told before a key is made."""
    signer, clock = FakeSigner(), FakeClock()
    root = await create_root(
        signer, clock, replace(ROOT, permitted=PermittedNames(("corp.example",)))
    )
    plan = replace(ISSUING, permitted=PermittedNames(("else.example",)))
    with pytest.raises(Broken, match="permitted more than its root"):
        await create_issuing(signer, clock, plan, root)
    assert set(signer.keys) == {"root"}


async def test_issuing_ca_does_not_outlive_its_root() -> None:
    """As long as the root is fine, a second longer is not."""
    signer, clock = FakeSigner(), FakeClock()
    root = await create_root(signer, clock, ROOT)
    with pytest.raises(Broken, match="issuing CA would end"):
        await create_issuing(
            signer, clock, replace(ISSUING, lifetime=ROOT.lifetime + timedelta(seconds=1)), root
        )
    issuing = await create_issuing(signer, clock, replace(ISSUING, lifetime=ROOT.lifetime), root)
    assert issuing.not_after == root.not_after


@pytest.mark.parametrize(
    ("changes", "reason"),
    [
        pytest.param({"key_id": "../root"}, "key id", id="path-as-key-id"),
        pytest.param({"key_id": "Root"}, "key id", id="upper-case-key-id"),
        pytest.param({"key_id": "a" * 65}, "key id", id="long-key-id"),
        pytest.param({"subject": "Root"}, "is not of the form", id="subject-without-attribute"),
        pytest.param({"subject": ""}, "subject is empty", id="no-subject"),
        pytest.param({"lifetime": timedelta(0)}, "lifetime", id="no-lifetime"),
        pytest.param({"lifetime": -DAY}, "lifetime", id="negative-lifetime"),
        pytest.param({"permitted": PermittedNames(("a b",))}, "no DNS name", id="bad-suffix"),
    ],
)
async def test_impossible_plan_is_refused(changes: dict[str, object], reason: str) -> None:
    """With a sentence for the operator, and without a key left behind."""
    signer = FakeSigner()
    plan = replace(ROOT, **changes)  # type: ignore[arg-type]
    with pytest.raises(Broken, match=reason):
        await create_root(signer, FakeClock(), plan)
    assert not signer.keys


async def test_root_and_issuing_ca_have_different_names() -> None:
    """With one name for both, verifiers cannot tell whose signature to look for."""
    signer, clock = FakeSigner(), FakeClock()
    root = await create_root(signer, clock, ROOT)
    with pytest.raises(Broken, match="would both be called"):
        await create_issuing(signer, clock, replace(ISSUING, subject=ROOT.subject), root)


async def test_existing_key_is_never_taken_over() -> None:
    """A root under a key that something else uses would sign for it."""
    signer, clock = FakeSigner(), FakeClock()
    await create_root(signer, clock, ROOT)
    with pytest.raises(Conflict):
        await create_root(signer, clock, ROOT)


def test_serials_are_positive_and_fit_twenty_octets() -> None:
    """RFC 5280 §4.1.2.2; and they are not the same twice."""
    serials = [new_serial() for _ in range(200)]
    assert all(0 < serial < 2**159 for serial in serials)
    assert max(serials) > 2**150
    assert len(set(serials)) == 200


async def test_issuers_are_found_by_their_key() -> None:
    """Current, next and past ones; current first."""
    world = await make_world()
    following = Authority("issuing-2", world.root.certificate)
    gone = Authority("issuing-0", world.root.certificate)
    issuers = IssuerSet(world.issuing, following, (gone,))
    assert [issuer.key_id for issuer in issuers] == ["issuing-1", "issuing-2", "issuing-0"]
    assert issuers.find("issuing-2") is following
    assert issuers.find("issuing-3") is None


async def test_request_can_be_written_again() -> None:
    """A lost file costs nothing: the same key is asked for."""
    signer = FakeSigner()
    first, second = [x509.load_pem_x509_csr(await issuing_csr(signer, ISSUING)) for _ in range(2)]
    assert first.public_key() == second.public_key()
    assert list(signer.keys) == ["issuing-1"]


# ----------------------------------------------------------------------- keys that lie in a store

IN_STORE = "vault:transit-ca/penstock.local.issuing#2"


async def test_key_that_is_made_already_is_used_as_it_is() -> None:
    """Somebody else makes the keys of that store; the certificate is for the one that is there."""
    signer, clock = FakeSigner(), FakeClock()
    root = await create_root(signer, clock, ROOT)
    spki = await signer.create_key(IN_STORE, "ec-p384")
    plan = replace(ISSUING, key_id=IN_STORE, is_made=True)
    issuing = await create_issuing(signer, clock, plan, root)
    assert issuing.key.spki_der == spki
    csr = x509.load_pem_x509_csr(await issuing_csr(signer, plan))
    assert csr.public_key() == issuing.certificate.public_key()
    with pytest.raises(Broken, match="there is no key"):
        await create_root(signer, clock, replace(ROOT, key_id="vault:m/root#1", is_made=True))


@pytest.mark.parametrize(
    "key_id",
    ["vault:transit-ca/local.issuing", "vault:transit-ca/key#0", "vault:#1", "vault:a b#1"],
    ids=["no version", "version nought", "no name", "space"],
)
async def test_id_in_a_store_names_a_version(key_id: str) -> None:
    """The latest version would be another key tomorrow."""
    with pytest.raises(Broken, match="vault:MOUNT/NAME#VERSION"):
        await create_root(FakeSigner(), FakeClock(), replace(ROOT, key_id=key_id))


async def test_key_in_a_store_is_published_by_its_public_key() -> None:
    """Where it lies is told to nobody; one in a file goes by its name; each is found by its own."""
    signer, clock = FakeSigner(), FakeClock()
    root = await create_root(signer, clock, ROOT)
    stored = await create_issuing(signer, clock, replace(ISSUING, key_id=IN_STORE), root)
    named = await create_issuing(signer, clock, replace(ISSUING, subject="CN=Other"), root)
    assert named.published_name == "issuing-1"
    assert stored.published_name == hashlib.sha256(stored.key.spki_der).hexdigest()[:32]
    issuers = IssuerSet(stored, None, (), (RetiredIssuer(named, b""),))
    assert issuers.find_named(stored.published_name) == stored
    assert issuers.find_named("issuing-1") == named
    assert issuers.find_named(IN_STORE) is None
