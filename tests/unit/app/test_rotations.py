"""Rotation of the built-in CA: each step, what it refuses, and what is left when it is cut off."""

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable
from datetime import timedelta
from pathlib import Path

import pytest
from cryptography import x509

from broker.app.authorities import ROOT_LIFETIME, Authorities
from broker.app.rotations import ISSUING_LIFETIME
from broker.issuance.errors import Broken, Conflict, Unreachable
from broker.issuance.events import EventKind
from broker.issuance.records import CaRole
from tests.fakes.authority_keeper import ANNA, DAY, Keeper, Killed, OfflineRoot, away
from tests.fakes.clock import START

FIRST, SECOND = "ca-local-issuing-1", "ca-local-issuing-2"
ROOT = ("root", "ca-local-root-1")


@pytest.fixture
async def keeper(tmp_path: Path) -> AsyncIterator[Keeper]:
    """The CA is made, held to corp.example."""
    async with Keeper.open(tmp_path) as made:
        await made.initialise(permitted_names=["corp.example"])
        yield made


# ----------------------------------------------------------------------------------- prepare


async def test_next_issuer_is_made_under_the_same_root(keeper: Keeper) -> None:
    """The next number, the same names, another key; whoever serves is told, and nothing else."""
    view = await keeper.prepare()
    assert await keeper.roles() == [ROOT, ("current", FIRST), ("next", SECOND)]
    assert [one["subject"] for one in view["issuers"]] == [
        "CN=Penstock local issuing 1",
        "CN=Penstock local issuing 2",
    ]
    issuers = keeper.told[-1].issuers
    assert issuers is not None
    assert issuers.next is not None
    assert issuers.current.key_id == FIRST
    coming = issuers.next.certificate
    coming.verify_directly_issued_by(issuers.current.parent)  # type: ignore[arg-type]
    constraints = [
        one.extensions.get_extension_for_class(x509.NameConstraints)
        for one in (issuers.current.certificate, coming)
    ]
    assert constraints[0] == constraints[1]
    assert coming.public_key() != issuers.current.certificate.public_key()


async def test_subject_can_be_chosen(keeper: Keeper) -> None:
    """But two CAs never share a name: a verifier would look for one with the key of the other."""
    with pytest.raises(Broken, match="there is a CA called 'CN=Penstock local issuing 1' already"):
        await keeper.prepare(subject="CN=Penstock local issuing 1")
    await keeper.prepare(subject="CN=Corp Issuing 2027,O=Corp")
    next_one = (await keeper.kept()).having(CaRole.NEXT)[0]
    assert next_one.subject == "CN=Corp Issuing 2027,O=Corp"


async def test_one_next_issuer_at_a_time(keeper: Keeper) -> None:
    """The second waits for the first to be put to work."""
    await keeper.prepare()
    with pytest.raises(Broken, match=f"'{SECOND}' of 'local' is prepared already"):
        await keeper.prepare()
    await keeper.activate()
    await keeper.prepare()


async def test_two_who_prepare_at_once_prepare_one(keeper: Keeper) -> None:
    """The other finds it prepared."""
    outcomes = await asyncio.gather(keeper.prepare(), keeper.prepare(), return_exceptions=True)
    assert sum(isinstance(one, Broken) for one in outcomes) == 1
    assert len(keeper.signer.keys) == 3


async def test_next_issuer_ends_with_its_root(keeper: Keeper) -> None:
    """Nothing outlives what it hangs from, and nothing is made under a root that ended."""
    keeper.clock.advance(ROOT_LIFETIME - ISSUING_LIFETIME + DAY)
    await keeper.prepare()
    state = await keeper.kept()
    assert state.root is not None
    assert state.issuers is not None
    assert state.issuers.next is not None
    end = state.issuers.next.certificate.not_valid_after_utc
    assert end == state.root.not_valid_after_utc == START + ROOT_LIFETIME
    await keeper.activate()
    keeper.clock.advance(ISSUING_LIFETIME)
    with pytest.raises(Broken, match=r"ended 2036-02-27; make another built-in CA"):
        await keeper.prepare()


async def test_ca_that_was_never_made_cannot_be_rotated(tmp_path: Path) -> None:
    """It says how to make it."""
    async with Keeper.open(tmp_path) as keeper:
        with pytest.raises(Broken, match="has not been made; see penstock ca init"):
            await keeper.prepare()
        with pytest.raises(Broken, match="no next issuing CA of 'local' is prepared"):
            await keeper.activate()
        with pytest.raises(Broken, match="past issuing CAs of 'local' are: none"):
            await keeper.retire()


