"""Our account at Pebble is lost in every way that Vault, the CA and we can lose it, and recovered.

What docs/runbooks/account-lost.md tells a person to do is done here; what was issued is counted by
the CA.
"""

from __future__ import annotations

import asyncio
import secrets
from collections.abc import Iterator
from contextlib import ExitStack
from typing import Any

import pytest
from cryptography import x509
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.serialization import Encoding

from tests.deployments.losing import ZONE, Losing, events_of
from tests.deployments.requester import Placed, Requester
from tests.fakes.acme_client import AcmeClient, make_csr
from tests.fakes.hostile_ca.envelope import b64
from tests.peers import process


def cert_id_of(leaf: x509.Certificate) -> str:
    """Return the name of a certificate in renewal information (RFC 9773 §4.1)."""
    issuer = leaf.extensions.get_extension_for_class(x509.AuthorityKeyIdentifier).value
    assert issuer.key_identifier is not None
    serial = leaf.serial_number.to_bytes(leaf.serial_number.bit_length() // 8 + 1)
    return f"{b64(issuer.key_identifier)}.{b64(serial)}"


NEW_ACCOUNT = r"/sign-me-up$"


def next_of(key_id: str) -> str:
    """Return the id of the version that follows: an id names one key for good."""
    stem, _, version = key_id.rpartition("#")
    return f"{stem}#{int(version) + 1}"


pytestmark = [pytest.mark.e2e, pytest.mark.peers]


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Losing]:
    """A broker in front of Pebble, its account key in Vault; each test leaves it recovered."""
    with ExitStack() as stack:
        yield Losing(tmp_path_factory.mktemp("lost"), stack)


class Life:
    """What goes on around a loss: a certificate in use, an order on its way, another that waits."""

    def __init__(self, place: Losing, requester: Requester) -> None:
        self.place = place
        self.requester = requester
        mark = secrets.token_hex(3)
        self.used_name = f"used-{mark}.{ZONE}"
        self.ready_name = f"ready-{mark}.{ZONE}"
        self.certificate_key = ec.generate_private_key(ec.SECP256R1())

    async def before(self) -> None:
        """Have a certificate in use and an order whose half at the CA is open."""
        csr = make_csr([self.used_name], self.certificate_key)
        used = await self.requester.request(self.used_name, csr=csr)
        assert await used.settled() == "valid", used.order
        self.used = (await used.chain())[0]
        self.ready = await self.place.prepared(self.requester, self.ready_name)
        self.old = await self.place.account()

    async def during(self, cause: str) -> Placed:
        """Finalize while the account is lost: it waits, and what is wrong is told by name."""
        waiting = await self.place.finish(self.requester, self.ready)
        assert waiting.status == "processing", waiting.order
        assert (await self.place.lost())["cause"] == cause
        assert f"[!] accounts pebble@default {cause}" in self.place.readyz()
        metrics = self.place.penstock.metrics()
        assert f'penstock_upstream_account_lost{{cause="{cause}",upstream="pebble"}} 1.0' in metrics
        (checked,) = [
            row for row in await self.place.ask("upstream_check") if row["upstream"] == "pebble"
        ]
        assert any("upstream recover" in fault for fault in checked["faults"]), checked
        assert (await waiting.read())["status"] == "processing"
        return waiting

    async def refused(self) -> None:
        """A new order is told to come again, and leaves nothing behind."""
        self.requester.nonce = None
        answer = await self.requester.order(f"new.{ZONE}")
        assert (answer.status, answer.problem) == (403, "serverInternal")
        assert int(answer.headers["Retry-After"]) > 0

    async def after(self, waiting: Placed) -> None:
        """What waited is done, once; a renewal goes out without what it replaces."""
        self.requester.nonce = None
        await waiting.read()
        assert await waiting.settled() == "valid", waiting.order
        renewed = await self.renew()
        assert await renewed.settled() == "valid", renewed.order
        assert self.issued() == (2, 1)
        assert (await self.place.account())["lost"] is None
        assert "accounts" not in self.place.readyz()
        (checked,) = [
            row for row in await self.place.ask("upstream_check") if row["upstream"] == "pebble"
        ]
        assert checked["faults"] == []

    async def renew(self) -> Placed:
        """Order anew what is in use, and say what it replaces."""
        return await self.requester.request(self.used_name, replaces=cert_id_of(self.used))

    def issued(self) -> tuple[int, int]:
        """Return how many certificates the CA issued for what is in use, and for what waited."""
        found = self.place.issued()
        return found[self.used_name], found[self.ready_name]

    def told(self) -> Any:
        """Return what the CA was told that the last order replaces."""
        return self.place.rows("SELECT replaces FROM work ORDER BY created_at DESC LIMIT 1")[0][0]

    async def revoke(self) -> tuple[int, str]:
        """Revoke what the old account ordered, as its owner; return status and sentence."""
        answer = await self.requester.post(self.requester.directory["revokeCert"], self.wish())
        return answer.status, answer.body.decode()

    async def revoke_by_its_own_key(self) -> int:
        """Revoke directly at the CA, signed with the certificate's key (RFC 8555 §7.6)."""
        pebble = self.place.pebble
        async with AcmeClient(pebble.directory_url, pebble.ca_bundle) as node:
            node.key = self.certificate_key
            while True:
                answer = await node.post(node.directory["revokeCert"], self.wish(), by_key=True)
                if answer.problem != "badNonce":
                    return answer.status

    def wish(self) -> dict[str, object]:
        """Return the payload of a revocation."""
        return {"certificate": b64(self.used.public_bytes(Encoding.DER)), "reason": 4}


