"""A broker that may be killed at any moment, in front of a CA that keeps its own record.

Built for crashes: the broker's process is its own, the CA's outlives it, strace can be put on the
running broker to end it at a chosen system call or to fail that call.
"""

from __future__ import annotations

import asyncio
import contextlib
import itertools
import re
import subprocess
from collections.abc import AsyncIterator, Mapping
from contextlib import AsyncExitStack, ExitStack
from pathlib import Path
from types import TracebackType
from typing import Any, Final, Self

from cryptography import x509

from tests.deployments.ledger import (
    Delivered,
    Kept,
    check_ledger,
    check_local_ledger,
    is_sound,
    read_kept,
)
from tests.deployments.penstock import AcmeCa, Penstock, secret
from tests.e2e.survivor import ChallengeAnswers, Survivor, binding, delivery
from tests.fakes.acme_client import AcmeClient
from tests.fakes.hostile_ca import HostileCaProcess, Script
from tests.fakes.hostile_ca.envelope import b64
from tests.peers import process

MAC_KEY: Final = b"the MAC key of the trusted farm."

POLL_INTERVAL: Final = "50ms"
"""Shortest pause between two looks at the CA; half a second of it would only make tests long."""

PROVABLE: Final = 600
"""Names that lead to the http-01 answers of a test; each order takes fresh ones."""

ATTACH_SECONDS: Final = 60.0
"""Longest wait for strace to let go of a process; it needs a few milliseconds."""

END_SECONDS: Final = 60.0
"""Longest wait for a process that is on its way out."""


class Broker(Penstock):
    """A Penstock that tells when its process has ended."""

    def has_ended(self) -> bool:
        """Say whether the process is gone, or was never started."""
        return self._process is None or self._process.poll() is not None

    def wait_ended(self, seconds: float = END_SECONDS) -> int:
        """Return the exit status of a process that ends by itself or was told to."""
        assert self._process is not None
        return self._process.wait(seconds)

    def restart(self) -> None:
        """Start again after the process has ended, whatever ended it."""
        if self.has_ended():
            self._process = None
        self.kill()
        self.start()


