"""Where configuration keeps keys, and what the next one is called."""

from __future__ import annotations

import copy
from collections.abc import Mapping, Sequence

import pytest

from broker.app.key_places import ConfiguredKeyPlaces, key_store_of
from broker.issuance.errors import Broken
from broker.issuance.key_ports import KeyFault, KeyFaultKind
from broker.keys.rings import KeyRings
from tests.fakes.signer import FakeSigner
from tests.unit.config.conftest import parsed
from tests.unit.config.test_vault_checks import GOOD
from tests.unit.keys.test_rings import VaultRing

Changes = Mapping[str, object]
NONE: Changes = {}

KEY = "vault:transit-penstock/penstock.default.ca"


class Uses:
    """Remembers what a test says."""

    def __init__(self, *ids: str) -> None:
        self.ids = list(ids)

    async def used_key_ids(self) -> Sequence[str]:
        """See the port."""
        return self.ids


class Faulty(VaultRing):
    """Transit with something wrong about every key."""

    fault = KeyFault(key_id=KEY, reason="can be exported", kind=KeyFaultKind.EXPOSED)

    async def inspect(self, key_id: str) -> Sequence[KeyFault]:
        """See the port."""
        return (self.fault,)


def places(
    *used: str,
    ring: VaultRing | None = None,
    files: FakeSigner | None = None,
    changes: Changes = NONE,
) -> ConfiguredKeyPlaces:
    """Return the places of a configuration with *changes*, in which *used* were used."""
    config = parsed({**copy.deepcopy(GOOD), **changes})
    rings = KeyRings(files or FakeSigner(), ring or VaultRing())
    return ConfiguredKeyPlaces(config, rings=rings, uses=Uses(*used))


async def made(versions: int, name: str = KEY, kind: str = "ec-p256") -> VaultRing:
    """Return a transit engine whose key has so many versions."""
    ring = VaultRing()
    for number in range(1, versions + 1):
        await ring.create_key(f"{name}#{number}", kind)
    return ring


# --------------------------------------------------------------------------------------- accounts


async def test_first_key_in_vault_is_version_one() -> None:
    """Named by community and upstream, after the prefix."""
    assert await places().next_account_key_id("ca", "default", None) == f"{KEY}#1"
    named = places(changes={"vault.key_prefix": "north"})
    assert await named.next_account_key_id("ca", "default", None) == (
        "vault:transit-penstock/north.default.ca#1"
    )


@pytest.mark.parametrize(
    ("versions", "used", "expected"),
    [
        pytest.param(1, 1, 2, id="rotation"),
        pytest.param(3, 1, 3, id="others-rotated"),
        pytest.param(1, 0, 1, id="made-beforehand"),
        pytest.param(1, 3, 4, id="vault-is-older"),
        pytest.param(0, 2, 3, id="vault-is-empty"),
    ],
)
async def test_next_version_is_one_that_was_never_ours(
    versions: int, used: int, expected: int
) -> None:
    """What somebody made for us is taken, and no number twice."""
    ids = [f"{KEY}#{number}" for number in range(1, used + 1)]
    found = places(*ids, ring=await made(versions))
    current = ids[-1] if ids else None
    assert await found.next_account_key_id("ca", "default", current) == f"{KEY}#{expected}"


async def test_versions_of_other_keys_do_not_count() -> None:
    """Nor do files."""
    used = [f"{KEY}x#9", "vault:transit-other/penstock.default.ca#8", "account-ca@default"]
    assert await places(*used).next_account_key_id("ca", "default", None) == f"{KEY}#1"


async def test_present_key_counts_as_used() -> None:
    """Whatever the store remembers."""
    found = places(ring=await made(2))
    assert await found.next_account_key_id("ca", "default", f"{KEY}#2") == f"{KEY}#3"


async def test_key_that_somebody_made_has_to_be_fit() -> None:
    """Nothing hangs on it yet, so every fault counts; one of our own making is asked for none."""
    ring = Faulty()
    await ring.create_key(f"{KEY}#1", "ec-p256")
    with pytest.raises(Broken, match="can be exported"):
        await places(ring=ring).next_account_key_id("ca", "default", None)
    found = places(f"{KEY}#1", ring=ring)
    assert await found.next_account_key_id("ca", "default", None) == f"{KEY}#2"


@pytest.mark.parametrize(
    ("versions", "command"),
    [
        pytest.param(0, "penstock.default.ca type=ecdsa-p384", id="new"),
        pytest.param(1, "penstock.default.ca/rotate", id="next"),
    ],
)
async def test_nobody_to_make_the_next_version_is_told_before(versions: int, command: str) -> None:
    """With the command for those who may, and what to configure."""
    changes = {"vault.rotate": None, "upstreams.ca.account_key.kind": "ec-p384"}
    ids = [f"{KEY}#{number}" for number in range(1, versions + 1)]
    found = places(*ids, ring=await made(versions, kind="ec-p384"), changes=changes)
    with pytest.raises(Broken, match=rf"vault write -f transit-penstock/keys/{command}\), or conf"):
        await found.next_account_key_id("ca", "default", None)
    # What they made is used.
    others = await made(versions + 1, kind="ec-p384")
    waiting = places(*ids, ring=others, changes=changes)
    assert await waiting.next_account_key_id("ca", "default", None) == f"{KEY}#{versions + 1}"