async def test_failed_making_leaves_no_key(keeper: Keeper) -> None:
    """The signer goes away between key and certificate; once it is back the same call makes it."""
    with pytest.raises(away(keeper.signer)):
        await keeper.prepare()
    assert await keeper.roles() == [ROOT, ("current", FIRST)]
    assert SECOND not in keeper.signer.keys
    keeper.signer.is_away = False
    await keeper.prepare()


# ----------------------------------------------------------------------------------- offline root


async def test_offline_root_certifies_the_next_issuer(tmp_path: Path) -> None:
    """By request and answer, as the first one; the current one signs meanwhile."""
    offline = OfflineRoot()
    async with Keeper.open(tmp_path) as keeper:
        first = await keeper.authorities.request("local", subject="CN=Corp 1", actor=ANNA)
        await keeper.authorities.accept(
            "local", chain_pem=offline.answer(first), anchors_pem=offline.pem, actor=ANNA
        )
        with pytest.raises(Broken, match="is offline; ask for a request with --issuing-csr"):
            await keeper.prepare()
        asked = await keeper.prepare(is_offline=True)
        again = await keeper.prepare(is_offline=True)
        keys = [x509.load_pem_x509_csr(one["csr_pem"].encode()) for one in (asked, again)]
        assert keys[0].public_key() == keys[1].public_key()
        assert keys[0].subject.rfc4514_string() == "CN=Corp 2"
        other = OfflineRoot()
        with pytest.raises(Broken, match="leads to another root than that of 'local'"):
            await keeper.authorities.accept(
                "local",
                chain_pem=other.answer(asked["csr_pem"]),
                anchors_pem=other.pem,
                actor=ANNA,
            )
        await keeper.authorities.accept(
            "local",
            chain_pem=offline.answer(asked["csr_pem"]),
            anchors_pem=offline.pem,
            actor=ANNA,
        )
        assert await keeper.roles() == [("root", None), ("current", FIRST), ("next", SECOND)]
        await keeper.activate()
        assert await keeper.roles() == [("root", None), ("past", FIRST), ("current", SECOND)]
        assert (await keeper.events())[-2:] == [
            EventKind.CA_ISSUER_PREPARED,
            EventKind.CA_ISSUER_ACTIVATED,
        ]


async def test_root_that_is_here_needs_no_request(keeper: Keeper) -> None:
    """It would leave a key that nobody certifies."""
    with pytest.raises(Broken, match="signs by itself; leave --issuing-csr out"):
        await keeper.prepare(is_offline=True)


# ----------------------------------------------------------------------------------- activate


async def test_activation_swaps_the_issuers_in_one_step(keeper: Keeper) -> None:
    """Whoever serves is told once, and never sees none or two that are current."""
    await keeper.prepare()
    told = len(keeper.told)
    await keeper.activate()
    assert await keeper.roles() == [ROOT, ("past", FIRST), ("current", SECOND)]
    (state,) = keeper.told[told:]
    assert state.issuers is not None
    assert state.issuers.current.key_id == SECOND
    assert [one.key_id for one in state.issuers.past] == [FIRST]


async def test_next_issuer_has_to_run_and_to_have_its_key(keeper: Keeper) -> None:
    """Otherwise the CA would sign nothing any more; the current one goes on."""
    await keeper.prepare()
    held = keeper.signer.keys.pop(SECOND)
    with pytest.raises(Broken, match="there is no key"):
        await keeper.activate()
    keeper.signer.keys[SECOND] = keeper.signer.keys[FIRST]
    with pytest.raises(Broken, match="is not the one of its certificate"):
        await keeper.activate()
    keeper.signer.keys[SECOND] = held
    keeper.clock.advance(-DAY)
    with pytest.raises(Broken, match="does not run now"):
        await keeper.activate()
    keeper.clock.advance(DAY)
    await keeper.activate()


# ----------------------------------------------------------------------------------- retire


async def rotated(keeper: Keeper) -> None:
    """Put the second issuer to work."""
    await keeper.prepare()
    await keeper.activate()


