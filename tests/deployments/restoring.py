"""A broker that loses its machine: backed up, killed, emptied, restored, and asked again.

Its requester is trusted and the CA believes every challenge, since what is tried out is what the
broker remembers.  What was issued is counted by the CA.
"""

from __future__ import annotations

import asyncio
import os
import shutil
import signal
import time
from collections import Counter
from collections.abc import AsyncIterator, Mapping
from contextlib import ExitStack, asynccontextmanager
from pathlib import Path
from typing import Any, Final

from cryptography import x509

from tests.deployments.operator import Operator
from tests.deployments.penstock import AcmeCa, Penstock, secret
from tests.deployments.requester import Placed, Requester
from tests.fakes.acme_client import make_csr
from tests.peers import process
from tests.peers.pebble import ChallTestSrv, Pebble, PebbleOptions
from tests.peers.stepca import StepCa

EAB_KEY: Final = "trusted-tests"
MAC_KEY: Final = "bWFjLWtleS1vZi10aGUtdGVzdHMtMzItYnl0ZXMtbG9uZw"
ZONE: Final = "web.example.test"

STEP_CA_PROFILES: Final = {
    "server": {
        "description": "servers, as step-ca certifies them: for clients too",
        "cap": "47d",
        "usages": ["server-auth", "client-auth"],
        "upstreams": [{"upstream": "step-ca"}],
    }
}

READ_ONLY_SECONDS: Final = 120.0
"""By when a restored broker has reconciled itself: it tries at once and every 30 s."""


