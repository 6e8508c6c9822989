"""Run the hostile CA as a process: ``python -m tests.fakes.hostile_ca --state FILE``.

FILE appears once the CA serves, and tells how to reach it: the ACME directory, the
CA bundle to trust, the root that certificates lead to, and the control page.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import signal
from pathlib import Path

from aiohttp import web

from tests.fakes.hostile_ca.control import control_application
from tests.fakes.hostile_ca.server import HostileCa
from tests.peers import process


async def serve(state: Path, port: int, control_port: int, address: str) -> None:
    """Serve ACME and the control page until SIGTERM."""
    done = asyncio.Event()
    for number in (signal.SIGTERM, signal.SIGINT):
        asyncio.get_running_loop().add_signal_handler(number, done.set)
    async with HostileCa(state.parent, port=port, address=address) as ca:
        runner = web.AppRunner(control_application(ca), access_log=None, shutdown_timeout=0.2)
        await runner.setup()
        await web.TCPSite(runner, "127.0.0.1", control_port).start()
        document = {
            "directory_url": ca.directory_url,
            "control_url": f"http://127.0.0.1:{control_port}",
            "ca_bundle": str(ca.ca_bundle),
            "root_pem": ca.root_pem().decode(),
        }
        part = state.with_suffix(".part")
        part.write_text(json.dumps(document), "utf-8")
        part.rename(state)
        await done.wait()
        await runner.cleanup()


def main() -> None:
    """Read the command line and serve."""
    parser = argparse.ArgumentParser(prog="python -m tests.fakes.hostile_ca", description=__doc__)
    parser.add_argument("--state", type=Path, required=True, help="where to write how to reach it")
    parser.add_argument("--port", type=int, default=process.free_port(), help="port of the CA")
    parser.add_argument("--control-port", type=int, default=process.free_port())
    parser.add_argument("--address", default="127.0.0.1", help="where the CA listens")
    given = parser.parse_args()
    asyncio.run(serve(given.state.resolve(), given.port, given.control_port, given.address))


if __name__ == "__main__":
    main()