async def test_retired_issuer_has_no_key_and_a_last_list(keeper: Keeper) -> None:
    """Which names what was revoked, and runs past the end of all that it issued."""
    revoked = await keeper.issue(FIRST, ends=90 * DAY)
    await rotated(keeper)
    await keeper.store.revoke_ca_certificate("local", revoked.serial, at=START, reason=1)
    before = await keeper.store.next_crl_number("local", FIRST, START)
    await keeper.retire()
    assert await keeper.roles() == [ROOT, ("retired", FIRST), ("current", SECOND)]
    assert FIRST not in keeper.signer.keys
    issuers = (await keeper.kept()).issuers
    assert issuers is not None
    (gone,) = issuers.retired
    crl = x509.load_der_x509_crl(gone.last_crl_der)
    assert crl.is_signature_valid(gone.authority.key.public_key)
    assert [one.serial_number for one in crl] == [5]
    assert crl.next_update_utc == revoked.not_after + timedelta(days=7)
    number = crl.extensions.get_extension_for_class(x509.CRLNumber).value.crl_number
    assert number > before
    assert issuers.find(FIRST) is None
    assert issuers.find_published(FIRST) == gone.authority


async def test_issuer_with_a_certificate_in_force_stays(keeper: Keeper) -> None:
    """They are counted and the last ones named; it goes once they ended or were revoked."""
    for serial in range(1, 8):
        await keeper.issue(FIRST, ends=serial * DAY, serial=serial)
    await rotated(keeper)
    with pytest.raises(Broken) as caught:
        await keeper.retire()
    assert "7 certificates of 'ca-local-issuing-1' in force" in caught.value.reason
    assert "www.corp.example until 2026-03-08T12:00:00Z, serial 7" in caught.value.reason
    assert "and 2 that end before" in caught.value.reason
    assert FIRST in keeper.signer.keys
    assert EventKind.CA_ISSUER_RETIRED not in await keeper.events()
    keeper.clock.advance(6 * DAY)
    with pytest.raises(Broken, match="1 certificate of 'ca-local-issuing-1' in force"):
        await keeper.retire()
    await keeper.store.revoke_ca_certificate("local", "7", at=keeper.clock.now(), reason=4)
    await keeper.retire()
    assert (await keeper.events())[-2:] == [
        EventKind.CA_ISSUER_RETIRED,
        EventKind.CA_KEY_DESTROYED,
    ]


async def test_current_and_next_issuer_are_never_retired(keeper: Keeper) -> None:
    """Only a past one is."""
    await keeper.prepare()
    for name in (FIRST, SECOND, "another"):
        with pytest.raises(Broken, match=f"are: none; '{name}' is none of them"):
            await keeper.retire(name)
    assert len(keeper.signer.keys) == 3


async def test_of_several_past_issuers_one_has_to_be_named(keeper: Keeper) -> None:
    """Each goes when nothing depends on it, whatever became of the other."""
    await rotated(keeper)
    await rotated(keeper)
    with pytest.raises(Broken, match="which is meant has to be said"):
        await keeper.retire()
    await keeper.retire(SECOND)
    assert [one[0] for one in await keeper.roles()] == ["root", "past", "retired", "current"]
    await keeper.retire()


async def test_nothing_is_recorded_under_a_retired_issuer(keeper: Keeper) -> None:
    """Not even what was being signed at that moment: no list would ever name it."""
    await rotated(keeper)
    await keeper.issue(SECOND, serial=8)
    await keeper.retire()
    with pytest.raises(Conflict, match="issuer 'ca-local-issuing-1' of CA 'local' is retired"):
        await keeper.issue(FIRST, serial=9)


async def test_name_of_a_retired_key_is_not_taken_again(keeper: Keeper) -> None:
    """Its list and its certificate are published under it."""
    await rotated(keeper)
    await keeper.retire()
    await keeper.prepare()
    assert (await keeper.roles())[-1] == ("next", "ca-local-issuing-3")


