"""Binding keys let in whom they were given to, and say nothing to anybody else."""

import asyncio
import hmac
import secrets
import sqlite3
from collections.abc import Awaitable, Callable
from contextlib import closing
from dataclasses import replace
from datetime import timedelta

import pytest

from broker.issuance.enrollment import Enrollment
from broker.issuance.errors import Broken, Conflict, Unreachable
from broker.issuance.events import SYSTEM, Actor, EventKind
from broker.issuance.key_ports import Sealed, known_secret
from broker.issuance.node_ports import NodeStatus
from broker.issuance.records import EabKeyRecord
from broker.issuance.settings import DeclaredEabKey
from broker.policy.decisions import EabGrant
from broker.protocol import jws
from broker.protocol.problems import Problem, ProblemType
from broker.protocol.requests import NewAccount
from tests.contract.storage import test_nodes as nodes
from tests.fakes.clock import START
from tests.fakes.world import ROBOT_KEY, World, jwk_of, new_key

OPERATOR = Actor("operator:ann", "for the web team")
WRONG_KEY = b"w" * 32


class _Transparent:
    """A sealer that draws nothing at random."""

    async def sealing_key(self) -> str:
        """See the port."""
        return "file:none"

    async def seal(self, secret: bytes, context: str) -> Sealed:
        """See the port."""
        return Sealed("file:none", secret)

    async def unseal(self, sealed: Sealed, context: str) -> bytes:
        """See the port."""
        return sealed.octets


async def mint(world: World, **changes: object) -> EabKeyRecord:
    """Mint a key for the default community."""
    asked: dict[str, object] = {
        "label": "web team",
        "names": (),
        "profiles": (),
        "expires_at": None,
        "is_reusable": False,
    }
    return await world.enrollment.mint("default", **{**asked, **changes}, actor=OPERATOR)  # type: ignore[arg-type]


async def refusal_of(world: World, binding: tuple[str, bytes], community: str = "default") -> str:
    """Return the words with which a newAccount that uses *binding* is refused."""
    with pytest.raises(Problem) as refused:
        await world.client(community, binding)
    assert refused.value.type is ProblemType.UNAUTHORIZED
    return refused.value.detail


# --------------------------------------------------------------------------------------- binding


async def test_minted_key_binds(world: World) -> None:
    """The account remembers which key let it in, and is bound by its limits."""
    key = await mint(world, names=("*.example.com",), profiles=("server",))
    client = await world.client(binding=(key.key_id, key.mac_key))
    assert client.account.eab_key_id == key.key_id
    assert await world.enrollment.grant(client.account) == EabGrant(
        key_id=key.key_id, names=("*.example.com",), profiles=("server",)
    )
    event = (await world.events(EventKind.EAB_MINTED))[-1]
    assert event.actor == OPERATOR
    assert key.mac_key.hex() not in str(event.data)


