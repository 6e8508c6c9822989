"""What verify and reconcile find, as documents."""

import asyncio
import json
from collections.abc import Callable, Sequence
from datetime import datetime, timedelta
from pathlib import Path
from typing import Any

from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat

from broker.app.audit import NOTES_SECONDS
from broker.audit.reconciling import AROUND
from broker.commands.audit_reading import export_store
from broker.commands.audit_verifying import COMMIT_LAG, LOOK_SECONDS, reconciled, verified
from broker.issuance.events import EventKind
from broker.storage.database import BUSY_SECONDS
from broker.storage.sqlite import SqliteStore
from tests.contract.storage import given
from tests.fakes.clock import START, FakeClock
from tests.unit.commands.test_audit import make_store
from tests.unit.config.conftest import parsed


def findings(found: dict[str, Any]) -> str:
    """Return all sentences."""
    return " ".join(one["sentence"] for one in found["findings"])


def exported(folder: Path, count: int) -> tuple[Path, Path]:
    """Return the export of a store of its own, and the key of its checkpoints."""
    folder.mkdir()
    pem = asyncio.run(make_store(folder, count))
    key, lines = folder / "key.pem", folder / "export.jsonl"
    key.write_text(pem)
    with lines.open("w") as file:
        export_store(parsed({"state": str(folder)}), 0, lambda line: print(line, file=file))
    return lines, key


def test_checkpoint_of_another_key_is_found(tmp_path: Path) -> None:
    """A forged one is worth nothing."""
    lines, _ = exported(tmp_path / "a", 3)
    other = ec.generate_private_key(ec.SECP256R1()).public_key()
    key = tmp_path / "other.pem"
    key.write_bytes(other.public_bytes(Encoding.PEM, PublicFormat.SubjectPublicKeyInfo))
    found = verified(None, lines, checkpoints=lines, keys=key, accepted=())
    assert "signed by none of the public keys" in findings(found)


def test_checkpoints_of_another_chain_are_found(tmp_path: Path) -> None:
    """Two brokers cannot be taken for each other."""
    lines, _ = exported(tmp_path / "a", 3)
    others, _ = exported(tmp_path / "b", 5)
    found = verified(None, lines, checkpoints=others, keys=None, accepted=())
    assert "missing from the end" in findings(found)


def test_checkpoint_that_never_left_the_host_is_found(tmp_path: Path) -> None:
    """Somebody made one and kept it to themselves, or a sink lost it."""
    lines, key = exported(tmp_path / "a", 3)
    more, _ = exported(tmp_path / "b", 5)
    found = verified(None, lines, checkpoints=more, keys=key, accepted=())
    assert "not among those that left the host" in findings(found)


def test_unreadable_line_is_a_finding(tmp_path: Path) -> None:
    """Noise in an export is not passed over."""
    lines, key = exported(tmp_path / "a", 2)
    lines.write_text(lines.read_text() + "noise\n")
    found = verified(None, lines, checkpoints=None, keys=key, accepted=())
    assert "no record and no checkpoint" in findings(found)


KEY = "transit/penstock.default.ca"


def logged(folder: Path, **made: datetime) -> Path:
    """Return a log of Vault's with signatures of these names, made at these times."""
    path = folder / "vault.log"
    lines: list[dict[str, Any]] = [{"time": (START - timedelta(hours=1)).isoformat()}]
    for name, at in made.items():
        asked = {"id": name, "operation": "update", "path": "transit/sign/penstock.default.ca"}
        lines.append({"time": at.isoformat(), "type": "response", "request": asked})
    path.write_text("".join(json.dumps(line) + "\n" for line in lines), "utf-8")
    return path


async def record(folder: Path, *requests: str) -> None:
    """Write the records of signatures, as a broker at work does."""
    store = await SqliteStore.open(folder / "penstock.db")
    for name in requests:
        made = [{"key": f"vault:{KEY}#1", "vault_request": name}]
        event = given.event(EventKind.SIGNATURES_MADE, at=START, data={"signatures": made})
        await store.append(event, durable=True)
    await store.close()


