"""ACME clients that order without a rest while their broker is replaced; runs on the node.

What is asked comes as JSON on standard input.  Each client orders one name after the other under an
account of its own, until the file ``stop`` is there, and says in a file beside that how many of its
orders have ended.  A broker that does not answer is asked again,
as any client would; an order that was made is finished, whatever happens in between.  What came of
them all is printed as JSON, a list with one object for each client.
"""

from __future__ import annotations

import asyncio
import itertools
import json
import sys
import time
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any, Final

import aiohttp
from cryptography.hazmat.primitives.asymmetric import ec

from tests.deployments.requester import Requester
from tests.fakes.acme_client import Answer, make_csr

AGAIN_SECONDS: Final = 0.05
"""Pause before a broker that did not answer is asked again."""

GIVE_UP_SECONDS: Final = 120.0
"""Longest that one step of an order may take."""

PACE_SECONDS: Final = 0.1
"""Pause between two orders: there is work for others on these processors."""

TRY_AGAIN: Final = frozenset({429, 503})
"""Answers by which a server asks for patience; every other error counts as one."""


def ended_file(stop: Path, number: int) -> Path:
    """Return where client *number* says how many of its orders have ended."""
    return stop.with_name(f"{stop.name}.{number}")


class Load:
    """One account, and what it saw."""

    def __init__(self, client: Requester, number: int, zone: str, stop: Path) -> None:
        self._client = client
        self._zone = f"c{number}.{zone}"
        self._stop = stop
        self._ended = ended_file(stop, number)
        self._key = ec.generate_private_key(ec.SECP256R1())
        self.made = 0
        self.valid = 0
        self.again = 0
        self.away = 0.0
        """Longest time that one step was not answered, in seconds."""
        self.ends: list[float] = []
        self.faults: list[str] = []

    async def _until(self, step: Callable[[], Awaitable[Answer]]) -> Answer:
        """Do one step until the broker answers it."""
        begun = time.monotonic()
        deadline = begun + GIVE_UP_SECONDS
        while True:
            try:
                answer = await step()
            except (aiohttp.ClientError, OSError, TimeoutError):
                self._client.nonce = None
                if time.monotonic() > deadline:
                    raise
            else:
                is_final = answer.status not in TRY_AGAIN and answer.problem != "badNonce"
                if is_final or time.monotonic() > deadline:
                    self.away = max(self.away, time.monotonic() - begun)
                    return answer
            self.again += 1
            await asyncio.sleep(AGAIN_SECONDS)

    async def order(self, name: str) -> None:
        """Order a name and wait for its certificate."""
        client = self._client
        made = await self._until(lambda: client.order(name))
        if made.status != 201:
            self.faults.append(f"newOrder: {made.status} {made.problem}")
            return
        self.made += 1
        url, csr = made.headers["Location"], make_csr([name], self._key)
        order = made.json()
        deadline = time.monotonic() + GIVE_UP_SECONDS
        while order["status"] not in {"valid", "invalid"} and time.monotonic() < deadline:
            if order["status"] == "ready":
                # What was taken before the broker went is refused the second time, so look again.
                await self._until(lambda: client.finalize(made.json(), csr))
            order = (await self._until(lambda: client.post(url))).json()
        if order["status"] != "valid":
            self.faults.append(f"order: {order['status']}")
            return
        chain = await self._until(lambda: client.post(order["certificate"]))
        if chain.status != 200:
            self.faults.append(f"certificate: {chain.status} {chain.problem}")
            return
        self.valid += 1
        self.ends.append(time.monotonic())
        self._ended.write_text(str(len(self.ends)), "ascii")

    async def run(self) -> None:
        """Order until it is enough."""
        for number in itertools.count():
            if self._stop.exists():
                return
            await self.order(f"n{number}.{self._zone}")
            await asyncio.sleep(PACE_SECONDS)


async def order_as(number: int, asked: dict[str, Any]) -> dict[str, Any]:
    """Order as client *number*, and return what came of it."""
    client = Requester(asked["directory"], Path(asked["ca"]))
    async with client:
        await client.bind(asked["key_id"], asked["mac_key"])
        load = Load(client, number, asked["zone"], Path(asked["stop"]))
        await load.run()
    told = {"made": load.made, "valid": load.valid, "again": load.again, "away": load.away}
    return {**told, "ends": load.ends, "faults": load.faults}


async def main() -> None:
    """Order, and tell what came of it."""
    asked = json.load(sys.stdin)
    orders = (order_as(number, asked) for number in range(asked["clients"]))
    print(json.dumps(await asyncio.gather(*orders)))


if __name__ == "__main__":
    asyncio.run(main())
