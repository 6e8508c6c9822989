"""Revocation lists: what they say, when they are built anew, and what is served meanwhile."""

import asyncio
from datetime import timedelta

import pytest
from cryptography import x509

from broker.issuance.errors import Broken, Unreachable
from broker.issuance.records import CaCertificateRecord
from broker.upstreams.authority import Authority, IssuerSet
from broker.upstreams.crl import REQUEST_PAUSE, CrlPublisher, sign_last_crl
from tests.fakes.builtin_ca import DAY, CaWorld, make_world
from tests.fakes.clock import START

LIFETIME = 7 * DAY
FIRST = int(START.timestamp())
"""The first number: the seconds since 1970."""
HALF = int(LIFETIME.total_seconds() / 2)
"""Half of the lifetime, in seconds: how much later, and higher, the next planned one is."""


def publisher(world: CaWorld, issuers: IssuerSet | None = None) -> CrlPublisher:
    """Return a publisher over the world's ledger."""
    return CrlPublisher(
        "local",
        issuers or IssuerSet(world.issuing),
        signer=world.signer,
        store=world.store,
        clock=world.clock,
        lifetime=LIFETIME,
    )


async def revoke(
    world: CaWorld, crls: CrlPublisher, serial: int, *, reason: int = 4, ends: timedelta = 30 * DAY
) -> None:
    """Put a certificate into the ledger, revoked."""
    record = CaCertificateRecord(
        ca="local",
        order_ref=f"order{serial}",
        serial=f"{serial:x}",
        certificate_der=b"",
        issuer_key_id="issuing-1",
        not_after=START + ends,
        issued_at=world.clock.now(),
    )
    await world.store.record_ca_certificate(record)
    await world.store.revoke_ca_certificate(
        "local", record.serial, at=world.clock.now(), reason=reason
    )
    crls.mark_revoked("issuing-1")


async def listed(crls: CrlPublisher, issuer: Authority) -> tuple[int, set[int]]:
    """Return number and serials of the current list, its signature verified."""
    crl = await crls.current(issuer.key_id)
    assert crl is not None
    parsed = x509.load_der_x509_crl(crl.der)
    assert parsed.is_signature_valid(issuer.key.public_key)
    assert parsed.issuer == issuer.certificate.subject
    number = parsed.extensions.get_extension_for_class(x509.CRLNumber).value.crl_number
    assert number == crl.number
    return number, {entry.serial_number for entry in parsed}


async def test_list_says_who_when_and_which() -> None:
    """Dates, number, authority key, and each revoked serial with its reason."""
    world = await make_world()
    crls = publisher(world)
    await revoke(world, crls, 0xABC, reason=1)
    await revoke(world, crls, 0xDEF, reason=0)
    assert await listed(crls, world.issuing) == (FIRST, {0xABC, 0xDEF})
    crl = await crls.current("issuing-1")
    assert crl is not None
    parsed = x509.load_der_x509_crl(crl.der)
    assert parsed.last_update_utc == crl.this_update == START - timedelta(seconds=60)
    assert parsed.next_update_utc == crl.next_update == START + LIFETIME
    pointer = parsed.extensions.get_extension_for_class(x509.AuthorityKeyIdentifier).value
    assert pointer == world.issuing.authority_key_identifier
    compromised = parsed.get_revoked_certificate_by_serial_number(0xABC)
    unspecified = parsed.get_revoked_certificate_by_serial_number(0xDEF)
    assert compromised is not None
    assert unspecified is not None
    reason = compromised.extensions.get_extension_for_class(x509.CRLReason).value.reason
    assert reason is x509.ReasonFlags.key_compromise
    assert compromised.revocation_date_utc == START
    assert not list(unspecified.extensions)


