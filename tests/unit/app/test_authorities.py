"""The built-in CAs on disk: made once, by us or under an offline root."""

import asyncio
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest
from cryptography import x509
from cryptography.hazmat.primitives.asymmetric import ec

from broker.app.authorities import ROOT_LIFETIME, Authorities
from broker.app.rotations import ISSUING_LIFETIME
from broker.issuance.errors import Broken
from broker.issuance.events import EventKind
from broker.upstreams.name_constraints import permitted_names
from tests.fakes.authority_keeper import ANNA, Keeper, OfflineRoot
from tests.fakes.clock import START


@pytest.fixture
async def keeper(tmp_path: Path) -> AsyncIterator[Keeper]:
    """Nothing is made yet."""
    async with Keeper.open(tmp_path) as made:
        yield made


async def test_root_and_issuer_are_made_and_kept(keeper: Keeper) -> None:
    """Ten years and five, told apart by their names, and the same after a restart."""
    view = await keeper.initialise()
    assert view["root"]["subject"] == "CN=Penstock local root"
    assert view["root"]["not_after"] == (START + ROOT_LIFETIME).isoformat()
    (issuer,) = view["issuers"]
    assert issuer["subject"] == "CN=Penstock local issuing 1"
    assert issuer["not_after"] == (START + ISSUING_LIFETIME).isoformat()
    await keeper.restart()
    assert await keeper.authorities.show("local") == view
    kept = await keeper.kept()
    assert kept.issuers is not None
    kept.issuers.current.certificate.verify_directly_issued_by(kept.root)  # type: ignore[arg-type]


async def test_whoever_serves_is_told_of_a_new_issuer(keeper: Keeper) -> None:
    """So that a running broker issues without being restarted."""
    await keeper.initialise()
    (state,) = keeper.told
    assert state.issuers is not None


async def test_ca_is_made_once(keeper: Keeper) -> None:
    """A second root under the name of the first would break everyone who trusts that."""
    before = await keeper.initialise()
    with pytest.raises(Broken, match="has been made already; see penstock ca show"):
        await keeper.initialise()
    assert await keeper.authorities.show("local") == before


async def test_two_who_make_it_at_once_make_one(keeper: Keeper) -> None:
    """The second finds it made."""
    outcomes = await asyncio.gather(
        keeper.initialise(), keeper.initialise(), return_exceptions=True
    )
    made = [one for one in outcomes if not isinstance(one, BaseException)]
    assert len(made) == 1
    assert made == [await keeper.authorities.show("local")]


async def test_key_of_a_making_that_was_cut_short_is_in_nobodys_way(keeper: Keeper) -> None:
    """The process ended after its key was made and before its certificate was kept."""
    await keeper.signer.create_key("ca-local-root-1", "ec-p256")
    await keeper.initialise()
    assert (await keeper.kept()).root_key_id == "ca-local-root-2"


async def test_names_without_end_are_a_reason_to_stop(keeper: Keeper) -> None:
    """A hundred keys without a CA are a fault that a person has to look at."""
    for number in range(1, 101):
        keeper.signer.keys[f"ca-local-root-{number}"] = ec.generate_private_key(ec.SECP256R1())
    with pytest.raises(Broken, match="100 keys called ca-local-root-1"):
        await keeper.initialise()


async def test_permitted_e_mail_stands_beside_names(keeper: Keeper) -> None:
    """And nothing else is left out for it: what is permitted of names is names alone."""
    await keeper.initialise(permitted_names=["corp.example", "@**.corp.example"])
    kept = await keeper.kept()
    assert kept.issuers is not None
    issuer = kept.issuers.current
    permitted = permitted_names(issuer.certificate)
    assert (permitted.mail, permitted.dns_suffixes[:1]) == ((".corp.example",), ("corp.example",))
    assert issuer.identifier_types == {"dns", "email"}


async def test_permitted_names_and_networks_stand_in_both(keeper: Keeper) -> None:
    """A verifier holds the CA to them, whatever becomes of its key."""
    await keeper.initialise(permitted_names=["corp.example"], permitted_networks=["10.0.0.0/8"])
    kept = await keeper.kept()
    assert kept.root is not None
    assert kept.issuers is not None
    for certificate in (kept.root, kept.issuers.current.certificate):
        constraints = certificate.extensions.get_extension_for_class(x509.NameConstraints)
        assert constraints.critical
        permitted = [one.value for one in constraints.value.permitted_subtrees or ()]
        assert "corp.example" in permitted
        assert "10.0.0.0/8" in [str(one) for one in permitted]


async def test_subject_keeps_all_its_parts(keeper: Keeper) -> None:
    """Only the common name says which of the two it is."""
    view = await keeper.initialise(subject="CN=Corp CA+OU=PKI,O=Corp,C=DE")
    expected = x509.Name.from_rfc4514_string("CN=Corp CA root+OU=PKI,O=Corp,C=DE")
    assert x509.Name.from_rfc4514_string(view["root"]["subject"]) == expected


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"subject": "Corp CA"}, "subject 'Corp CA' is not of the form CN=Example,O=Example"),
        ({"subject": "O=Corp"}, "subject 'O=Corp' has no common name"),
        ({"permitted_networks": ["10.0.0.1/8"]}, "is not of the form 10.0.0.0/8"),
        ({"permitted_names": ["*.corp.example"]}, "corp.example"),
    ],
    ids=["no-name", "no-common-name", "network", "name"],
)
async def test_impossible_plan_makes_no_key(
    keeper: Keeper, changes: dict[str, Any], words: str
) -> None:
    """It is refused before anything is made; with nothing wrong the same call makes both."""
    with pytest.raises(Broken) as caught:
        await keeper.initialise(**changes)
    assert words in caught.value.reason
    assert keeper.signer.keys == {}
    await keeper.initialise()


