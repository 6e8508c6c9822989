"""The desk about upstreams and the built-in CA."""

from dataclasses import replace
from typing import Any

import pytest

from broker.issuance.events import Event, EventKind
from broker.operations import OperatorDesk, Recovery
from broker.web.operator import OperationError
from tests.unit.operations.conftest import ANNA, REQUEST_SPKI_SHA256, Office


async def test_registration_keeps_an_account_for_each_community(office: Office) -> None:
    """With who and why in the same transaction."""
    made = await office.desk.upstream_register(actor=ANNA, upstream="ca", agree_to_terms=True)
    assert [each["community"] for each in made] == ["default", "lab"]
    assert office.upstreams.agreed == [True, True]
    events = await office.world.events(EventKind.UPSTREAM_ACCOUNT_REGISTERED)
    assert {(event.actor, event.upstream) for event in events} == {(ANNA, "ca")}
    assert [event.community for event in events] == ["default", "lab"]
    listed = {each["upstream"]: each for each in await office.desk.upstream_list()}
    assert [each["community"] for each in listed["ca"]["accounts"]] == ["default", "lab"]
    assert listed["local"]["accounts"] == []


async def test_registration_for_one_community_leaves_the_others(office: Office) -> None:
    """As asked."""
    made = await office.desk.upstream_register(actor=ANNA, upstream="ca", community="lab")
    assert [each["community"] for each in made] == ["lab"]
    assert office.upstreams.agreed == [False]


async def test_restored_broker_begins_no_orders_anew_by_registering(office: Office) -> None:
    """What was finalized after the backup would be ordered twice under another account."""

    class Held:
        restoration = object()

    made: Any = office.desk
    held: Any = Recovery(
        standstill=Held(),  # type: ignore[arg-type]
        reconciliation=None,  # type: ignore[arg-type]
        dispatcher=office.world.dispatcher,
    )
    desk = OperatorDesk(replace(made._rooms, recovery=held))
    await desk.upstream_register(actor=ANNA, upstream="ca", community="lab")
    before = replace(
        await office.upstreams.register("ca", "default", agree_to_terms=True),
        account_url="https://ca.example/acct/emptied",
    )
    event = Event(kind=EventKind.UPSTREAM_ACCOUNT_REGISTERED, at=before.registered_at)
    await office.world.store.save_upstream_account(before, event)
    with pytest.raises(OperationError, match="restored") as told:
        await desk.upstream_register(actor=ANNA, upstream="ca", community="default")
    assert "--accept-loss ca" in (told.value.hint or "")
    assert await office.world.store.find_upstream_account("ca", "default") == before
    await office.desk.upstream_register(actor=ANNA, upstream="ca", community="default")
    assert await office.world.store.find_upstream_account("ca", "default") != before


@pytest.mark.parametrize(
    ("given", "words"),
    [
        ({"upstream": "local"}, "is built in and knows no accounts"),
        ({"upstream": "gone"}, "no upstream is called 'gone'"),
        ({"upstream": "ca", "community": "web"}, "serves default, lab, not 'web'"),
    ],
    ids=["built-in", "unknown", "community"],
)
async def test_registration_that_makes_no_sense_is_refused(
    office: Office, given: dict[str, str], words: str
) -> None:
    """And nothing is kept."""
    with pytest.raises(OperationError) as caught:
        await office.desk.upstream_register(actor=ANNA, **given)  # type: ignore[arg-type]
    assert words in caught.value.message
    assert await office.world.events(EventKind.UPSTREAM_ACCOUNT_REGISTERED) == []


async def test_check_tells_each_pair(office: Office) -> None:
    """Upstream and community, with what is wrong."""
    office.upstreams.faults.append("no account is registered")
    found = await office.desk.upstream_check()
    assert [(each["upstream"], each["community"], len(each["faults"])) for each in found] == [
        ("local", "default", 0),
        ("ca", "default", 1),
        ("ca", "lab", 1),
    ]
    assert len(await office.desk.upstream_check(upstream="local")) == 1


async def test_resuming_what_is_not_suspended_is_refused(office: Office) -> None:
    """And leaves no event."""
    from broker.issuance.errors import Conflict

    with pytest.raises(Conflict):
        await office.desk.upstream_resume(actor=ANNA, upstream="ca")
    assert await office.world.events(EventKind.UPSTREAM_RESUMED) == []


async def test_only_built_in_ca_needs_no_name(office: Office) -> None:
    """There is one, so it is meant."""
    assert (await office.desk.ca_show())["upstream"] == "local"
    with pytest.raises(OperationError, match="no built-in upstream is called 'ca'"):
        await office.desk.ca_show(upstream="ca")


