"""The keys in use, looked at again and again."""

from __future__ import annotations

import copy
from collections.abc import AsyncIterator, Sequence
from pathlib import Path
from typing import Any

import pytest
import structlog
from prometheus_client import CollectorRegistry

from broker.app.key_watch import KeyFaultMetrics, KeyWatch
from broker.issuance.errors import Broken, Unreachable
from broker.issuance.events import Event, EventKind
from broker.issuance.key_ports import KeyFault, KeyFaultKind
from broker.issuance.records import CaMember, CaRole, UpstreamAccountRecord
from broker.storage.sqlite import SqliteStore
from tests.fakes.clock import START
from tests.fakes.signer import FakeSigner
from tests.unit.config.conftest import parsed
from tests.unit.config.test_vault_checks import GOOD

ACCOUNT = "vault:transit-penstock/penstock.default.ca#1"
ISSUING = "vault:transit-ca/penstock.local.issuing#1"
BARRED = KeyFault(key_id=ACCOUNT, reason="rotates by itself")
EXPOSED = KeyFault(key_id=ACCOUNT, reason="can be exported", kind=KeyFaultKind.EXPOSED)
IMPORTED = KeyFault(key_id=ACCOUNT, reason="was imported", kind=KeyFaultKind.ORIGIN)


class Ring(FakeSigner):
    """Says of each key what a test wants."""

    def __init__(self) -> None:
        super().__init__()
        self.wrong: dict[str, Sequence[KeyFault] | Exception] = {}
        self.asked: list[str] = []

    async def inspect(self, key_id: str) -> Sequence[KeyFault]:
        """See the port."""
        self.asked.append(key_id)
        found = self.wrong.get(key_id, ())
        if isinstance(found, Exception):
            raise found
        return found


def account(key_id: str, community: str = "default", upstream: str = "ca") -> UpstreamAccountRecord:
    """Return an account with that key."""
    return UpstreamAccountRecord(
        upstream=upstream,
        community=community,
        directory_url="https://ca.example/directory",
        account_url=f"https://ca.example/{community}",
        key_id=key_id,
        thumbprint=community,
        registered_at=START,
    )


@pytest.fixture
async def store(tmp_path: Path) -> AsyncIterator[SqliteStore]:
    """A store with one account and one CA."""
    made = await SqliteStore.open(tmp_path / "store.db")
    event = Event(kind=EventKind.UPSTREAM_ACCOUNT_REGISTERED, at=START)
    await made.save_upstream_account(account(ACCOUNT), event)
    members = [
        CaMember(
            ca="local", role=role, key_id=key_id, subject="", certificate_der=b"x", since=START
        )
        for role, key_id in (
            (CaRole.ROOT, None),
            (CaRole.CURRENT, ISSUING),
            (CaRole.RETIRED, "vault:transit-ca/penstock.local.issuing#7"),
            (CaRole.PLANNED, "vault:transit-ca/penstock.local.issuing#8"),
        )
    ]
    await made.replace_ca_members("local", members, None)
    yield made
    await made.close()


@pytest.fixture
def ring() -> Ring:
    """Keys of which nothing is wrong."""
    return Ring()


@pytest.fixture
def watch(store: SqliteStore, ring: Ring) -> KeyWatch:
    """The watch over them."""
    return KeyWatch(parsed(copy.deepcopy(GOOD)), ring=ring, store=store)


async def test_keys_that_sign_are_looked_at(watch: KeyWatch, ring: Ring) -> None:
    """Those of accounts and of CAs; not what has ended, nor what is not made yet."""
    await watch.look()
    assert ring.asked == [ACCOUNT, ISSUING]
    assert watch.warning() is None
    assert await watch.findings() == []


async def test_account_at_an_upstream_that_is_gone_is_not_looked_at(
    watch: KeyWatch, ring: Ring, store: SqliteStore
) -> None:
    """Nothing is signed for it."""
    event = Event(kind=EventKind.UPSTREAM_ACCOUNT_REGISTERED, at=START)
    await store.save_upstream_account(account("vault:t/k#1", upstream="gone"), event)
    await watch.look()
    assert "vault:t/k#1" not in ring.asked


async def test_fault_is_told_once_and_its_end_too(watch: KeyWatch, ring: Ring) -> None:
    """The log is not filled each minute."""
    ring.wrong[ACCOUNT] = [BARRED]
    with structlog.testing.capture_logs() as told:
        await watch.look()
        await watch.look()
        assert watch.warning() == "rotates by itself"
        ring.wrong.clear()
        await watch.look()
        await watch.look()
    assert [(one["log_level"], one["event"]) for one in told] == [
        ("error", "key must not be so"),
        ("info", "key is as it has to be again"),
    ]
    assert told[0]["reason"] == "rotates by itself"
    assert watch.warning() is None


async def test_imported_key_is_a_warning_of_the_log_alone(watch: KeyWatch, ring: Ring) -> None:
    """Somebody wanted it so."""
    ring.wrong[ACCOUNT] = [IMPORTED]
    with structlog.testing.capture_logs() as told:
        await watch.look()
    assert [one["log_level"] for one in told] == ["warning"]
    assert watch.warning() is None