async def test_what_was_never_made_says_how_to_make_it(keeper: Keeper) -> None:
    """And is not there for whoever loads it."""
    with pytest.raises(Broken, match="has not been made; see penstock ca init"):
        await keeper.authorities.show("local")
    assert await keeper.registry.load("local") is None


@pytest.fixture(scope="module")
def offline_root() -> OfflineRoot:
    """One root for all tests of this file."""
    return OfflineRoot()


async def test_offline_root_signs_our_request(keeper: Keeper, offline_root: OfflineRoot) -> None:
    """Its key never comes here; what it signed is used from then on."""
    csr_pem = await keeper.authorities.request(
        "local", subject="CN=Corp Issuing 1,O=Corp", actor=ANNA
    )
    waiting = await keeper.authorities.show("local")
    assert (waiting["pending"], waiting["issuers"]) == ("CN=Corp Issuing 1,O=Corp", [])
    view = await keeper.authorities.accept(
        "local", chain_pem=offline_root.answer(csr_pem), anchors_pem=offline_root.pem, actor=ANNA
    )
    assert (view["root_key"], view["pending"]) == ("offline", None)
    assert view["root_pem"] == offline_root.pem
    assert view["issuers"][0]["subject"] == "CN=Corp Issuing 1,O=Corp"  # type: ignore[index]
    assert await keeper.authorities.show("local") == view


async def test_request_can_be_asked_for_again(keeper: Keeper, offline_root: OfflineRoot) -> None:
    """A lost file costs nothing: it is the same key, and the answer to the first one is good."""
    first = await keeper.authorities.request("local", subject=None, actor=ANNA)
    second = await keeper.authorities.request("local", subject=None, actor=ANNA)
    one, other = (x509.load_pem_x509_csr(pem.encode()).public_key() for pem in (first, second))
    assert one == other
    await keeper.authorities.accept(
        "local", chain_pem=offline_root.answer(first), anchors_pem=offline_root.pem, actor=ANNA
    )


async def test_answer_of_another_root_is_refused(keeper: Keeper, offline_root: OfflineRoot) -> None:
    """Only the given anchors are believed; the request goes on waiting for the right one."""
    csr_pem = await keeper.authorities.request("local", subject=None, actor=ANNA)
    chain = OfflineRoot().answer(csr_pem)
    with pytest.raises(Broken, match="was not signed by any of the given roots"):
        await keeper.authorities.accept(
            "local", chain_pem=chain, anchors_pem=offline_root.pem, actor=ANNA
        )
    assert (await keeper.kept()).pending is not None


async def test_anchors_that_are_none_are_refused(keeper: Keeper, offline_root: OfflineRoot) -> None:
    """Before anything else is looked at."""
    with pytest.raises(Broken, match="anchors do not parse"):
        await keeper.authorities.accept(
            "local", chain_pem=offline_root.pem, anchors_pem="nothing", actor=ANNA
        )


async def test_answer_that_nobody_asked_for_is_refused(
    keeper: Keeper, offline_root: OfflineRoot
) -> None:
    """There is no key that it could be for."""
    with pytest.raises(Broken, match="no request of built-in CA 'local' waits"):
        await keeper.authorities.accept(
            "local", chain_pem=offline_root.pem, anchors_pem=offline_root.pem, actor=ANNA
        )


async def test_no_request_beside_an_issuer(keeper: Keeper) -> None:
    """It would throw the issuer away that certificates are verified by."""
    before = await keeper.initialise()
    with pytest.raises(Broken, match="has an issuing CA already"):
        await keeper.authorities.request("local", subject=None, actor=ANNA)
    assert await keeper.authorities.show("local") == before


@pytest.mark.parametrize("host", ["broker.example", "192.0.2.7"])
async def test_ca_that_certifies_the_broker_is_permitted_its_host(
    keeper: Keeper, host: str
) -> None:
    """Held to some names, the CA can still issue the certificate of the broker's own listener."""
    keeper.authorities = Authorities(keeper.registry, own_hosts={"local": (host,)})
    await keeper.initialise(permitted_names=["internal"])
    root = (await keeper.kept()).root
    assert root is not None
    constraints = root.extensions.get_extension_for_class(x509.NameConstraints).value
    assert host in str(constraints.permitted_subtrees)
    assert "internal" in str(constraints.permitted_subtrees)


async def test_unconstrained_ca_stays_so(keeper: Keeper) -> None:
    """Where nothing is held back, the broker's own host makes no constraint."""
    keeper.authorities = Authorities(keeper.registry, own_hosts={"local": ("broker.example",)})
    await keeper.initialise()
    root = (await keeper.kept()).root
    assert root is not None
    with pytest.raises(x509.ExtensionNotFound):
        root.extensions.get_extension_for_class(x509.NameConstraints)


async def test_making_and_its_event_are_one(keeper: Keeper, offline_root: OfflineRoot) -> None:
    """Who made it, with the names of the keys; for a request and for its answer too."""
    await keeper.initialise()
    ((_, event),) = await keeper.store.read_events(after=0, limit=9, order_id=None)
    assert (event.kind, event.actor, event.upstream) == (EventKind.CA_CREATED, ANNA, "local")
    assert event.data == {"key_id": "ca-local-issuing-1", "root_key": "ca-local-root-1"}
    csr_pem = await keeper.authorities.request("other", subject=None, actor=ANNA)
    await keeper.authorities.accept(
        "other",
        chain_pem=offline_root.answer(csr_pem),
        anchors_pem=offline_root.pem,
        actor=ANNA,
    )
    assert (await keeper.events())[1:] == [EventKind.CA_ISSUER_REQUESTED, EventKind.CA_CREATED]