async def test_ca_is_made_as_asked(office: Office) -> None:
    """With its constraints, and an event."""
    await office.desk.ca_init(
        actor=ANNA,
        subject="CN=Example",
        permitted_names=["internal"],
        permitted_networks=["10.0.0.0/8"],
    )
    assert office.authorities.made == [("local", "CN=Example", ("internal",), ("10.0.0.0/8",))]
    assert office.authorities.actors == [ANNA]


async def test_ca_is_held_to_what_policy_allows(office: Office) -> None:
    """Where nothing is said about names, and not where it is said that there is no constraint."""
    await office.desk.ca_init(actor=ANNA)
    await office.desk.ca_init(actor=ANNA, unconstrained=True)
    (_, _, names, networks), free = office.authorities.made
    assert names == tuple(office.world.policies.current("default").allow.bases) != ()
    assert networks == ()
    assert free == ("local", None, (), ())


async def test_ca_may_certify_the_e_mail_that_policy_allows(office: Office) -> None:
    """But for a pattern of every address, which no constraint can say."""
    before = office.world.policies.current("default").allow.bases
    patterns = f'"**.{before[0]}", "@corp.example", "@**"'
    office.world.policies.change(f'"**.{before[0]}"', patterns)
    await office.desk.ca_init(actor=ANNA)
    ((_, _, names, _),) = office.authorities.made
    assert names == (*before, "@corp.example")


async def test_ca_for_every_address_of_e_mail_alone_has_to_be_asked_for(office: Office) -> None:
    """No constraint says that, and without one it could certify every DNS name."""
    before = office.world.policies.current("default").allow.bases
    office.world.policies.change(f'"**.{before[0]}"', '"@**"')
    with pytest.raises(OperationError, match="every address of e-mail and nothing else") as caught:
        await office.desk.ca_init(actor=ANNA)
    assert "--permit-name" in (caught.value.hint or "")
    assert office.authorities.made == []
    await office.desk.ca_init(actor=ANNA, permitted_names=["@corp.example"])
    await office.desk.ca_init(actor=ANNA, unconstrained=True)
    assert [made[2] for made in office.authorities.made] == [("@corp.example",), ()]


async def test_ca_may_certify_the_addresses_that_policy_allows(office: Office) -> None:
    """Networks in the policy become networks in the constraints."""
    before = office.world.policies.current("default").allow.bases
    office.world.policies.change(f'"**.{before[0]}"', f'"**.{before[0]}", "10.20.0.0/16"')
    await office.desk.ca_init(actor=ANNA)
    assert office.authorities.made == [("local", None, tuple(before), ("10.20.0.0/16",))]


async def test_policy_that_allows_every_name_constrains_nothing(office: Office) -> None:
    """A constraint to everything would be none."""
    before = office.world.policies.current("default").allow.bases[0]
    office.world.policies.change(f"**.{before}", "**")
    assert "" in office.world.policies.current("default").allow.bases
    await office.desk.ca_init(actor=ANNA)
    assert office.authorities.made == [("local", None, (), ())]


async def test_offline_root_signs_what_was_asked(office: Office) -> None:
    """A request goes out, a certificate comes back."""
    made = await office.desk.ca_init(actor=ANNA, issuing_csr=True)
    assert made["csr_pem"].startswith("-----BEGIN CERTIFICATE REQUEST-----")
    assert made["spki_sha256"] == REQUEST_SPKI_SHA256
    await office.desk.ca_accept(actor=ANNA, chain_pem="chain", anchors_pem="root")
    assert office.authorities.made == [("local", None), ("local", "chain", "root")]


async def test_rotation_is_asked_of_the_keeper_step_by_step(office: Office) -> None:
    """For the only built-in CA, by whom it was asked."""
    asked = await office.desk.ca_rotate_prepare(actor=ANNA, subject="CN=Two", issuing_csr=True)
    assert asked["spki_sha256"] == REQUEST_SPKI_SHA256
    await office.desk.ca_rotate_activate(actor=ANNA, upstream="local")
    await office.desk.ca_rotate_retire(actor=ANNA, issuer="ca-local-issuing-1")
    assert office.authorities.made == [
        ("prepare", "local", "CN=Two", True),
        ("activate", "local"),
        ("retire", "local", "ca-local-issuing-1"),
    ]
    assert office.authorities.actors == [ANNA, ANNA, ANNA]
    with pytest.raises(OperationError, match="no built-in upstream is called 'ca'"):
        await office.desk.ca_rotate_activate(actor=ANNA, upstream="ca")
