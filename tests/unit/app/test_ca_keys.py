"""The built-in CAs' keys: what they are called, which may be used, and how they end."""

from __future__ import annotations

from collections.abc import Sequence

import pytest

from broker.app.ca_keys import CaKeys, PlannedKey, left_in_vault
from broker.issuance.errors import Broken
from broker.issuance.key_ports import KeyFault
from broker.issuance.records import CaMember, CaRole
from tests.fakes.clock import START
from tests.fakes.signer import FakeSigner

KEY = "vault:transit-ca/penstock.local.issuing"
FIRST, SECOND, THIRD = (f"{KEY}#{number}" for number in (1, 2, 3))
OTHER = "vault:transit-ca/penstock.other.issuing#1"
TRIM = "vault write transit-ca/keys/penstock.local.issuing/trim min_available_version={}"


class Ring(FakeSigner):
    """Keys that remember how they were to end."""

    def __init__(self) -> None:
        super().__init__()
        self.ended: list[tuple[str, str]] = []

    async def retire_before(self, key_id: str) -> None:
        self.ended.append(("before", key_id))

    async def destroy_key(self, key_id: str) -> None:
        self.ended.append(("destroyed", key_id))


class Places:
    """Says what it was told to."""

    def __init__(self, key_id: str) -> None:
        self.key_id = key_id

    async def next_account_key_id(self, upstream: str, community: str, current: str | None) -> str:
        raise NotImplementedError

    async def next_ca_key_id(self, upstream: str, role: str, taken: Sequence[str]) -> str:
        return self.key_id


def members(**roles: str) -> list[CaMember]:
    """Return members by role, such as ``past=FIRST``."""
    return [
        CaMember(
            ca="local",
            role=CaRole(role.rstrip("0123456789")),
            key_id=key_id,
            subject="",
            certificate_der=None,
            since=START,
        )
        for role, key_id in roles.items()
    ]


async def test_key_that_is_there_already_is_not_made() -> None:
    """Where others make the keys, the planned one is theirs."""
    ring = Ring()
    keys = CaKeys(ring, Places(FIRST))
    assert await keys.plan("local", "issuing", set()) == PlannedKey(FIRST, is_made=False)
    await ring.create_key(FIRST, "ec-p256")
    assert await keys.plan("local", "issuing", set()) == PlannedKey(FIRST, is_made=True)


async def test_key_that_was_used_is_not_used_again() -> None:
    """Two certificates of one key would share what they are published under."""
    with pytest.raises(Broken, match="was used already"):
        await CaKeys(Ring(), Places(FIRST)).plan("local", "issuing", {FIRST})


async def test_unfit_key_is_refused_with_all_reasons() -> None:
    """One that could leave Vault is no key of a CA."""
    ring = Ring()
    await ring.create_key(FIRST, "ec-p256")
    ring.faults = [KeyFault(key_id=FIRST, reason=why) for why in ("can be exported", "rotates")]
    keys = CaKeys(ring, Places(FIRST))
    with pytest.raises(Broken, match="is not fit for a CA: can be exported; rotates"):
        await keys.plan("local", "issuing", set())
    await keys.verify_fit(SECOND)


async def test_keys_in_files_are_numbered() -> None:
    """Without a place they are in files; a name that has a key is passed over."""
    ring = Ring()
    await ring.create_key("ca-local-issuing-2", "ec-p256")
    planned = await CaKeys(ring, None).plan("local", "issuing", {"ca-local-issuing-1"})
    assert planned == PlannedKey("ca-local-issuing-3", is_made=False)


async def test_there_is_an_end_to_the_names() -> None:
    """A folder full of them is somebody's mistake."""
    taken = {f"ca-local-root-{number}" for number in range(1, 101)}
    with pytest.raises(Broken, match="there are 100 keys called ca-local-root-1"):
        await CaKeys(Ring(), None).plan("local", "root", taken)


async def test_unused_key_goes_from_a_file_and_stays_in_vault() -> None:
    """What ends a version there ends those before it, which may be in use."""
    ring = Ring()
    keys = CaKeys(ring, None)
    await keys.drop("ca-local-issuing-2")
    await keys.drop(SECOND)
    assert ring.ended == [("destroyed", "ca-local-issuing-2")]


@pytest.mark.parametrize(
    ("ending", "others", "done"),
    [
        (FIRST, {"current": SECOND}, ("before", SECOND)),
        (SECOND, {"past": FIRST, "current": THIRD}, ("before", FIRST)),
        (FIRST, {"retired": SECOND, "current": THIRD}, ("before", THIRD)),
        (FIRST, {"current": THIRD, "next": SECOND}, ("before", SECOND)),
        (FIRST, {"current": OTHER}, ("destroyed", FIRST)),
        (FIRST, {"current": "ca-local-issuing-1"}, ("destroyed", FIRST)),
        ("ca-local-issuing-1", {"current": FIRST}, ("destroyed", "ca-local-issuing-1")),
    ],
    ids=["last before", "later first", "over a retired one", "next counts", "alone", "to a file",
         "from a file"],
)  # fmt: skip
async def test_key_ends_as_far_as_no_other_is_in_use(
    ending: str, others: dict[str, str], done: tuple[str, str]
) -> None:
    """Minimums rise to the earliest version that is in use, never past it."""
    ring = Ring()
    await CaKeys(ring, None).end(ending, members(retiring=ending, **others))
    assert ring.ended == [done]


@pytest.mark.parametrize(
    ("found", "commands"),
    [
        ({"current": FIRST}, []),
        ({"retired": FIRST, "current": SECOND}, [TRIM.format(2)]),
        ({"retired": FIRST, "retired2": SECOND, "current": THIRD}, [TRIM.format(3)]),
        ({"past": FIRST, "retired": SECOND, "current": THIRD}, []),
        (
            {"retired": FIRST, "current": "ca-local-issuing-1"},
            [
                "vault write transit-ca/keys/penstock.local.issuing/config deletion_allowed=true",
                "vault delete transit-ca/keys/penstock.local.issuing",
            ],
        ),
        ({"retired": "ca-local-issuing-1", "current": FIRST}, []),
    ],
    ids=["none", "one", "two", "behind one in use", "all", "file"],
)
def test_what_others_may_delete_is_told_as_commands(
    found: dict[str, str], commands: list[str]
) -> None:
    """Of each key once, and nothing that is in use or behind it."""
    assert left_in_vault(members(**found)) == commands