async def test_minted_key_never_looks_like_an_option(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    """One that begins with a dash in base64url is drawn again: certbot would not take it."""
    drawn = [b"\xf8" + bytes(31), b"\xfb" + bytes(31), b"\xfc" + bytes(31)]
    monkeypatch.setattr(secrets, "token_bytes", lambda _: drawn.pop(0))
    world.enrollment = Enrollment(world.store, world.clock, world.settings, sealer=_Transparent())
    key = await mint(world)
    assert key.mac_key == b"\xfc" + bytes(31)


async def unknown(world: World) -> tuple[str, bytes]:
    """Return a binding by a key id that nobody made."""
    return "nobody", WRONG_KEY


async def wrong_mac(world: World) -> tuple[str, bytes]:
    """Return a binding by a good key id and somebody else's secret."""
    return (await mint(world)).key_id, WRONG_KEY


async def revoked(world: World) -> tuple[str, bytes]:
    """Return a binding by a key that was revoked."""
    key = await mint(world)
    await world.enrollment.revoke("default", key.key_id, OPERATOR)
    return key.key_id, key.mac_key


async def expired(world: World) -> tuple[str, bytes]:
    """Return a binding by a key whose time has passed."""
    key = await mint(world, expires_at=world.clock.now() + timedelta(hours=1))
    world.clock.advance(timedelta(hours=1))
    return key.key_id, key.mac_key


async def bound_elsewhere(world: World) -> tuple[str, bytes]:
    """Return a binding by a key for one account, which has one."""
    key = await mint(world)
    await world.client(binding=(key.key_id, key.mac_key))
    return key.key_id, key.mac_key


async def of_another_community(world: World) -> tuple[str, bytes]:
    """Return a binding by a key that the lab minted."""
    key = await world.enrollment.mint(
        "lab",
        label="lab",
        names=(),
        profiles=(),
        expires_at=None,
        is_reusable=True,
        actor=OPERATOR,
    )
    return key.key_id, key.mac_key


async def withdrawn(world: World) -> tuple[str, bytes]:
    """Return a binding by a key that stood in the configuration once."""
    world.settings = replace(world.settings, declared_eab_keys=())
    await world.restart()
    return "robot", ROBOT_KEY


NOT_ACCEPTED = [
    unknown,
    wrong_mac,
    revoked,
    expired,
    bound_elsewhere,
    of_another_community,
    withdrawn,
]


@pytest.mark.parametrize("case", NOT_ACCEPTED, ids=lambda case: case.__name__)
async def test_every_refusal_has_the_same_words(
    world: World, case: Callable[[World], Awaitable[tuple[str, bytes]]]
) -> None:
    """Nobody learns which key ids exist, nor what has become of them; no account is made."""
    binding = await case(world)
    before = len(await world.store.list_accounts(community=None, after=None, limit=100))
    assert await refusal_of(world, binding) == jws.binding_refused().detail
    after = await world.store.list_accounts(community=None, after=None, limit=100)
    assert len(after) == before


@pytest.mark.parametrize("case", NOT_ACCEPTED, ids=lambda case: case.__name__)
async def test_every_refusal_costs_the_same_work(
    world: World,
    case: Callable[[World], Awaitable[tuple[str, bytes]]],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """One look into the store, one opening and one MAC, whether the key is known or not."""
    binding = world.binding(*await case(world), jwk_of(new_key()))
    with pytest.raises(Problem):
        await world.enrollment.verify(
            "default", world.binding("first", WRONG_KEY, jwk_of(new_key()))
        )
    macs: list[int] = []
    digest = hmac.digest

    def counted(key: bytes, message: bytes, name: str) -> bytes:
        macs.append(len(key))
        return digest(key, message, name)

    monkeypatch.setattr(hmac, "digest", counted)
    steps = len(world.traffic.steps)
    opened, sealed = len(world.sealer.opened), world.sealer.sealed
    try:
        await world.enrollment.verify("default", binding)
    except Problem:
        assert case is not bound_elsewhere
    else:
        assert case is bound_elsewhere, "only the store knows that one, inside its transaction"
    assert world.traffic.steps[steps:] == ["store.find_eab_key"]
    assert macs == [32]
    assert (len(world.sealer.opened) - opened, world.sealer.sealed - sealed) == (1, 0)


# ---------------------------------------------------------------------------------------- sealed


async def test_minted_key_lies_sealed_in_the_store(world: World) -> None:
    """What was shown once is in no row and in no file."""
    key = await mint(world)
    row = await world.store.find_eab_key("default", key.key_id)
    assert row is not None
    assert (key.sealed_by, row.sealed_by) == (None, "file:1")
    await world.store.fold_log()
    kept = b"".join(path.read_bytes() for path in world.path.parent.glob("penstock.db*"))
    assert row.mac_key in kept
    assert key.mac_key not in kept
    assert key.mac_key.hex() not in repr(key)


async def test_row_that_was_copied_over_another_opens_for_neither(world: World) -> None:
    """Whoever can write to the store cannot let one key pass for another."""
    mine, theirs = await mint(world), await mint(world)
    with closing(sqlite3.connect(world.path)) as connection, connection:
        connection.execute(
            "UPDATE eab_keys SET mac_key = (SELECT mac_key FROM eab_keys WHERE key_id = ?)"
            " WHERE key_id = ?",
            (mine.key_id, theirs.key_id),
        )
    with pytest.raises(Broken, match="does not open"):
        await world.client(binding=(theirs.key_id, mine.mac_key))
    assert (await world.client(binding=(mine.key_id, mine.mac_key))).account is not None


AWAY = [unknown, wrong_mac, revoked, expired, of_another_community, withdrawn]


@pytest.mark.parametrize("case", AWAY, ids=lambda case: case.__name__)
async def test_nobody_is_told_anything_while_nothing_can_be_unsealed(
    world: World, case: Callable[[World], Awaitable[tuple[str, bytes]]]
) -> None:
    """A refusal for some key ids and none for others would tell which there are."""
    binding = await case(world)
    world.sealer.is_away = True
    with pytest.raises(Unreachable):
        await world.client(binding=binding)
    world.sealer.is_away = False
    assert await refusal_of(world, binding) == jws.binding_refused().detail


async def test_key_binds_once_the_sealer_is_back(world: World) -> None:
    """The client is told to come again, and nothing of its key is spent."""
    key = await mint(world)
    world.sealer.is_away = True
    with pytest.raises(Unreachable):
        await world.client(binding=(key.key_id, key.mac_key))
    world.sealer.is_away = False
    assert (await world.client(binding=(key.key_id, key.mac_key))).account is not None


async def test_nothing_is_minted_that_cannot_be_sealed(world: World) -> None:
    """A key in the clear would be worse than none."""
    world.sealer.is_away = True
    with pytest.raises(Unreachable):
        await mint(world)
    assert [key.key_id for key in await world.enrollment.list(None)] == ["robot"]


async def test_declared_key_needs_no_sealer(world: World) -> None:
    """Whoever proves to hold it is let in; whoever does not learns no more than others."""
    world.sealer.is_away = True
    assert (await world.robot()).account.eab_key_id == "robot"
    with pytest.raises(Unreachable):
        await world.client(binding=("robot", WRONG_KEY))


async def test_declared_key_that_lies_in_vault_waits_for_it(world: World) -> None:
    """It is read when a client comes, and not before."""
    is_back = False

    async def read() -> bytes:
        if not is_back:
            raise Unreachable("Vault is sealed")
        return b"v" * 32

    declared = DeclaredEabKey(key_id="farm", community="default", mac_key=read)
    world.settings = replace(world.settings, declared_eab_keys=(declared,))
    await world.restart()
    with pytest.raises(Unreachable):
        await world.client(binding=("farm", b"v" * 32))
    is_back = True
    assert (await world.client(binding=("farm", b"v" * 32))).account.eab_key_id == "farm"
    await refusal_of(world, ("farm", WRONG_KEY))


async def test_key_of_an_earlier_version_binds_before_it_is_sealed(world: World) -> None:
    """Sealing what lies in the clear goes on beside everything else."""
    key = await mint(world)
    with closing(sqlite3.connect(world.path)) as connection, connection:
        connection.execute(
            "UPDATE eab_keys SET mac_key = ?, sealed_by = NULL WHERE key_id = ?",
            (key.mac_key, key.key_id),
        )
    await refusal_of(world, (key.key_id, WRONG_KEY))
    assert (await world.client(binding=(key.key_id, key.mac_key))).account is not None


async def test_key_for_one_account_binds_one_of_eight(world: World) -> None:
    """The transaction that makes the account decides."""
    key = await mint(world)
    outcomes = await asyncio.gather(
        *(world.client(binding=(key.key_id, key.mac_key)) for _ in range(8)),
        return_exceptions=True,
    )
    refused = [one.detail for one in outcomes if isinstance(one, Problem)]
    assert refused == [jws.binding_refused().detail] * 7


async def test_reusable_key_binds_many(world: World) -> None:
    """A fleet may share one."""
    key = await mint(world, is_reusable=True)
    accounts = {
        (await world.client(binding=(key.key_id, key.mac_key))).account.account_id for _ in range(3)
    }
    assert len(accounts) == 3


async def test_key_binds_until_it_expires_and_its_accounts_stay(world: World) -> None:
    """The end of a key is about new accounts, not about those that it let in."""
    key = await mint(world, is_reusable=True, expires_at=START + timedelta(hours=1))
    world.clock.advance(timedelta(minutes=59))
    client = await world.client(binding=(key.key_id, key.mac_key))
    world.clock.advance(timedelta(minutes=1))
    await refusal_of(world, (key.key_id, key.mac_key))
    assert await world.enrollment.grant(client.account) is not None


# ----------------------------------------------------------------------------------- grant, revoke


async def test_account_without_a_key_has_no_grant(world: World) -> None:
    """Nothing limits it but policy."""
    assert await world.enrollment.grant((await world.client()).account) is None


async def test_revoking_a_key_stops_its_accounts(world: World) -> None:
    """They order nothing more, and are told which key it was; others go on."""
    key, other = await mint(world), await mint(world)
    client = await world.client(binding=(key.key_id, key.mac_key))
    goes_on = await world.client(binding=(other.key_id, other.mac_key))
    await world.enrollment.revoke("default", key.key_id, OPERATOR)
    with pytest.raises(Problem) as refused:
        await client.order("www.example.com")
    assert refused.value.type is ProblemType.UNAUTHORIZED
    assert key.key_id in refused.value.detail
    await goes_on.order("www.example.com")


async def test_key_revoked_between_order_and_finalize_stops_the_finalize(world: World) -> None:
    """What was true at newOrder is asked again."""
    key = await mint(world)
    client = await world.client(binding=(key.key_id, key.mac_key))
    order = await client.ready("www.example.com")
    await world.enrollment.revoke("default", key.key_id, OPERATOR)
    with pytest.raises(Problem) as refused:
        await client.finalize(order)
    assert refused.value.type is ProblemType.UNAUTHORIZED
    assert world.ca.count("finalize") == 0


async def test_key_is_revoked_once(world: World) -> None:
    """A second time, and for a key that is not there, it is a conflict."""
    key = await mint(world)
    ended = await world.enrollment.revoke("default", key.key_id, OPERATOR)
    assert ended.revoked_at == START
    for key_id, community in ((key.key_id, "default"), ("nobody", "default"), ("robot", "lab")):
        with pytest.raises(Conflict):
            await world.enrollment.revoke(community, key_id, OPERATOR)
    (event,) = await world.events(EventKind.EAB_REVOKED)
    assert event.actor == OPERATOR


# ----------------------------------------------------------------------------------------- minting


async def test_keys_are_listed_with_those_that_ended(world: World) -> None:
    """All of them, or those of one community."""
    key = await mint(world)
    await world.enrollment.revoke("default", key.key_id, OPERATOR)
    assert {one.key_id for one in await world.enrollment.list("default")} == {key.key_id, "robot"}
    assert await world.enrollment.list("lab") == []
    assert len(await world.enrollment.list(None)) == 2


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        pytest.param({"names": ("x.example.com",) * 101}, "at most 100", id="too many patterns"),
        pytest.param({"names": ("foo*.example.com",)}, "foo*", id="no pattern"),
        pytest.param({"names": ("",)}, "''", id="empty pattern"),
    ],
)
async def test_limits_that_cannot_be_kept_are_refused(
    world: World, changes: dict[str, object], words: str
) -> None:
    """A pattern that nobody can read would refuse every name, and nobody would know why."""
    with pytest.raises(Problem) as refused:
        await mint(world, **changes)
    assert refused.value.type is ProblemType.MALFORMED
    assert words in refused.value.detail
    assert await world.count(EventKind.EAB_MINTED) == 1, "the declared one alone"