class Scene:
    """A broker in front of the hostile CA, or of the built-in one where *script* is None."""

    def __init__(
        self,
        tmp: Path,
        script: Script | None = None,
        *,
        limits: dict[str, str] | None = None,
        state: Path | None = None,
        environment: Mapping[str, str] | None = None,
    ) -> None:
        """Describe the scene; *state* is the broker's state directory where it is a special one.

        *environment* goes to the broker and to its CA.
        """
        self.tmp = tmp
        self._state = state
        self.answers_port = process.free_port()
        self._stack = ExitStack()
        self._numbers = itertools.count()
        self.ca: HostileCaProcess | None = None
        self.delivered: list[Delivered] = []
        """All that the clients of this scene hold."""
        self._script = script
        self._limits = limits
        self._environment = environment

    def __enter__(self) -> Self:
        with ExitStack() as stack:
            if self._script is not None:
                self.ca = stack.enter_context(
                    HostileCaProcess(self.tmp / "ca", self._script, environment=self._environment)
                )
            self.broker = stack.enter_context(self._make_broker())
            self._stack = stack.pop_all()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self._stack.close()

    def _make_broker(self) -> Broker:
        home = self.tmp / "penstock"
        home.mkdir()
        trusted = {
            "eab": ["farm"],
            "names": ["**.farm.example.test"],
            "profiles": ["server"],
            "because": "the farm knows its hosts",
        }
        key = {"key_id": "farm", "mac_key": secret(home, "farm.key", b64(MAC_KEY))}
        broker = Broker(
            home,
            validation_http_port=self.answers_port,
            hosts={f"p{number}.example.test": ["127.0.0.1"] for number in range(PROVABLE)},
            upstreams=[] if self.ca is None else [self._upstream(self.ca)],
            policy={"trusted": [trusted]},
            limits=self._limits,
            environment=self._environment,
            more={"external_account_bindings": [key]},
        )
        if self._state is not None:
            broker.state, broker.database = self._state, self._state / broker.database.name
        return broker

    def _upstream(self, ca: HostileCaProcess) -> AcmeCa:
        anchors = self.tmp / "ca-root.pem"
        anchors.write_bytes(ca.root_pem())
        return AcmeCa(
            name="hostile",
            directory_url=ca.directory_url,
            ca_bundle=ca.ca_bundle,
            anchors=anchors,
            facts={"honours_not_after": True, "is_ct_logged": False},
            options={"poll_interval": POLL_INTERVAL},
        )

    # ------------------------------------------------------------------------------ clients

    def names(self, count: int = 1, *, is_trusted: bool = True) -> list[str]:
        """Return names that no other order has: the farm's own, or such as can be proved."""
        numbers = [next(self._numbers) for _ in range(count)]
        if is_trusted:
            return [f"h{number}.farm.example.test" for number in numbers]
        assert max(numbers) < PROVABLE
        return [f"p{number}.example.test" for number in numbers]

    @contextlib.asynccontextmanager
    async def client(self, *, is_trusted: bool = True) -> AsyncIterator[AcmeClient]:
        """Return a registered client; one that is not trusted answers http-01."""
        async with AsyncExitStack() as stack:
            found = await stack.enter_async_context(
                AcmeClient(self.broker.directory_url, self.broker.ca_bundle)
            )
            bound = {"externalAccountBinding": binding(found, "farm", MAC_KEY)}
            answer = await found.register(**(bound if is_trusted else {}))
            assert answer.status == 201, answer.body
            if not is_trusted:
                await stack.enter_async_context(ChallengeAnswers(found, self.answers_port))
            yield found

    # ------------------------------------------------------------------------------- record

    def kept(self) -> Kept:
        """Return what the broker's database holds."""
        return read_kept(self.broker.database)

    def faults(self) -> list[str]:
        """Return what is wrong between the CA's record, the database and the clients."""
        kept = self.kept()
        findings = (
            check_local_ledger(kept, self.delivered)
            if self.ca is None
            else check_ledger(self.ca.ledger(), kept, self.delivered)
        )
        return findings if is_sound(self.broker.database) else [*findings, "database is damaged"]

    def metric(self, name: str) -> float:
        """Return the value of a metric without labels."""
        found = re.search(rf"^{name} (\S+)$", self.broker.metrics(), re.MULTILINE)
        assert found is not None, f"no metric {name}"
        return float(found[1])

    # ------------------------------------------------------------------------------ crashes

    async def until_killed(self, work: asyncio.Task[Any]) -> bool:
        """Wait until the broker has been killed or *work* is done; return whether it was killed."""
        while not work.done():
            if self.broker.has_ended():
                return True
            await asyncio.sleep(process.POLL_SECONDS)
        return False

    async def obtain(self, survivor: Survivor) -> None:
        """Carry an order through and note what is delivered."""
        self.delivered.append(await survivor.obtain())

    def note_delivery(self, csr: x509.CertificateSigningRequest, chain_pem: bytes) -> None:
        """Note a certificate that a client has fetched by itself."""
        self.delivered.append(delivery(csr, chain_pem))

    async def survive(self, survivor: Survivor, strace: Strace) -> bool:
        """Carry an order through while strace may kill the broker once; return whether it did."""
        async with strace:
            work = asyncio.create_task(self.obtain(survivor))
            is_killed = await self.until_killed(work)
        if is_killed:
            await asyncio.to_thread(self.broker.restart)
        await work
        return is_killed


class Strace:
    """strace on a running process and all its threads: to count, to kill, to fail calls."""

    def __init__(self, target: process.Peer, output: Path, *options: str) -> None:
        self._target = target
        self.output = output
        self._options = options
        self._process: subprocess.Popen[str] | None = None

    async def __aenter__(self) -> Self:
        await asyncio.to_thread(self._start)
        return self

    async def __aexit__(self, *ended: object) -> None:
        await asyncio.to_thread(self._stop)

    def _start(self) -> None:
        command = ["strace", "-f", "-y", "-p", str(self._target.pid), "-o", str(self.output)]
        self._process = subprocess.Popen(
            [*command, *self._options], stderr=subprocess.PIPE, text=True, start_new_session=True
        )
        assert self._process.stderr is not None
        said = self._process.stderr.readline()
        if "attached" not in said:
            self._stop()
            raise process.PeerFailed(f"strace: {said}")

    def _stop(self) -> None:
        """Let go of the process, which then runs on as if nothing had been."""
        assert self._process is not None
        self._process.terminate()
        self._process.communicate(timeout=ATTACH_SECONDS)

    def syncs(self) -> list[str]:
        """Return the path of each file that was brought to the disk."""
        return re.findall(r" f(?:data)?sync\(\d+<([^>]*)>", self.output.read_text("utf-8"))


def killing(broker: Broker, output: Path, call: str, number: int, *more: str) -> Strace:
    """Return the strace that kills *broker* as it enters *call* for the *number*-th time."""
    inject = f"inject={call}:signal=KILL:when={number}"
    return Strace(broker, output, "-e", f"trace={call}", "-e", inject, *more)
