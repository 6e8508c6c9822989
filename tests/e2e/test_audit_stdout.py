"""The trail on the broker's standard output, for whatever collects what containers write."""

import asyncio
import fcntl
import json
import os
from collections.abc import Iterator
from contextlib import closing, suppress
from pathlib import Path

import pytest

from broker.audit.verification import ChainReading
from broker.commands.audit_reading import read_file
from tests.deployments.audited import EAB_KEY, MAC_KEY
from tests.deployments.operator import Operator
from tests.deployments.penstock import Penstock, secret
from tests.deployments.requester import Requester
from tests.peers import process

pytestmark = [pytest.mark.e2e, pytest.mark.peers]


class Reader:
    """Whoever reads a broker's standard output: a pipe of one page, read when a test says so."""

    def __init__(self, tmp: Path) -> None:
        self.fifo, self.file = tmp / "stdout", tmp / "read.jsonl"
        os.mkfifo(self.fifo)
        self._pipe = os.open(self.fifo, os.O_RDONLY | os.O_NONBLOCK)
        fcntl.fcntl(self._pipe, fcntl.F_SETPIPE_SZ, os.sysconf("SC_PAGE_SIZE"))

    def read(self) -> str:
        """Read what there is, keep it, and return all that was ever read."""
        with self.file.open("ab") as kept, suppress(BlockingIOError):
            # It raises that while the broker has nothing to say.
            kept.write(os.read(self._pipe, 65536))
        return self.file.read_text("utf-8")

    def close(self) -> None:
        """Go away."""
        os.close(self._pipe)


@pytest.fixture
def reader(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Reader]:
    """Reads what a broker writes."""
    with closing(Reader(tmp_path_factory.mktemp("reader"))) as made:
        yield made


@pytest.fixture
def talking(tmp_path_factory: pytest.TempPathFactory, reader: Reader) -> Iterator[Penstock]:
    """A broker whose standard output is the trail's, with its log elsewhere."""
    tmp = tmp_path_factory.mktemp("talking")
    trusted = {
        "eab": [EAB_KEY],
        "names": ["**.example.test"],
        "profiles": ["server"],
        "because": "hosts of the tests",
    }
    penstock = Penstock(
        tmp,
        validation_http_port=process.free_port(),
        policy={"trusted": [trusted]},
        more={
            "external_account_bindings": [
                {"key_id": EAB_KEY, "mac_key": secret(tmp, "eab.mac", MAC_KEY)}
            ],
            "audit": {"sinks": {"container": {"kind": "stdout"}}},
        },
    )
    penstock.prefix = ("sh", "-c", 'exec "$@" >"$0"', str(reader.fifo))
    with penstock:
        yield penstock


async def test_standard_output_is_the_trail_and_holds_nobody_up(
    talking: Penstock, reader: Reader
) -> None:
    """Certificates are issued while nobody reads it; read at last it is whole, nothing else is in
    it, and it goes on after a kill."""
    async with Requester(talking.directory_url, talking.ca_bundle) as requester:
        await requester.bind(EAB_KEY, MAC_KEY)
        last = await issued_and_covered(talking, requester, "first")
        told = await Operator(talking.state / "operator.sock").ask("audit_status")
        assert told["sinks"][0]["record"] < last, "a page is not the whole of it"
        await until_read(reader, last)
        talking.kill()
        await asyncio.to_thread(talking.start)
        requester.nonce = None  # it was the former process's
        last = await issued_and_covered(talking, requester, "second")
    await until_read(reader, last)
    reading = ChainReading(may_repeat=True)
    trail = read_file(reader.file, reading.read)
    assert (reading.findings, trail.unreadable, reading.first) == ([], [], 1)
    key = reader.file.with_name("public.pem")
    key.write_text(talking.run("audit", "public-key").stdout, "ascii")
    off = str(reader.file)
    done = await asyncio.to_thread(
        talking.run, "audit", "verify", "--checkpoints", off, "--public-key", str(key), "--json"
    )
    found = json.loads(done.stdout)
    assert found["findings"] == []
    assert found["checkpoints"]["covered"] >= last
    assert "certificate-issued" in reader.read()
    assert "certificate-issued" not in talking.log_text()


async def issued_and_covered(penstock: Penstock, requester: Requester, host: str) -> int:
    """Issue more than a page tells of, and return the last record that a checkpoint covers."""
    for number in range(3):
        placed = await requester.request(f"{host}-{number}.example.test")
        assert await placed.settled() == "valid"
    made = await Operator(penstock.state / "operator.sock").ask("audit_checkpoint")
    return int(made["record"])


async def until_read(reader: Reader, last: int) -> None:
    """Read until that record and the checkpoint over it have come."""

    def has_come() -> bool:
        lines = reader.read().splitlines(keepends=True)
        whole = [json.loads(line) for line in lines if line.endswith("\n")]
        return any("checkpoint" in one and one["seq"] == last for one in whole)

    await asyncio.to_thread(process.wait_until, has_come, 20, "the trail was read")