async def test_list_is_kept_until_half_its_lifetime() -> None:
    """Asking often costs nothing; half its lifetime on there is a new one with a higher number."""
    world = await make_world()
    crls = publisher(world)
    before = world.signer.signatures
    assert await listed(crls, world.issuing) == (FIRST, set())
    world.clock.advance(LIFETIME / 2 - timedelta(seconds=1))
    assert await listed(crls, world.issuing) == (FIRST, set())
    assert world.signer.signatures == before + 1
    world.clock.advance(timedelta(seconds=1))
    assert await listed(crls, world.issuing) == (FIRST + HALF, set())


async def test_revocation_makes_the_list_stale_at_once() -> None:
    """The next to ask finds the revoked certificate, and numbers rise."""
    world = await make_world()
    crls = publisher(world)
    assert await listed(crls, world.issuing) == (FIRST, set())
    await revoke(world, crls, 5)
    assert await listed(crls, world.issuing) == (FIRST + 1, {5})
    await revoke(world, crls, 6)
    assert await listed(crls, world.issuing) == (FIRST + 2, {5, 6})


async def test_renewal_that_is_not_due_signs_nothing() -> None:
    """Asking for a renewal twice builds one list."""
    world = await make_world()
    crls = publisher(world)
    await crls.renew_if_due("issuing-1")
    signed = world.signer.signatures
    await crls.renew_if_due("issuing-1")
    assert world.signer.signatures == signed


async def test_waiting_revocations_share_a_list() -> None:
    """Twenty at once are all listed when each returns, with fewer than twenty lists built."""
    world = await make_world()
    crls = publisher(world)

    async def revoke_and_look(serial: int) -> None:
        await revoke(world, crls, serial)
        await crls.renew_if_due("issuing-1")
        assert serial in (await listed(crls, world.issuing))[1]

    before = world.signer.signatures
    await asyncio.gather(*(revoke_and_look(serial) for serial in range(1, 21)))
    assert 1 <= world.signer.signatures - before < 20


async def test_ended_certificate_stays_listed_for_one_more_list() -> None:
    """RFC 5280 §3.3: it leaves only after a list signed beyond its end has named it."""
    world = await make_world()
    crls = publisher(world)
    await revoke(world, crls, 5, ends=DAY)
    world.clock.advance(DAY + LIFETIME / 2)
    assert (await listed(crls, world.issuing))[1] == {5}
    world.clock.advance(LIFETIME)
    assert (await listed(crls, world.issuing))[1] == set()


async def test_old_list_is_served_while_none_can_be_signed() -> None:
    """As long as it runs; then there is none, and one as soon as the signer is back."""
    world = await make_world()
    crls = publisher(world)
    assert await listed(crls, world.issuing) == (FIRST, set())
    world.signer.is_away = True
    await revoke(world, crls, 5)
    assert await listed(crls, world.issuing) == (FIRST, set())
    with pytest.raises(Unreachable):
        await crls.renew_if_due("issuing-1")
    world.clock.advance(LIFETIME)
    with pytest.raises(Unreachable):
        await crls.current("issuing-1")
    world.signer.is_away = False
    world.clock.advance(REQUEST_PAUSE)
    number, serials = await listed(crls, world.issuing)
    assert number > FIRST
    assert serials == {5}


async def test_requests_do_not_wait_for_a_signer_one_after_the_other() -> None:
    """After a failure they are answered with what there is; whoever revokes tries at once."""
    world = await make_world()
    crls = publisher(world)
    await listed(crls, world.issuing)
    world.signer.is_away = True
    await revoke(world, crls, 5)
    await listed(crls, world.issuing)
    world.signer.is_away = False
    assert await listed(crls, world.issuing) == (FIRST, set())
    await crls.renew_if_due("issuing-1")
    assert (await listed(crls, world.issuing))[1] == {5}