async def test_exposed_key_is_told_of(watch: KeyWatch, ring: Ring) -> None:
    """Though it goes on signing."""
    ring.wrong[ACCOUNT] = [EXPOSED]
    await watch.look()
    assert watch.warning() == "can be exported"


async def test_vault_that_is_away_changes_nothing_of_what_is_known(
    watch: KeyWatch, ring: Ring
) -> None:
    """And is asked once for each mount."""
    ring.wrong[ACCOUNT] = [BARRED]
    await watch.look()
    ring.wrong = {ACCOUNT: Unreachable("sealed"), ISSUING: Unreachable("sealed")}
    with structlog.testing.capture_logs() as told:
        await watch.look()
    assert told == []
    assert watch.warning() == "rotates by itself"


async def test_mount_that_does_not_answer_is_asked_once(
    watch: KeyWatch, ring: Ring, store: SqliteStore
) -> None:
    """Each attempt may take seconds."""
    event = Event(kind=EventKind.UPSTREAM_ACCOUNT_REGISTERED, at=START)
    other = account("vault:transit-penstock/penstock.lab.ca#1", "lab")
    await store.save_upstream_account(other, event)
    ring.wrong[ACCOUNT] = Unreachable("sealed")
    rows = await watch.findings()
    assert ring.asked == [ACCOUNT, ISSUING]
    assert [(row["key"], row["kind"], row["finding"]) for row in rows] == [
        (ACCOUNT, "unseen", "sealed"),
        (other.key_id, "unseen", "sealed"),
    ]


async def test_findings_are_rows_for_people(watch: KeyWatch, ring: Ring) -> None:
    """Whose key it is, and what is wrong."""
    ring.wrong = {ACCOUNT: [BARRED, IMPORTED], ISSUING: Broken("no Vault is configured")}
    assert await watch.findings() == [
        {
            "key": ACCOUNT,
            "use": "account of community 'default' at 'ca'",
            "kind": "barring",
            "finding": "rotates by itself",
        },
        {
            "key": ACCOUNT,
            "use": "account of community 'default' at 'ca'",
            "kind": "origin",
            "finding": "was imported",
        },
        {
            "key": ISSUING,
            "use": "built-in CA 'local', current",
            "kind": "barring",
            "finding": "no Vault is configured",
        },
    ]
    await watch.look()
    assert watch.warning() == "rotates by itself"


async def test_files_are_the_lesser_choice(watch: KeyWatch, store: SqliteStore) -> None:
    """Told at every start, of every key that lies in one."""
    with structlog.testing.capture_logs() as told:
        await watch.warn_of_files()
        assert told == []
        event = Event(kind=EventKind.UPSTREAM_ACCOUNT_REGISTERED, at=START)
        await store.save_upstream_account(account("account-ca@default"), event)
        await watch.warn_of_files()
    (line,) = told
    assert line["log_level"] == "warning"
    assert line["uses"] == ["account of community 'default' at 'ca'"]
    assert "the lesser choice" in line["event"]


async def test_root_that_nobody_can_reach_is_no_fault(
    watch: KeyWatch, ring: Ring, store: SqliteStore
) -> None:
    """Its credentials are there for a ceremony alone; what is seen of it counts all the same."""
    root = "vault:transit-root/penstock.local.root#1"
    member = CaMember(
        ca="local", role=CaRole.ROOT, key_id=root, subject="", certificate_der=b"x", since=START
    )
    await store.replace_ca_members("local", [member], None)
    ring.wrong[root] = Broken("token file is missing")
    (row,) = await watch.findings()
    assert (row["kind"], row["finding"]) == ("unseen", "token file is missing")
    await watch.look()
    assert watch.warning() is None
    ring.wrong[root] = [KeyFault(key_id=root, reason="can be deleted")]
    await watch.look()
    assert watch.warning() == "can be deleted"


async def test_faults_are_counted_by_kind(watch: KeyWatch, ring: Ring) -> None:
    """Each key once, however much is wrong with it."""
    registry = CollectorRegistry()
    metrics = KeyFaultMetrics(registry)

    def shown(kind: str) -> float | None:
        return registry.get_sample_value("penstock_key_faults", {"kind": kind})

    assert [shown(str(kind)) for kind in KeyFaultKind] == [0, 0, 0]
    ring.wrong = {ACCOUNT: [BARRED, BARRED, EXPOSED], ISSUING: [BARRED]}
    await watch.look()
    metrics.show(watch.count_faults())
    assert [shown(kind) for kind in ("barring", "exposed", "origin")] == [2, 1, 0]
    ring.wrong.clear()
    await watch.look()
    metrics.show(watch.count_faults())
    assert shown("barring") == 0


async def test_whoever_keeps_the_keys_is_looked_at_though_none_is_in_use(
    store: SqliteStore, ring: Ring
) -> None:
    """A newcomer asks whether Vault can be reached before there is any key."""
    row = {"key": "", "use": "Vault, as 'default'", "kind": "vault", "finding": "sealed: x"}

    async def of_the_place() -> list[dict[str, Any]]:
        return [row]

    config = parsed(copy.deepcopy(GOOD))
    watch = KeyWatch(config, ring=ring, store=store, of_the_place=of_the_place)
    assert await watch.findings() == [row]
