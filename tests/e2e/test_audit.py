"""The trail of a whole deployment: it leaves the host, nothing is lost, who changes it is found."""

import asyncio
import json
import os
from collections.abc import AsyncIterator, Iterator
from contextlib import ExitStack, closing
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest

from broker.audit.reconciling import AROUND
from broker.audit.verification import ChainReading
from broker.clock import SystemClock
from broker.commands.audit_reading import read_file
from broker.issuance.audit_chain import ChainedRecord
from broker.web.operator import user_name
from tests.deployments.audited import ACCOUNT, MAC_KEY, MOUNT, SEEN_SECONDS, Audited
from tests.deployments.requester import Requester
from tests.peers import process

pytestmark = [pytest.mark.e2e, pytest.mark.peers]


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Audited]:
    """A broker at work."""
    with ExitStack() as stack:
        yield Audited(tmp_path_factory.mktemp("audited"), stack)


@pytest.fixture
async def requester(place: Audited) -> AsyncIterator[Requester]:
    """A trusted account."""
    async with place.requester() as made:
        yield made


async def test_whoever_changes_the_store_is_found(
    place: Audited, requester: Requester, tmp_path: Path
) -> None:
    """Edited, removed, cut off, written anew: each is named; untouched it fits."""
    await place.issue(requester, "found.example.test")
    last = await place.covered()
    key, off = str(place.public_key()), str(place.collector.received)
    given = ("--checkpoints", off, "--public-key", key)

    whole = await asyncio.to_thread(place.verify, *given)
    assert whole["findings"] == []
    assert whole["checkpoints"]["covered"] >= last

    order = f"(SELECT max(seq) FROM events WHERE kind = 'order-created' AND seq <= {last})"
    changed = {
        "edited": (
            f"UPDATE events SET actor = 'account:other' WHERE seq = {order}",
            "does not fit its digest",
        ),
        "removed": (f"DELETE FROM events WHERE seq = {order}", "missing"),
        "cut off": (f"DELETE FROM events WHERE seq > {last - 3}", "missing from the end"),
    }
    for name, (statement, said) in changed.items():
        copy = tmp_path / name.replace(" ", "-")
        place.with_store(copy, statement)
        found = await asyncio.to_thread(place.verify, *given, state=copy, status=3)
        assert said in " ".join(one["sentence"] for one in found["findings"]), name


async def test_chain_that_was_written_anew_is_found_off_the_host_alone(
    place: Audited, requester: Requester, tmp_path: Path
) -> None:
    """Whoever has the database makes every digest fit, and cannot sign."""
    await place.issue(requester, "anew.example.test")
    await place.covered()
    copy = tmp_path / "anew"
    place.with_store(copy)
    rewrite(copy / "penstock.db")
    key, off = str(place.public_key()), str(place.collector.received)
    alone = await asyncio.to_thread(place.verify, state=copy)
    assert alone["findings"] == []  # nothing beside it contradicts it: its checkpoints are gone too
    found = await asyncio.to_thread(
        place.verify, "--checkpoints", off, "--public-key", key, state=copy, status=3
    )
    assert "the chain was written anew" in found["findings"][0]["sentence"]


def rewrite(database: Path) -> None:
    """Change an early record, and make all digests after it fit, as a patient owner would."""
    import sqlite3

    from broker.issuance.audit_chain import GENESIS, digest_of, record_text

    names = "kind, at, actor, reason, community, account_id, order_id, upstream, data"
    with closing(sqlite3.connect(database)) as db:
        db.execute("UPDATE events SET actor = 'operator:nobody' WHERE seq = 2")
        db.execute("DELETE FROM audit_checkpoints")
        previous = GENESIS
        for seq, *columns in db.execute(f"SELECT seq, {names} FROM events ORDER BY seq").fetchall():
            previous = digest_of(record_text(seq, tuple(columns), previous))
            db.execute("UPDATE events SET digest = ? WHERE seq = ?", (previous, seq))
        db.commit()


async def test_file_of_a_sink_verifies_as_the_store_does(
    place: Audited, requester: Requester
) -> None:
    """And so does an export, by the same command."""
    await place.issue(requester, "file.example.test")
    last = await place.covered()

    def is_there() -> bool:
        lines = place.file.read_text("utf-8").splitlines(keepends=True)
        whole = [json.loads(line) for line in lines if line.endswith("\n")]
        return any("checkpoint" in one and one["seq"] >= last for one in whole)

    await asyncio.to_thread(process.wait_until, is_there, SEEN_SECONDS, "file has it")
    key = str(place.public_key())
    exported = place.tmp / "export.jsonl"
    exported.unlink(missing_ok=True)
    await asyncio.to_thread(place.penstock.run, "audit", "export", "--output", str(exported))
    for file in (place.file, exported):
        found = await asyncio.to_thread(
            place.verify, "--file", str(file), "--checkpoints", str(file), "--public-key", key
        )
        assert found["findings"] == [], file
        assert found["checkpoints"]["covered"] >= last, file