async def test_list_of_the_broker_before_is_served_while_none_can_be_signed() -> None:
    """A start while the keys are away publishes what was signed last, for as long as that runs."""
    world = await make_world()
    await revoke(world, before := publisher(world), 5)
    await listed(before, world.issuing)
    world.signer.is_away = True
    crls = publisher(world)
    assert await listed(crls, world.issuing) == (FIRST, {5})
    with pytest.raises(Unreachable):
        await crls.renew_if_due("issuing-1")
    world.clock.advance(LIFETIME)
    with pytest.raises(Unreachable):
        await crls.current("issuing-1")


async def test_list_of_the_broker_before_is_replaced_at_the_first_chance() -> None:
    """It may lack what was revoked since, so it counts as due."""
    world = await make_world()
    await listed(publisher(world), world.issuing)
    crls = publisher(world)
    assert await listed(crls, world.issuing) == (FIRST + 1, set())


async def test_each_issuer_has_its_own_list() -> None:
    """A past issuer's list goes on, under its own key; a stranger has none."""
    world, other = await make_world(), await make_world("ec-p384")
    world.signer.keys["issuing-0"] = other.signer.keys["issuing-1"]
    past = Authority("issuing-0", other.issuing.certificate, other.root.certificate)
    crls = publisher(world, IssuerSet(world.issuing, None, (past,)))
    await revoke(world, crls, 5)
    assert await listed(crls, world.issuing) == (FIRST, {5})
    assert await listed(crls, past) == (FIRST, set())
    assert await crls.current("issuing-9") is None


async def test_hundred_revocations_at_once_share_a_few_lists() -> None:
    """Each is listed when it returns; at most those that had begun before the last are built."""
    world = await make_world()
    crls = publisher(world)
    await crls.renew_if_due("issuing-1")
    before = world.signer.signatures

    async def revoke_one(serial: int) -> None:
        await revoke(world, crls, serial)
        await crls.renew_if_due("issuing-1")

    await asyncio.gather(*(revoke_one(serial) for serial in range(1, 101)))
    assert 1 <= world.signer.signatures - before <= 3
    assert (await listed(crls, world.issuing))[1] == set(range(1, 101))


async def test_schedule_renews_what_is_due_and_nothing_else() -> None:
    """Before anyone asks; an issuer that cannot sign holds up no other."""
    world, other = await make_world(), await make_world("ec-p384")
    world.signer.keys["issuing-0"] = other.signer.keys["issuing-1"]
    past = Authority("issuing-0", other.issuing.certificate, other.root.certificate)
    crls = publisher(world, IssuerSet(past, None, (world.issuing,)))
    await crls.renew_all_due()
    before = world.signer.signatures
    await crls.renew_all_due()
    assert world.signer.signatures == before
    world.clock.advance(LIFETIME / 2)
    held = world.signer.keys.pop("issuing-0")
    with pytest.raises(Broken, match="there is no key 'issuing-0'"):
        await crls.renew_all_due()
    assert world.signer.signatures == before + 1
    world.signer.keys["issuing-0"] = held
    await crls.renew_all_due()
    assert world.signer.signatures == before + 2


async def test_list_says_when_it_was_signed_and_when_the_next_is_planned() -> None:
    """What caches go by."""
    world = await make_world()
    crl = await publisher(world).current("issuing-1")
    assert crl is not None
    assert crl.signed_at == START
    assert crl.renew_at == START + LIFETIME / 2


async def test_last_list_runs_past_everything_that_was_issued() -> None:
    """Or for one lifetime, where nothing was."""
    world = await make_world()
    await revoke(world, publisher(world), 5, ends=90 * DAY)
    for last_end, until in (
        (None, START),
        (START + 90 * DAY, START + 90 * DAY),
        (START - DAY, START),
    ):
        der = await sign_last_crl(
            "local",
            world.issuing,
            signer=world.signer,
            store=world.store,
            clock=world.clock,
            last_end=last_end,
            lifetime=LIFETIME,
        )
        crl = x509.load_der_x509_crl(der)
        assert crl.next_update_utc == until + LIFETIME
        assert [one.serial_number for one in crl] == [5]
        assert crl.is_signature_valid(world.issuing.key.public_key)