async def test_key_for_an_unknown_community_is_refused(world: World) -> None:
    """Nobody could ever bind it."""
    with pytest.raises(Problem, match="'nowhere'"):
        await world.enrollment.mint(
            "nowhere",
            label="",
            names=(),
            profiles=(),
            expires_at=None,
            is_reusable=False,
            actor=OPERATOR,
        )


# ---------------------------------------------------------------------------------------- declared


async def test_declared_key_has_its_row_without_its_secret(world: World) -> None:
    """The row remembers who bound it; the secret stays where the configuration points."""
    row = await world.store.find_eab_key("default", "robot")
    assert row is not None
    assert row.mac_key == b""
    (event,) = await world.events(EventKind.EAB_MINTED)
    assert event.actor == SYSTEM


async def test_declared_key_is_kept_once(world: World) -> None:
    """A second start finds the row that the first one made."""
    await world.restart()
    await world.restart()
    assert await world.count(EventKind.EAB_MINTED) == 1
    assert (await world.robot()).account.eab_key_id == "robot"


async def test_limits_of_a_declared_key_are_those_of_the_configuration(world: World) -> None:
    """A change there holds from the next start on, for accounts that were bound before too."""
    robot = await world.robot()
    narrowed = DeclaredEabKey(
        key_id="robot",
        community="default",
        mac_key=known_secret(b"n" * 32),
        names=("only.example.com",),
    )
    world.settings = replace(world.settings, declared_eab_keys=(narrowed,))
    await world.restart()
    grant = await world.enrollment.grant(robot.account)
    assert grant is not None
    assert grant.names == ("only.example.com",)
    await refusal_of(world, ("robot", ROBOT_KEY))
    assert (await world.client(binding=("robot", b"n" * 32))).account.eab_key_id == "robot"


