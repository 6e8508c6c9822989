"""One broker in front of some hostile CAs, so that as many cases can be tried side by side.

Each CA is an upstream of its own, with a profile of its own in the policy: while a case has it,
its ledger tells of that case only, and what the case suspends is in nobody's way.  Requesters are
trusted, since what is tried out is the upstream half.
"""

from __future__ import annotations

import asyncio
import dataclasses
import datetime
import json
import secrets
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass
from email.utils import format_datetime
from pathlib import Path
from types import TracebackType
from typing import Any, Final, Self

from tests.deployments.operator import Operator
from tests.deployments.penstock import AcmeCa, Penstock, secret
from tests.deployments.requester import Requester
from tests.fakes.hostile_ca import Behaviour, Chain, HostileCa, Script
from tests.fakes.hostile_ca.envelope import b64
from tests.peers import authority, process

EAB_KEY: Final = "trusted-tests"
"""Id of the external account binding key that stands in the broker's configuration."""

CAP_DAYS: Final = 47
"""Validity cap of every profile, in days."""

STRANGER: Final = "$STRANGER"
"""Stands in a script for the host and port that no CA may send us to."""

ITSELF: Final = "$ITSELF"
"""Stands in a script for the CA's own host and port."""

NAME: Final = "$NAME"
"""Stands in a script for the name that is asked for."""

SOON: Final = "$SOON"
"""Stands in a script for the HTTP date of four seconds from the script's beginning."""

LANES: Final = 16
"""How many cases run side by side; registering at a CA takes the broker some 0.2 s each."""

SHORTEST_SECRET_CHARS: Final = 12
"""What is shorter may stand in an answer by chance."""

PROVEN: Final = Behaviour(authorizations_valid=True)
"""An honest CA that asks for no proof."""