async def test_vault_was_emptied(place: Losing) -> None:
    """Vault is new: there is no key, so there is a new account with a new key."""
    async with place.requester() as requester:
        life = Life(place, requester)
        await life.before()
        await place.lose_vault()
        waiting = await life.during("key-gone")
        await life.refused()
        planned = await place.recover(dry_run=True)
        assert (planned["done"], planned["cause"]) == (False, "key-gone")
        done = await place.recover(agree_to_terms=True)
        assert done["account"]["url"] != life.old["url"]
        assert done["key"] == next_of(life.old["key"]["id"]), "an id names one key for good"
        assert done["orders_begun_anew"] == [waiting.order_id]
        assert [one["names"] for one in done["certificates"]] == [[life.used_name]]
        assert any(done["account"]["url"] in line for line in done["caa"]["lines"]), done["caa"]
        assert life.old["url"] in done["caa"]["note"]
        await life.after(waiting)
        assert life.told() is None
        assert (await place.ask("upstream_former"))[0]["url"] == life.old["url"]
        with pytest.raises(process.PeerFailed, match="nothing to recover"):
            await place.recover(agree_to_terms=True)
        # Pebble takes no account's word but that of the one that ordered it.
        status, said = await life.revoke()
        assert status == 403
        assert "own key, directly at the CA" in said
        assert place.rows("SELECT 1 FROM jobs WHERE kind = 'revoke'") == [], "tried for ever"
        assert await life.revoke_by_its_own_key() == 200
        assert place.pebble.status(f"{life.used.serial_number:x}").is_revoked


async def test_vault_was_restored_to_a_time_before_the_last_rotation(place: Losing) -> None:
    """The CA knows version 2, Vault has version 1 alone."""
    async with place.requester() as requester:
        life = Life(place, requester)
        saved = await place.save_vault()
        await place.ask("upstream_rotate_key", upstream="pebble")
        await life.before()
        await place.restore_vault(saved)
        waiting = await life.during("key-older")
        done = await place.recover(agree_to_terms=True)
        assert done["key"] == next_of(life.old["key"]["id"]), "an id names one key for good"
        await life.after(waiting)
        assert life.told() is None


async def test_account_was_deactivated(place: Losing) -> None:
    """Somebody closed the account: its key is all right, and useless."""
    async with place.requester() as requester:
        life = Life(place, requester)
        await life.before()
        assert await (await life.renew()).settled() == "valid"
        assert life.told() == cert_id_of(life.used), "the same account tells what it replaces"
        await place.deactivate()
        waiting = await life.during("account-closed")
        done = await place.recover(agree_to_terms=True)
        assert done["account"]["url"] != life.old["url"]
        requester.nonce = None
        await waiting.read()
        assert await waiting.settled() == "valid", waiting.order
        assert life.issued()[1] == 1


async def test_ca_was_emptied(place: Losing) -> None:
    """Pebble forgets all it knew whenever it is started."""
    async with place.requester() as requester:
        life = Life(place, requester)
        await life.before()
        await asyncio.to_thread(place.pebble.stop)
        await asyncio.to_thread(place.pebble.start)
        waiting = await life.during("account-unknown")
        await place.recover(agree_to_terms=True)
        requester.nonce = None
        await waiting.read()
        assert await waiting.settled() == "valid", waiting.order
        assert life.issued()[1] == 1