async def test_every_signature_in_vault_has_its_record(
    place: Audited, requester: Requester
) -> None:
    """And the other way round; somebody else's signature by our key is named."""
    await place.issue(requester, "signed.example.test")
    await place.covered()
    log = str(place.vault_log)
    agreed = await place.penstock.a_json("audit", "reconcile", log)
    assert agreed["matched"] >= 5
    assert (agreed["only_there"], agreed["only_here"]) == ([], [])
    path = f"{MOUNT}/sign/{ACCOUNT}/sha2-256"
    place.vault.ask("POST", path, {"input": "aGVsbG8="})
    done = await asyncio.to_thread(
        place.penstock.run, "audit", "reconcile", log, "--json", status=3
    )
    found = json.loads(done.stdout)
    assert [(one["key"], one["who"]) for one in found["only_there"]] == [
        (f"{MOUNT}/{ACCOUNT}", "root")
    ]
    place.vault_log.write_text(
        "".join(
            line
            for line in place.vault_log.read_text("utf-8").splitlines(keepends=True)
            if found["only_there"][0]["request"] not in line
        ),
        "utf-8",
    )


async def test_signature_that_vault_tells_nothing_of_is_named(
    place: Audited, requester: Requester, tmp_path: Path
) -> None:
    """A record of ours whose request is not in Vault's log, which went on before and after it."""
    serial = await place.issue(requester, "unlogged.example.test")
    await place.covered()
    found = await place.operator.ask("cert_evidence", certificate=serial)
    missing = found["signatures"][0]["vault_request"]
    # Checkpoints go on being signed: what is made once the log was read is outside of its time.
    now = SystemClock().now()
    lines = place.vault_log.read_text("utf-8").splitlines()
    left = [line for line in lines if missing not in line]
    assert len(left) < len(lines)
    span = now - timedelta(hours=1), now + AROUND
    edges = [json.dumps({"time": at.isoformat()}) for at in span]
    log = tmp_path / "vault.log"
    for texts, expected in (([*lines, *edges], []), ([*left, *edges], [missing])):
        log.write_text("\n".join(texts), "utf-8")
        words = ("audit", "reconcile", str(log), "--json")
        status = 3 if expected else 0
        done = await asyncio.to_thread(place.penstock.run, *words, status=status)
        told = json.loads(done.stdout)
        assert told["only_there"] == []
        assert [one["request"] for one in told["only_here"]] == expected


async def test_evidence_of_a_certificate_is_one_document(
    place: Audited, requester: Requester
) -> None:
    """Who asked, what decided, what Vault signed, how it ended, and where that stands in the
    chain."""
    serial = await place.issue(requester, "evidence.example.test")
    await asyncio.to_thread(
        place.penstock.run, "cert", "revoke", await found_by(place, serial), "--reason", "ticket 7"
    )
    await place.covered()
    found = await place.penstock.a_json("cert", "evidence", serial)
    assert found["certificate"]["names"] == ["evidence.example.test"]
    assert found["decided_at_order"]["policy_sha256"] == found["decision"]["policy_sha256"]
    assert found["decided_at_finalize"]["cap_rule"]
    assert found["requester"]["account"]["eab_key"] == "trusted-tests"
    assert all(one["vault_request"] for one in found["signatures"])
    assert {one["for"] for one in found["signatures"]} >= {"fulfil", "revoke"}
    kinds = [one["kind"] for one in found["revocation"]]
    assert kinds[:1] == ["certificate-revocation-requested"]
    assert found["revocation"][0]["reason"] == "ticket 7"
    assert "certificate-revoked" in kinds
    assert found["chain"]["covered_by"]["record"] >= found["chain"]["records"][-1]
    shown = await asyncio.to_thread(place.penstock.run, "cert", "evidence", serial)
    assert "WHO ASKED" in shown.stdout
    traced = await place.penstock.a_json("audit", "trace", serial)
    assert {one["kind"] for one in traced} >= {"order-created", "certificate-issued"}


async def found_by(place: Audited, serial: str) -> str:
    """Return the fingerprint of the certificate with that serial number."""
    found = await place.operator.ask("cert_evidence", certificate=serial)
    return str(found["certificate"]["fingerprint"])