class Stranger:
    """A listener at which nobody has any business; it counts who came."""

    def __init__(self) -> None:
        self.port = process.free_port()
        self.visits = 0
        self._server: asyncio.Server | None = None

    async def start(self) -> None:
        """Listen on loopback."""
        self._server = await asyncio.start_server(self._visited, "127.0.0.1", self.port)

    async def stop(self) -> None:
        """Stop listening."""
        if self._server is not None:
            self._server.close()
            await self._server.wait_closed()

    async def _visited(self, _: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.visits += 1
        writer.close()


@dataclass(frozen=True, slots=True)
class Lane:
    """One CA, and what leads to it; one case has it at a time."""

    name: str
    """Of the upstream, and of the policy's profile that orders from it alone."""

    ca: HostileCa

    def mend(self) -> None:
        """Make the CA honest, also about what it was asked for before."""
        self.ca.script = Script(standing=PROVEN)
        self.ca.release()
        resources = self.ca.resources
        records = resources.records
        for account in records.accounts.values():
            account.status = "valid"
        for order in records.orders.values():
            order.disguised_for = 0
            if order.status == "pending":
                order.status = "ready"
                for authorization in order.authorizations:
                    authorization.status = "valid"
        for issued in list(records.certificates.values()):
            answer = resources.issuer.answer(issued.certificate, Chain.HONEST)
            records.certificates[issued.id] = dataclasses.replace(issued, answer=answer)

    def secrets(self) -> set[str]:
        """Return what the CA alone and the broker may know: its place, its ids, its tokens."""
        records = self.ca.resources.records
        found = {f"127.0.0.1:{self.ca.port}", *records.accounts, *records.orders}
        found |= set(records.certificates)
        for order in records.orders.values():
            for authorization in order.authorizations:
                found.add(authorization.id)
                for challenge in authorization.challenges:
                    found |= {challenge.id, challenge.token or challenge.id}
        return {secret for secret in found if len(secret) >= SHORTEST_SECRET_CHARS}


class BehindHostileCas:
    """The deployment; ``async with BehindHostileCas(tmp) as it``."""

    def __init__(self, tmp: Path, *, lanes: int = LANES) -> None:
        self._tmp = tmp
        self._names = [f"ca-{number}" for number in range(lanes)]
        self._mac_key = b64(secrets.token_bytes(32))
        self._stack = AsyncExitStack()
        self._lanes: list[Lane] = []
        self._free: asyncio.Queue[Lane] = asyncio.Queue()
        self.stranger = Stranger()
        self.penstock: Penstock

    @property
    def operator(self) -> Operator:
        """The broker's operator socket."""
        return Operator(self.penstock.state / "operator.sock")

    async def __aenter__(self) -> Self:
        async with AsyncExitStack() as stack:
            await self._start(stack)
            self._stack = stack.pop_all()
        return self

    async def _start(self, stack: AsyncExitStack) -> None:
        await self.stranger.start()
        stack.push_async_callback(self.stranger.stop)
        for name in self._names:
            directory = self._tmp / name
            directory.mkdir(parents=True)
            ca = await stack.enter_async_context(HostileCa(directory))
            self._lanes.append(Lane(name, ca))
        self.penstock = self._broker()
        await stack.enter_async_context(self.penstock)
        for name in self._names:
            await self.operator.ask("upstream_register", upstream=name, agree_to_terms=True)
        for lane in self._lanes:
            self._free.put_nowait(lane)

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        await self._stack.aclose()

    @asynccontextmanager
    async def lane(self) -> AsyncIterator[Lane]:
        """Have a CA to oneself; whoever has it leaves no order of it unsettled."""
        lane = await self._free.get()
        try:
            yield lane
        finally:
            lane.mend()
            self._free.put_nowait(lane)

    async def requester(self) -> Requester:
        """Return a new account that policy trusts; it is closed with the deployment."""
        made = Requester(self.penstock.directory_url, self.penstock.ca_bundle)
        requester = await self._stack.enter_async_context(made)
        await requester.bind(EAB_KEY, self._mac_key)
        return requester

    def script(self, lane: Lane, script: Script, name: str) -> None:
        """Give the CA of *lane* a copy of *script*, with what stands in for others filled in."""
        text = json.dumps(script.to_json())
        for placeholder, value in (
            (STRANGER, f"127.0.0.1:{self.stranger.port}"),
            (ITSELF, f"127.0.0.1:{lane.ca.port}"),
            (NAME, name),
            (
                SOON,
                format_datetime(authority.real_now() + datetime.timedelta(seconds=4), usegmt=True),
            ),
        ):
            text = text.replace(placeholder, value)
        lane.ca.script = Script.from_json(json.loads(text))

    def _broker(self) -> Penstock:
        trusted = {
            "eab": [EAB_KEY],
            "names": ["**.example.test"],
            "profiles": self._names,
            "wildcards": True,
            "because": "what is tried out is the CA, not the requester",
        }
        self._tmp.mkdir(exist_ok=True)
        declared = {"key_id": EAB_KEY, "mac_key": secret(self._tmp, "eab.mac", self._mac_key)}
        return Penstock(
            self._tmp / "penstock",
            validation_http_port=process.free_port(),
            upstreams=[self._upstream(lane) for lane in self._lanes],
            profiles={name: self._profile(name) for name in self._names},
            policy={"trusted": [trusted]},
            limits={"finalize_wait": "1s", "poll_deadline": "3s"},
            more={"external_account_bindings": [declared]},
            is_registering=False,
        )

    def _upstream(self, lane: Lane) -> AcmeCa:
        anchors = self._tmp / lane.name / "anchors.pem"
        anchors.write_bytes(lane.ca.root_pem())
        return AcmeCa(
            name=lane.name,
            directory_url=lane.ca.directory_url,
            ca_bundle=lane.ca.ca_bundle,
            anchors=anchors,
            facts={"honours_not_after": True, "is_ct_logged": False},
        )

    def _profile(self, name: str) -> dict[str, Any]:
        return {
            "description": f"from the CA {name}",
            "cap": f"{CAP_DAYS}d",
            "usages": ["server-auth"],
            "upstreams": [{"upstream": name}],
        }