class Pauses:
    """Time that goes by only in a pause; after so many of them something happens."""

    def __init__(self, happens: Callable[[], None] | None = None, after: int = 1) -> None:
        self.clock = FakeClock()
        self.taken: list[float] = []
        self._happens = happens
        self._after = after

    def pause(self, seconds: float) -> None:
        """Let the time go by."""
        self.taken.append(seconds)
        self.clock.advance(timedelta(seconds=seconds))
        if self._happens is not None and len(self.taken) == self._after:
            self._happens()


def held(
    folder: Path, log: Path, pauses: Pauses, *, file: Path | None = None
) -> tuple[int, Sequence[str]]:
    """Return how many match, and the names of those that are in Vault's log alone."""
    config = parsed({"state": str(folder)})
    found = reconciled(config, file, [log], also={KEY}, clock=pauses.clock, pause=pauses.pause)
    assert found["only_here"] == []
    return found["matched"], [one["request"] for one in found["only_there"]]


def test_record_that_comes_late_is_matched(tmp_path: Path) -> None:
    """The broker has signed and not committed yet; nobody is told of a stranger."""
    asyncio.run(record(tmp_path, "r1"))
    log = logged(tmp_path, r1=START, r2=START)
    pauses = Pauses(lambda: asyncio.run(record(tmp_path, "r2")), after=3)
    assert held(tmp_path, log, pauses) == (2, [])
    assert pauses.taken == [LOOK_SECONDS] * 3


def test_record_that_comes_while_the_log_is_read_is_matched(tmp_path: Path) -> None:
    """The trail is read after it, and nothing has to be waited for."""
    asyncio.run(record(tmp_path, "r1"))

    class Growing(type(tmp_path)):  # type: ignore[misc] # the platform's own kind of path
        """A log during whose reading the broker commits."""

        def open(self, *given: Any, **more: Any) -> Any:
            asyncio.run(record(tmp_path, "r2"))
            return super().open(*given, **more)

    pauses = Pauses()
    log = Growing(logged(tmp_path, r1=START, r2=START))
    assert (held(tmp_path, log, pauses), pauses.taken) == ((2, []), [])


def test_young_signature_of_a_stranger_is_named_after_a_while(tmp_path: Path) -> None:
    """Once its record could be there; whatever Vault's clock says, it is waited no longer."""
    asyncio.run(record(tmp_path, "r1"))
    for at in (START, START + timedelta(hours=1)):
        pauses = Pauses()
        assert held(tmp_path, logged(tmp_path, r1=START, x=at), pauses) == (1, ["x"])
        assert sum(pauses.taken) == COMMIT_LAG.total_seconds()


def test_old_signature_of_a_stranger_is_named_at_once(tmp_path: Path) -> None:
    """Its record would be there; a younger one beside it that matches makes no difference."""
    asyncio.run(record(tmp_path, "r1"))
    pauses = Pauses()
    log = logged(tmp_path, r1=START, x=START - COMMIT_LAG - AROUND)
    assert (held(tmp_path, log, pauses), pauses.taken) == ((1, ["x"]), [])


def test_file_is_not_waited_for(tmp_path: Path) -> None:
    """No record comes to it any more."""
    asyncio.run(record(tmp_path, "r1"))
    file = tmp_path / "export.jsonl"
    with file.open("w") as lines:
        export_store(parsed({"state": str(tmp_path)}), 0, lambda line: print(line, file=lines))
    pauses = Pauses()
    log = logged(tmp_path, r1=START, x=START)
    assert (held(tmp_path, log, pauses, file=file), pauses.taken) == ((1, ["x"]), [])


def test_wait_is_as_long_as_a_record_may_lag() -> None:
    """What the broker lets a signature wait, and a commit."""
    assert COMMIT_LAG.total_seconds() >= NOTES_SECONDS + BUSY_SECONDS
