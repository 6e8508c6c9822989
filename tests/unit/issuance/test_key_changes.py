"""Another key for an account: one wins, nothing else changes."""

import asyncio
import hashlib
from datetime import timedelta

import pytest
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat

from broker.issuance.events import EventKind
from broker.issuance.key_changes import KeyInUse
from broker.issuance.records import UpstreamAccountRecord
from broker.protocol.challenges import Failure
from broker.protocol.key_change import VerifiedKeyChange
from broker.protocol.problems import Problem, ProblemType
from broker.protocol.requests import NewAccount
from broker.protocol.resources import OrderStatus
from tests.fakes.clock import START
from tests.fakes.world import Client, World, jwk_of, make_csr, new_key


async def change(client: Client, key: ec.EllipticCurvePrivateKey) -> None:
    """Change the client's key to *key*, as it is known to the client now."""
    wanted = VerifiedKeyChange(jwk_of(client.key), jwk_of(key))
    client.account = await client.world.key_changes.change(client.account, wanted)
    client.key = key


async def test_key_changes_and_the_account_stays(world: World) -> None:
    """The old key has no account any more, and could make another one."""
    client, key = await world.client(), new_key()
    before = client.account
    await change(client, key)
    found, is_new = await world.accounts.register("default", jwk_of(key), NewAccount(), None)
    assert (found.account_id, is_new) == (before.account_id, False)
    kept = await world.store.find_account_by_key("default", before.thumbprint)
    assert kept is None
    (event,) = await world.events(EventKind.ACCOUNT_KEY_CHANGED)
    assert event.data == {"before": before.thumbprint, "thumbprint": found.thumbprint}


async def test_of_eight_changes_at_once_one_wins(world: World) -> None:
    """Eight new keys for one account: one is its key, seven requests are told so."""
    client = await world.client()
    wanted = [VerifiedKeyChange(jwk_of(client.key), jwk_of(new_key())) for _ in range(8)]
    got = await asyncio.gather(
        *(world.key_changes.change(client.account, one) for one in wanted), return_exceptions=True
    )
    refused = [one for one in got if isinstance(one, Problem)]
    assert [one.type for one in refused] == [ProblemType.UNAUTHORIZED] * 7
    assert await world.count(EventKind.ACCOUNT_KEY_CHANGED) == 1


async def test_of_eight_accounts_that_want_one_key_one_gets_it(world: World) -> None:
    """The others are told whose it is."""
    clients = [await world.client() for _ in range(8)]
    key = jwk_of(new_key())
    got = await asyncio.gather(
        *(
            world.key_changes.change(one.account, VerifiedKeyChange(jwk_of(one.key), key))
            for one in clients
        ),
        return_exceptions=True,
    )
    (winner,) = [one for one in got if not isinstance(one, BaseException)]
    taken = [one for one in got if isinstance(one, KeyInUse)]
    assert [one.account_id for one in taken] == [winner.account_id] * 7


async def test_key_of_another_account_is_refused_with_its_name(world: World) -> None:
    """Of the same community, that is; the account's own key is in use as well."""
    client, other = await world.client(), await world.client()
    for key in (other.key, client.key):
        with pytest.raises(KeyInUse) as refused:
            await change(client, key)
        holder = other if key is other.key else client
        assert refused.value.account_id == holder.account.account_id
    elsewhere = await world.client("lab")
    await change(client, elsewhere.key)


async def test_key_that_speaks_for_something_else_is_refused(world: World) -> None:
    """Neither a certificate's key, nor an upstream account's, nor a weak one; a fresh one is."""
    client = await world.client()
    of_certificate, of_upstream, weak = new_key(), new_key(), new_key()
    order = await client.ready("www.example.com")
    await client.finalize(order, make_csr("www.example.com", key=of_certificate))
    await world.store.save_upstream_account(
        UpstreamAccountRecord(
            upstream="ca",
            community="default",
            directory_url="https://ca.example/directory",
            account_url="https://ca.example/account/1",
            key_id="ca.default",
            thumbprint=jwk_of(of_upstream).thumbprint,
            registered_at=START,
        ),
        (await world.events())[0],
    )
    spki = weak.public_key().public_bytes(Encoding.DER, PublicFormat.SubjectPublicKeyInfo)
    world.inspector.weak[hashlib.sha256(spki).hexdigest()] = "key is on the block list 'lost'"
    for key in (of_certificate, of_upstream, weak):
        with pytest.raises(Problem) as refused:
            await change(client, key)
        assert refused.value.type is ProblemType.BAD_PUBLIC_KEY
    assert await world.count(EventKind.ACCOUNT_KEY_CHANGED) == 0
    await change(client, new_key())


async def test_pending_order_goes_on_and_its_challenge_follows_the_key(world: World) -> None:
    """A look after the change expects the new key's answer, one under way the old one's."""
    client = await world.client()
    order = await client.order("www.example.com")
    (authorization,) = await client.authorizations(order)
    world.validator.fail([Failure("timeout", "no answer")])
    await client.respond(authorization)
    await world.settle()
    await change(client, new_key())
    await world.let_pass(timedelta(seconds=2))
    old, new = (question.thumbprint for question in world.validator.asked)
    assert (old == new, new) == (False, client.account.thumbprint)
    assert (await client.read(order)).status is OrderStatus.READY
    assert (await client.finalize(order)).status is OrderStatus.VALID


async def test_deactivated_account_changes_no_key(world: World) -> None:
    """Of two requests on their way, the one that ends the account is the last."""
    client = await world.client()
    wanted = VerifiedKeyChange(jwk_of(client.key), jwk_of(new_key()))
    from broker.issuance.events import Actor

    await world.accounts.deactivate(client.account, Actor("operator:ann"))
    with pytest.raises(Problem) as refused:
        await world.key_changes.change(client.account, wanted)
    assert refused.value.type is ProblemType.UNAUTHORIZED