class Restoring:
    """The deployment; in front of Pebble, of step-ca, or of the built-in CA alone."""

    def __init__(
        self,
        tmp: Path,
        stack: ExitStack,
        *,
        is_built_in: bool = False,
        is_step_ca: bool = False,
        limits: Mapping[str, Any] | None = None,
    ) -> None:
        plain = process.free_port()
        self.tmp = tmp
        self.pebble: Pebble | None = None
        upstreams = []
        if is_step_ca:
            upstreams = [self._step_ca(stack, plain)]
        elif not is_built_in:
            upstreams = [self._pebble(stack, plain)]
        trusted = {
            "eab": [EAB_KEY],
            "names": [f"**.{ZONE}"],
            "profiles": ["server"],
            "because": "hosts of the tests",
        }
        self.penstock = Penstock(
            tmp / "penstock",
            validation_http_port=process.free_port(),
            plain_port=plain,
            upstreams=upstreams,
            profiles=STEP_CA_PROFILES if is_step_ca else None,
            policy={"trusted": [trusted]},
            limits={"finalize_wait": "1s", **(limits or {})},
            more={
                "external_account_bindings": [
                    {"key_id": EAB_KEY, "mac_key": secret(tmp, "eab.mac", MAC_KEY)}
                ]
            },
        )
        stack.enter_context(self.penstock)

    def _pebble(self, stack: ExitStack, plain: int) -> AcmeCa:
        options = PebbleOptions(always_valid=True)
        dns = f"127.0.0.1:{process.free_port()}"
        pebble = Pebble(
            self.tmp / "pebble", validation_http_port=plain, dns_server=dns, options=options
        )
        self.pebble = stack.enter_context(pebble)
        return self._upstream(pebble)

    def _step_ca(self, stack: ExitStack, plain: int) -> AcmeCa:
        names = stack.enter_context(ChallTestSrv(self.tmp / "names"))
        ca = StepCa(self.tmp / "step-ca", validation_http_port=plain, dns_server=names.dns_address)
        return self._upstream(stack.enter_context(ca))

    def _upstream(self, ca: Pebble | StepCa) -> AcmeCa:
        anchors = self.tmp / "anchors.pem"
        anchors.write_bytes(ca.root_pem())
        return AcmeCa(
            name=ca.name,
            directory_url=ca.directory_url,
            ca_bundle=ca.ca_bundle,
            description=ca.name,
            anchors=anchors,
            options={"poll_interval": "100ms"},
        )

    @property
    def operator(self) -> Operator:
        """The operator socket."""
        return Operator(self.penstock.state / "operator.sock")

    @asynccontextmanager
    async def requester(self) -> AsyncIterator[Requester]:
        """Yield a requester with a bound account."""
        async with Requester(self.penstock.directory_url, self.penstock.ca_bundle) as made:
            answer = await made.bind(EAB_KEY, MAC_KEY)
            assert answer.status == 201, answer.body
            yield made

    # ------------------------------------------------------------------------------ the CA

    def freeze(self) -> None:
        """Have the CA answer nobody."""
        assert self.pebble is not None
        os.kill(self.pebble.pid, signal.SIGSTOP)

    def thaw(self) -> None:
        """Have the CA go on."""
        assert self.pebble is not None
        os.kill(self.pebble.pid, signal.SIGCONT)

    def issued(self) -> Counter[str]:
        """Return how many certificates the CA itself says it issued for each first name."""
        assert self.pebble is not None
        found: Counter[str] = Counter()
        for one in self.pebble.issued():
            pem = self.pebble.status(one.serial_hex).pem
            leaf = x509.load_pem_x509_certificate(pem)
            names = leaf.extensions.get_extension_for_class(x509.SubjectAlternativeName).value
            found.update(names.get_values_for_type(x509.DNSName))
        return found

    # ------------------------------------------------------------------------ backup and loss

    async def back_up(self, name: str = "backup") -> Path:
        """Make a backup by the command, beside the running broker."""
        path = self.tmp / name
        await asyncio.to_thread(self.penstock.run, "backup", "--output", str(path))
        return path

    async def lose_machine(self) -> None:
        """Kill the broker and delete its state."""
        await asyncio.to_thread(self.penstock.kill)
        shutil.rmtree(self.penstock.state)

    async def restore(self, path: Path, *, is_ready: bool = True) -> None:
        """Restore by the command and start; without *is_ready* only until it lives."""
        await asyncio.to_thread(self.penstock.run, "restore", str(path))
        await asyncio.to_thread(self.start, is_ready=is_ready)

    def start(self, *, is_ready: bool = True) -> None:
        """Start the broker."""
        if is_ready:
            self.penstock.start()
            return
        health = f"http://127.0.0.1:{self.penstock.health_port}"
        ready = self.penstock.is_ready
        self.penstock.is_ready = (  # type: ignore[method-assign]
            lambda: process.is_answering(f"{health}/livez")
        )
        try:
            self.penstock.start()
        finally:
            self.penstock.is_ready = ready  # type: ignore[method-assign]

    async def until_ready(self) -> None:
        """Wait until the broker is ready again."""
        await asyncio.to_thread(
            process.wait_until, self.penstock.is_ready, READ_ONLY_SECONDS, "the broker is ready"
        )


async def ready_order(requester: Requester, name: str) -> dict[str, Any]:
    """Order *name*, which needs no proof, and return the order as it was answered."""
    answer = await requester.order(name)
    assert answer.status == 201, answer.body
    return {**answer.json(), "url": answer.headers["Location"]}


async def finish(
    requester: Requester, order: dict[str, Any], csr: x509.CertificateSigningRequest | None = None
) -> Placed:
    """Finalize *order*, and return it as it is then."""
    csr = csr or make_csr([order["identifiers"][0]["value"]])
    placed = Placed(requester, order["url"], csr)
    answer = await requester.finalize(order, csr)
    assert answer.status == 200, answer.body
    placed.order = answer.json()
    return placed


async def wait_for(is_so: Any, seconds: float, what: str) -> None:
    """Wait until the coroutine function *is_so* returns true."""
    deadline = time.monotonic() + seconds
    while not await is_so():
        assert time.monotonic() < deadline, f"not within {seconds:g} s: {what}"
        await asyncio.sleep(0.1)
