"""When each pod of an application serves: a program that runs on the node, beside the pods.

It reads what is asked as JSON from standard input, learns the pods' addresses from ``kubectl get
--watch``, knocks at each until a certificate of the asked name verifies, and prints one line of
JSON for each pod.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import ssl
import sys
import time
from typing import Any, Final

KNOCK_SECONDS: Final = 0.1
"""How often each pod is knocked at: the resolution of what is measured."""

ANSWER_SECONDS: Final = 5.0

LINE: Final = '{.metadata.name} {.status.podIP}{"\\n"}'


async def addresses(asked: dict[str, Any], queue: asyncio.Queue[str]) -> None:
    """Put the address of each pod into *queue* as soon as it has one."""
    command = [*asked["kubectl"], "get", "pods", "-n", asked["namespace"], "-l", asked["labels"]]
    command += ["--watch", "-o", f"jsonpath={LINE}"]
    child = await asyncio.create_subprocess_exec(*command, stdout=asyncio.subprocess.PIPE)
    assert child.stdout is not None
    known: set[str] = set()
    try:
        while line := await child.stdout.readline():
            _, _, address = line.decode().strip().partition(" ")
            if address and address not in known:
                known.add(address)
                await queue.put(address)
    finally:
        with contextlib.suppress(ProcessLookupError):
            child.kill()
        await child.wait()


async def knock(asked: dict[str, Any], context: ssl.SSLContext, address: str) -> None:
    """Knock until it serves the name, and say when."""
    while True:
        try:
            async with asyncio.timeout(ANSWER_SECONDS):
                _, writer = await asyncio.open_connection(
                    address, asked["port"], ssl=context, server_hostname=asked["name"]
                )
        except (OSError, TimeoutError):
            await asyncio.sleep(KNOCK_SECONDS)
            continue
        print(json.dumps({"address": address, "at": time.monotonic()}), flush=True)
        writer.close()
        with contextlib.suppress(OSError):
            await writer.wait_closed()
        return


async def watch(asked: dict[str, Any]) -> None:
    """Wait until as many pods serve as were asked for."""
    context = ssl.create_default_context(cadata=asked["roots"])
    queue: asyncio.Queue[str] = asyncio.Queue()
    learning = asyncio.create_task(addresses(asked, queue))
    knocking = [
        asyncio.create_task(knock(asked, context, await queue.get())) for _ in range(asked["pods"])
    ]
    await asyncio.gather(*knocking)
    learning.cancel()
    await asyncio.gather(learning, return_exceptions=True)


async def main() -> None:
    """Watch for as long as is asked at most."""
    asked = json.load(sys.stdin)
    async with asyncio.timeout(asked["seconds"]):
        await watch(asked)


if __name__ == "__main__":
    asyncio.run(main())