async def test_last_list_that_cannot_be_signed_is_signed_later(keeper: Keeper) -> None:
    """The issuer waits in between: a start does not fail for it, and a look finishes it."""
    await rotated(keeper)
    with pytest.raises(away(keeper.signer)):
        await keeper.retire()
    assert await keeper.roles() == [ROOT, ("retiring", FIRST), ("current", SECOND)]
    assert FIRST in keeper.signer.keys
    state = await keeper.restart()
    assert state is not None
    assert [one.role for one in state.having(CaRole.RETIRING)] == [CaRole.RETIRING]
    with pytest.raises(Unreachable):
        await keeper.registry.mend("local")
    keeper.signer.is_away = False
    await keeper.registry.mend("local")
    assert await keeper.roles() == [ROOT, ("retired", FIRST), ("current", SECOND)]
    assert (await keeper.events()).count(EventKind.CA_KEY_DESTROYED) == 1


async def test_retirement_that_was_begun_is_finished_by_asking_again(keeper: Keeper) -> None:
    """The command that failed succeeds once the key's keeper is back, with one event of each."""
    await rotated(keeper)
    with pytest.raises(away(keeper.signer)):
        await keeper.retire()
    keeper.signer.is_away = False
    await keeper.retire(FIRST)
    assert await keeper.roles() == [ROOT, ("retired", FIRST), ("current", SECOND)]
    assert (await keeper.events())[-2:] == [
        EventKind.CA_ISSUER_RETIRED,
        EventKind.CA_KEY_DESTROYED,
    ]


# ----------------------------------------------------------------------------------- cut off


async def nothing(keeper: Keeper) -> None:
    """Do nothing before."""


async def prepared(keeper: Keeper) -> None:
    """Prepare the second issuer."""
    await keeper.prepare()


async def prepare(authorities: Authorities) -> None:
    """Prepare."""
    await authorities.prepare("local", subject=None, is_offline=False, actor=ANNA)


async def activate(authorities: Authorities) -> None:
    """Activate."""
    await authorities.activate("local", actor=ANNA)


async def retire(authorities: Authorities) -> None:
    """Retire."""
    await authorities.retire("local", issuer=None, actor=ANNA)


Step = Callable[[Authorities], Awaitable[None]]

STEPS: dict[str, tuple[Callable[[Keeper], Awaitable[None]], Step, EventKind, int]] = {
    "prepare": (nothing, prepare, EventKind.CA_ISSUER_PREPARED, 7),
    "activate": (prepared, activate, EventKind.CA_ISSUER_ACTIVATED, 2),
    "retire": (rotated, retire, EventKind.CA_KEY_DESTROYED, 9),
}
"""What comes before, the step, the event that ends it, and at how many points it can be cut."""


@pytest.mark.parametrize("name", STEPS)
async def test_step_that_is_cut_off_anywhere_is_done_or_undone(tmp_path: Path, name: str) -> None:
    """After the next start it is as before, or finished; never a key too many or an event too few.

    And doing it again leads where it would have led.
    """
    before, step, event, points = STEPS[name]
    point = 0
    while True:
        point += 1
        (tmp_path / str(point)).mkdir()
        async with Keeper.open(tmp_path / str(point)) as keeper:
            await keeper.initialise()
            await before(keeper)
            roles, keys = await keeper.roles(), set(keeper.signer.keys)
            try:
                await step(keeper.killed_at(point))
                break
            except Killed:
                await keeper.restart()
            after = await keeper.roles()
            is_done = event in await keeper.events()
            assert is_done == (after != roles), f"cut at {point}"
            held = {key for role, key in after if role != "retired" and key is not None}
            assert set(keeper.signer.keys) == held, f"cut at {point}"
            assert "planned" not in dict(after)
            if not is_done:
                assert set(keeper.signer.keys) == keys
                await step(keeper.authorities)
            assert (await keeper.events()).count(event) == 1
    assert point == points + 1


async def test_making_that_is_cut_off_anywhere_is_done_or_undone(tmp_path: Path) -> None:
    """Root and issuer both, or neither; another try makes them under the same names."""
    for point in range(1, 12):
        (tmp_path / str(point)).mkdir()
        async with Keeper.open(tmp_path / str(point)) as keeper:
            try:
                await keeper.killed_at(point).initialise(
                    "local",
                    subject=None,
                    permitted_names=(),
                    permitted_networks=(),
                    actor=ANNA,
                )
                break
            except Killed:
                state = await keeper.restart()
            if state is None:
                assert keeper.signer.keys == {}
                await keeper.initialise()
            assert await keeper.roles() == [ROOT, ("current", FIRST)]
            assert set(keeper.signer.keys) == {ROOT[1], FIRST}
            assert await keeper.events() == [EventKind.CA_CREATED]
    assert point == 11