async def test_no_secret_is_in_the_trail(place: Audited, requester: Requester) -> None:
    """Neither off the host nor in what a person is shown."""
    serial = await place.issue(requester, "secrets.example.test")
    await place.covered()
    evidence = await place.penstock.a_json("cert", "evidence", serial)
    texts = {
        "collector": place.collector.received.read_text("utf-8"),
        "file": place.file.read_text("utf-8"),
        "evidence": json.dumps(evidence),
        "log": place.penstock.log_text(),
    }
    secrets = {
        "MAC key": MAC_KEY,
        "token that signs": place.transit.serve_token,
        "token that rotates": place.transit.rotate_token,
        "passphrase": "a passphrase for tests",
        "private key": "PRIVATE KEY",
        "CSR": "CERTIFICATE REQUEST",
    }
    found = [
        (what, where)
        for where, text in texts.items()
        for what, one in secrets.items()
        if one in text
    ]
    assert found == []
    assert "secrets.example.test" in texts["collector"]  # what may be there is there


async def test_change_of_the_policies_is_a_record(place: Audited) -> None:
    """Who had it taken and why, and what it is; a broken one likewise, and that it was refused."""
    file, good = place.penstock.policy_file, place.penstock.policy_document()
    first = await place.penstock.a_json("policy", "status")
    try:
        file.write_text(json.dumps({**good, "cap": "30d"}), "utf-8")
        taken = await reloaded(place, "ticket 22")
        file.write_text(json.dumps({**good, "cap": "0d"}), "utf-8")
        refused = await reloaded(place, "ticket 23", status=1)
    finally:
        file.write_text(json.dumps(good, indent=1), "utf-8")
        put_back = await reloaded(place, "back again")
    before, after = first["in_force"]["sha256"], taken["in_force"]["sha256"]
    assert (before != after, put_back["in_force"]["sha256"]) == (True, before)
    await place.covered()
    records: list[ChainedRecord] = []
    read_file(place.collector.received, records.append)
    all_of_them = {one.columns[3]: one for one in records if one.kind.startswith("policy-")}
    found = {reason: one for reason, one in all_of_them.items() if reason is not None}
    told = {reason: (one.kind, one.data["sha256"]) for reason, one in found.items()}
    assert told == {
        "ticket 22": ("policy-activated", after),
        "ticket 23": ("policy-refused", refused["refused"]["sha256"]),
        "back again": ("policy-activated", before),
    }
    assert {one.columns[2] for one in found.values()} == {f"operator:{user_name(os.getuid())}"}
    changed, broken = found["ticket 22"].data, found["ticket 23"].data
    assert (changed["before"], changed["changed"]) == (before, ["default.yaml"])
    assert broken["in_force"] == after
    assert any("cap" in fault for fault in broken["faults"])


async def reloaded(place: Audited, reason: str, *, status: int = 0) -> dict[str, Any]:
    """Have the policies read now, and return what the command says of them."""
    words = ("policy", "reload", "--reason", reason, "--json")
    done = await asyncio.to_thread(place.penstock.run, *words, status=status)
    told: dict[str, Any] = json.loads(done.stdout)
    return told


async def test_refused_request_without_an_account_is_a_record(
    place: Audited, requester: Requester
) -> None:
    """Whoever knocks and is sent away is in the trail."""
    from tests.fakes.acme_client import AcmeClient

    async with AcmeClient(place.penstock.directory_url, place.penstock.ca_bundle) as stranger:
        answer = await stranger.register(onlyReturnExisting=True)
    assert answer.status == 400

    def is_there() -> bool:
        lines = [line for line in place.collector.lines() if " request-refused " in line]
        return any('actor="anonymous"' in line for line in lines)

    # It is written behind the answer, so that a checkpoint of now may not cover it.
    await asyncio.to_thread(process.wait_until, is_there, SEEN_SECONDS, "refusal is there")
    await place.issue(requester, "twin.example.test")


# Last, since a kill may leave a signature of its last second in Vault alone.
async def test_collector_that_is_away_loses_nothing(place: Audited, requester: Requester) -> None:
    """Nor does a broker that is killed meanwhile: every record is there, in order, and what stands
    twice is known by its number."""
    await place.issue(requester, "before.example.test")
    await asyncio.to_thread(place.collector.kill)
    await place.issue(requester, "without.example.test")
    await asyncio.to_thread(place.penstock.kill)
    await asyncio.to_thread(place.penstock.start)
    async with place.requester() as again:
        await place.issue(again, "after.example.test")
        await asyncio.to_thread(place.collector.start)
        last = await place.covered()
    reading = ChainReading(may_repeat=True)
    trail = read_file(place.collector.received, reading.read)
    assert (reading.findings, trail.unreadable) == ([], [])
    assert (reading.first, reading.last >= last) == (1, True)
    numbers = place.collector.numbers()
    assert list(dict.fromkeys(numbers)) == list(range(1, reading.last + 1))
    await place.all_up()