async def test_store_was_restored_to_a_time_before_the_last_rotation(place: Losing) -> None:
    """The right key is in Vault: it is pinned, the account stays, and replaces goes on working."""
    async with place.requester() as requester:
        life = Life(place, requester)
        await life.before()
        backup = place.tmp / "backup"
        await asyncio.to_thread(place.penstock.run, "backup", "--output", str(backup))
        await place.ask("upstream_rotate_key", upstream="pebble")
        await place.restore_store(backup)
        assert (await place.lost())["cause"] == "store-older"
        done = await place.recover(agree_to_terms=True)
        assert done["key"] == next_of(life.old["key"]["id"])
        assert done["account"]["url"] == life.old["url"]
        assert done["caa"] is None
        await place.ask("reconcile")
        await asyncio.to_thread(
            process.wait_until, place.penstock.is_ready, 60, "the broker is ready"
        )
        requester.nonce = None
        waiting = await place.finish(requester, life.ready)
        assert await waiting.settled() == "valid", waiting.order
        renewed = await life.renew()
        assert await renewed.settled() == "valid", renewed.order
        assert life.told() == cert_id_of(life.used)
        assert life.issued() == (2, 1)


async def test_sealed_vault_is_no_loss(place: Losing) -> None:
    """The order waits, nothing is called lost, recovering is refused, and all goes on unsealed."""
    async with place.requester() as requester:
        life = Life(place, requester)
        await life.before()
        told = len(events_of(place, "upstream-account-lost"))
        await asyncio.to_thread(place.vault.seal)
        waiting = await place.finish(requester, life.ready)
        assert waiting.status == "processing"
        with pytest.raises(process.PeerFailed, match=r"sealed|503"):
            await place.recover(agree_to_terms=True)
        assert (await place.account())["lost"] is None
        await asyncio.to_thread(place.vault.unseal)
        await waiting.read()
        assert await waiting.settled() == "valid", waiting.order
        assert (await place.account())["url"] == life.old["url"]
        assert len(events_of(place, "upstream-account-lost")) == told


@pytest.mark.parametrize(
    "reaches_ca", [False, True], ids=["before-it-is-made", "before-it-is-kept"]
)
async def test_recovery_is_killed(place: Losing, reaches_ca: bool) -> None:
    """Run again it finds the account that was made by its key: there is one, not two."""
    async with place.requester() as requester:
        life = Life(place, requester)
        await life.before()
        await place.lose_vault()
        waiting = await life.during("key-gone")
        place.between.aim(NEW_ACCOUNT, seconds=0.0)  # whether there is one already
        aim = place.between.aim(NEW_ACCOUNT, reaches_ca=reaches_ca)
        recovering = asyncio.ensure_future(place.recover(agree_to_terms=True))
        assert await asyncio.to_thread(aim.struck.wait, 90)
        place.between.stop_aiming()
        await asyncio.to_thread(place.penstock.kill)
        await asyncio.gather(recovering, return_exceptions=True)
        await asyncio.to_thread(place.penstock.start)
        # The versions before the new key were made meanwhile, under the ids that were lost.
        assert (await place.lost())["cause"] == "key-other"
        ((key,),) = place.rows("SELECT new_key_id FROM account_recoveries WHERE ended_at IS NULL")
        done = await place.recover(agree_to_terms=True)
        assert done["key"] == key
        await life.after(waiting)


async def test_recovery_and_rotation_need_no_running_broker(place: Losing) -> None:
    """The commands do it themselves, over the store alone; the next start goes on from there."""
    async with place.requester() as requester:
        life = Life(place, requester)
        await life.before()
        await asyncio.to_thread(place.penstock.stop)
        await place.lose_vault()
        run = place.penstock.json
        dry = await asyncio.to_thread(run, "upstream", "recover", "pebble", "--dry-run")
        assert [(one["cause"], one["done"]) for one in dry] == [("key-gone", False)]
        refused = await asyncio.to_thread(
            place.penstock.run, "upstream", "rotate-key", "pebble", status=1
        )
        assert "penstock: error:" in refused.stderr
        (done,) = await asyncio.to_thread(run, "upstream", "recover", "pebble", "--agree-to-terms")
        (rotated,) = await asyncio.to_thread(run, "upstream", "rotate-key", "pebble")
        assert rotated["key"] == next_of(done["key"])
        sound = await asyncio.to_thread(
            place.penstock.run, "upstream", "recover", "pebble", status=1
        )
        assert "nothing to recover" in sound.stderr
        await asyncio.to_thread(place.penstock.start)
        requester.nonce = None
        waiting = await place.finish(requester, life.ready)
        await life.after(waiting)
