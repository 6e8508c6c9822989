"""Crashes beside the straight way of an order: accounts, revocations, a CA that looked in vain."""

import asyncio
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from cryptography import x509
from cryptography.hazmat.primitives.serialization import Encoding

from tests.e2e.scene import MAC_KEY, Scene, killing
from tests.e2e.survivor import Patient, Refused, Survivor, binding
from tests.fakes.acme_client import AcmeClient
from tests.fakes.hostile_ca import Behaviour, Fault, NotAfter, Resource, Script
from tests.fakes.hostile_ca.envelope import b64
from tests.fakes.hostile_ca.script import DAY_SECONDS, ChallengeResult
from tests.peers import process

pytestmark = pytest.mark.e2e

MOST_SYNCS = 6
"""Bound of the loops: each of these changes is one durable commit, and one more begins a log."""

REVOKED_SECONDS = 90.0
"""By when a revocation is noted that a crash had interrupted."""


@pytest.fixture(scope="module")
def scene(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Scene]:
    """A broker in front of a CA that is told anew by each test."""
    limits = {"finalize_wait": "1s"}
    with Scene(tmp_path_factory.mktemp("aftermath"), Script(), limits=limits) as scene:
        yield scene


async def revoke(survivor: Survivor, der: bytes) -> None:
    """Ask for a revocation again and again; ends with the refusal of a second one.

    Raises:
        Refused: Always; alreadyRevoked when all is well.
    """
    while True:
        await survivor.ask(survivor.client.directory["revokeCert"], {"certificate": b64(der)})


async def test_sigkill_while_an_account_is_made_leaves_one(scene: Scene, tmp_path: Path) -> None:
    """Killed at each fsync of newAccount: asked again, the client has its account, and has one."""
    kills = 0
    for number in range(1, MOST_SYNCS):
        accounts = scene.kept().events["account-created"]
        async with AcmeClient(scene.broker.directory_url, scene.broker.ca_bundle) as client:
            members: dict[str, object] = {
                "externalAccountBinding": binding(client, "farm", MAC_KEY)
            }
            async with killing(scene.broker, tmp_path / "trace", "fdatasync", number):
                work = asyncio.create_task(register(client, members))
                is_killed = await scene.until_killed(work)
            if is_killed:
                await asyncio.to_thread(scene.broker.restart)
            await work
            assert scene.kept().events["account-created"] == accounts + 1
            await scene.obtain(Survivor(client, *scene.names()))
        if not is_killed:
            break
        kills += 1
    assert 1 <= kills < MOST_SYNCS - 1
    assert scene.faults() == []


async def register(client: AcmeClient, members: dict[str, object]) -> None:
    """Send newAccount until it is answered; 201 for a new account, 200 for the one there is."""
    payload = {"termsOfServiceAgreed": True, **members}
    patient = Patient(client)
    answer = await patient.ask(client.directory["newAccount"], payload, by_key=True)
    client.account_url = answer.headers["Location"]


@pytest.mark.parametrize("processed", [False, True], ids=["before", "after"])
async def test_revocation_survives_a_kill(processed: bool, scene: Scene) -> None:
    """Killed while the CA is asked to revoke: the next start sees to it, and it is done once."""
    assert scene.ca is not None
    await asyncio.to_thread(scene.ca.set_script, Script())
    revoked = len(scene.ca.ledger().revocations)
    noted = scene.kept().events["certificate-revoked"]
    async with scene.client() as client:
        survivor = Survivor(client, *scene.names())
        await scene.obtain(survivor)
        chain = await survivor.ask((await survivor.look())["certificate"])
        leaf = x509.load_pem_x509_certificates(chain.body)[0]
        asked = scene.ca.ledger().count(Resource.REVOKE)
        hold = Fault.hanging(Resource.REVOKE, processed=processed)
        await asyncio.to_thread(scene.ca.set_script, Script(faults=[hold]))
        work = asyncio.create_task(revoke(survivor, leaf.public_bytes(Encoding.DER)))
        await asyncio.to_thread(scene.ca.wait_seen, Resource.REVOKE, asked + 1)
        await asyncio.to_thread(scene.broker.restart)
        with pytest.raises(Refused, match="alreadyRevoked"):
            await work
    assert len(scene.ca.ledger().revocations) == revoked + 1
    assert scene.kept().events["certificate-revoked"] == noted + 1
    assert scene.faults() == []


@pytest.mark.parametrize("processed", [False, True], ids=["before", "after"])
async def test_withheld_certificate_is_revoked_in_spite_of_a_kill(
    processed: bool, make_scene: Callable[..., Scene]
) -> None:
    """The CA issued past the cap and the broker dies while it revokes: the next one revokes it."""
    hold = Fault.hanging(Resource.REVOKE, processed=processed)
    too_long = Behaviour(not_after=NotAfter.IGNORE, lifetime_seconds=90 * DAY_SECONDS)
    scene = make_scene(Script(standing=too_long, faults=[hold]))
    assert scene.ca is not None
    async with scene.client() as client:
        work = asyncio.create_task(Survivor(client, *scene.names()).obtain())
        await asyncio.to_thread(scene.ca.wait_seen, Resource.REVOKE)
        await asyncio.to_thread(scene.broker.restart)
        with pytest.raises(Refused, match="may not be released"):
            await work
        await asyncio.to_thread(scene.ca.wait_seen, Resource.REVOKE, 2)
        # Behind the answer comes the note of it; the request for an order is told of the rule.
        answer = await client.order(*scene.names())
        assert answer.status >= 400
    await asyncio.to_thread(
        process.wait_until,
        lambda: scene.kept().events["certificate-revoked"] == 1,
        REVOKED_SECONDS,
        "the revocation is noted",
    )
    (issued,) = scene.ca.ledger().certificates
    assert [each.serial_hex for each in scene.ca.ledger().revocations] == [issued.serial_hex]
    assert [each.is_released for each in scene.kept().certificates] == [False]


async def test_challenge_that_failed_while_the_broker_was_away_is_no_refusal(scene: Scene) -> None:
    """The CA looked for the answer while the broker was dead: that order is lost, ours is not."""
    assert scene.ca is not None
    in_vain = Behaviour(challenge_result=ChallengeResult.INVALID)
    hold = Fault.hanging(Resource.CHALLENGE, processed=True)
    asked = scene.ca.ledger().count(Resource.CHALLENGE)
    async with scene.client() as client:
        script = Script(next_orders=[in_vain], faults=[hold])
        await asyncio.to_thread(scene.ca.set_script, script)
        work = asyncio.create_task(scene.obtain(Survivor(client, *scene.names())))
        await asyncio.to_thread(scene.ca.wait_seen, Resource.CHALLENGE, asked + 1)
        await asyncio.to_thread(scene.broker.restart)
        await work
    assert scene.faults() == []