async def test_withdrawn_key_stops_its_accounts_until_it_is_back(world: World) -> None:
    """What no longer stands in the configuration lets nobody order."""
    robot, declared = await world.robot(), world.settings.declared_eab_keys
    await withdrawn(world)
    with pytest.raises(Problem) as refused:
        await world.enrollment.grant(robot.account)
    assert refused.value.type is ProblemType.UNAUTHORIZED
    world.settings = replace(world.settings, declared_eab_keys=declared)
    await world.restart()
    assert await world.enrollment.grant(robot.account) is not None


async def test_declared_key_that_was_revoked_stays_revoked(world: World) -> None:
    """A restart does not bring it back."""
    await world.enrollment.revoke("default", "robot", OPERATOR)
    await world.restart()
    assert await refusal_of(world, ("robot", ROBOT_KEY)) == jws.binding_refused().detail


async def test_registering_again_wants_no_binding(world: World) -> None:
    """A known key gets its account even when its binding key has ended."""
    key = await mint(world)
    client = await world.client(binding=(key.key_id, key.mac_key))
    await world.enrollment.revoke("default", key.key_id, OPERATOR)
    again, is_new = await world.accounts.register("default", jwk_of(client.key), NewAccount(), None)
    assert (again.account_id, is_new) == (client.account.account_id, False)