async def test_file_is_named_by_upstream_and_community_and_then_by_chance() -> None:
    """A key of an earlier, unfinished registration is found again by its name."""
    changes = {"upstreams.ca.account_key.store": "file"}
    first = await places(changes=changes).next_account_key_id("ca", "default", None)
    assert first == "account-ca@default"
    for used, current in (([first], None), ([], first)):
        later = await places(*used, changes=changes).next_account_key_id("ca", "default", current)
        assert later.startswith("account-ca@default.")


async def test_another_store_than_the_configured_one_can_be_named() -> None:
    """Keys move."""
    found = places()
    into_file = await found.next_account_key_id_in("file", "ca", "default", f"{KEY}#1")
    assert into_file == "account-ca@default"
    into_vault = await found.next_account_key_id_in("vault:clinic", "ca", "default", f"{KEY}#1")
    assert into_vault == "vault:clinic/penstock.default.ca#1"


def test_store_of_a_community_comes_first() -> None:
    """Its keys are kept apart from those of others."""
    communities = {"default": {}, "clinic": {"key_store": "vault:transit-clinic"}}
    served = {"upstreams.ca.communities": ["default", "clinic"], "communities": communities}
    config = parsed({**copy.deepcopy(GOOD), **served})
    assert key_store_of(config, "ca", "default") == "vault:transit-penstock"
    assert key_store_of(config, "ca", "clinic") == "vault:transit-clinic"
    with pytest.raises(Broken, match="knows no accounts"):
        key_store_of(config, "local", "default")


def test_community_that_is_gone_has_no_place_for_keys() -> None:
    """Its account may be on record still, and its key come to be due."""
    with pytest.raises(Broken, match="community 'gone' is not configured"):
        key_store_of(parsed(copy.deepcopy(GOOD)), "ca", "gone")


async def test_vault_that_is_not_configured_keeps_nothing() -> None:
    """A moved key names a store that is none."""
    config = parsed()
    found = ConfiguredKeyPlaces(config, rings=KeyRings(FakeSigner()), uses=Uses())
    with pytest.raises(Broken, match="built in and knows no accounts"):
        await found.next_account_key_id_in("vault:transit", "local", "default", None)


# -------------------------------------------------------------------------------------- built-in


async def test_keys_of_a_built_in_ca_have_mounts_of_their_own() -> None:
    """Each role has a key, and each key its versions."""
    found = places("vault:transit-ca/penstock.local.issuing#1", ring=VaultRing())
    taken = ["vault:transit-ca/penstock.local.issuing#2"]
    assert await found.next_ca_key_id("local", "issuing", taken) == (
        "vault:transit-ca/penstock.local.issuing#3"
    )
    with pytest.raises(Broken, match=r"configure vault.mounts.transit-root.rotate"):
        await found.next_ca_key_id("local", "root", ())
    ring = await made(1, "vault:transit-root/penstock.local.root")
    beforehand = places(ring=ring)
    assert await beforehand.next_ca_key_id("local", "root", ()) == (
        "vault:transit-root/penstock.local.root#1"
    )


async def test_keys_of_a_built_in_ca_in_files_are_numbered() -> None:
    """As they always were."""
    files = FakeSigner()
    await files.create_key("ca-local-issuing-1", "ec-p256")
    found = places(files=files, changes={"upstreams.local.key_store": "file"})
    taken = ["ca-local-issuing-2"]
    assert await found.next_ca_key_id("local", "issuing", taken) == "ca-local-issuing-3"


async def test_acme_upstream_has_no_keys_of_a_ca() -> None:
    """Somebody mistook it."""
    with pytest.raises(Broken, match="is not built in"):
        await places().next_ca_key_id("ca", "issuing", ())


@pytest.mark.parametrize("versions", [0, 1])
async def test_key_that_was_refused_before_is_seen_anew(versions: int) -> None:
    """Somebody deleted it, perhaps, and made another one; nobody had used it."""
    forgotten: list[str] = []

    class Forgetting(VaultRing):
        """Transit that tells what it was to forget."""

        def forget(self, key_id: str) -> None:
            """See the port."""
            forgotten.append(key_id)

    ring = Forgetting()
    if versions:
        await ring.create_key(f"{KEY}#1", "ec-p256")
    assert await places(ring=ring).next_account_key_id("ca", "default", None) == f"{KEY}#1"
    assert forgotten == [f"{KEY}#1"]


async def test_key_of_another_kind_than_configured_is_refused_before_it_is_used() -> None:
    """It would be pinned, and never rotated: each version is of the first one's kind."""
    ring = VaultRing()
    await ring.create_key(f"{KEY}#1", "ec-p384")
    with pytest.raises(Broken, match=r"is of kind ec-p384, and account_key\.kind is ec-p256"):
        await places(ring=ring).next_account_key_id("ca", "default", None)