# ---------------------------------------------------------------------------------- chosen ids


async def test_key_is_called_as_the_operator_says(world: World) -> None:
    """A policy can name a key before it is minted; a second one of that name is refused."""
    key = await mint(world, key_id="build-farm")
    assert key.key_id == "build-farm"
    with pytest.raises(Conflict):
        await mint(world, key_id="build-farm")
    assert (await mint(world)).key_id != (await mint(world)).key_id


@pytest.mark.parametrize("key_id", ["", " ", "-farm", "a b", "ä", "a" * 65, "a/b", "a\n"])
async def test_key_id_that_clients_could_not_be_given_is_refused(world: World, key_id: str) -> None:
    """A key id is made of letters, digits and a few signs, and is no longer than 64 characters."""
    with pytest.raises(Problem) as refused:
        await mint(world, key_id=key_id)
    assert refused.value.type is ProblemType.MALFORMED


async def test_account_of_a_node_is_limited_to_what_the_node_may_have(world: World) -> None:
    """Until the node is revoked; then it orders nothing more."""
    account = nodes.account()
    node = await nodes.add(world.store, namespace="shop", service_account="api")
    enrollment = Enrollment(
        world.store, world.clock, world.settings, sealer=world.sealer, nodes=world.store
    )
    grant = await enrollment.grant(account)
    assert grant == EabGrant(
        key_id="",
        names=("*.corp.example",),
        profiles=("server",),
        node=node.name,
        namespace="shop",
        service_account="api",
        attestation="token",
        owner=node.owner,
    )
    assert await enrollment.grant(replace(account, account_id="another")) is None
    await world.store.change_node(
        replace(node, status=NodeStatus.REVOKED), expected=(NodeStatus.ACTIVE,), events=()
    )
    with pytest.raises(Problem, match="has been revoked"):
        await enrollment.grant(account)
