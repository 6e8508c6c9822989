"""The operator socket of a running broker, spoken to without starting a command for each word."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import aiohttp

from tests.peers.process import PeerFailed

COMMAND_URL = "http://localhost/v1/command"


class Operator:
    """Asks as ``penstock`` commands do; a test that needs many answers asks here."""

    def __init__(self, socket: Path) -> None:
        self._socket = socket

    async def ask(self, command: str, *, reason: str | None = None, **arguments: Any) -> Any:
        """Return the command's result.

        Raises:
            PeerFailed: The broker refused; its sentence is in the text.
        """
        document = {"command": command, "arguments": arguments, "reason": reason}
        connector = aiohttp.UnixConnector(str(self._socket))
        async with (
            aiohttp.ClientSession(connector=connector) as session,
            session.post(COMMAND_URL, json=document) as answer,
        ):
            said = await answer.json()
        if "result" not in said:
            raise PeerFailed(f"{command} was refused: {said}")
        return said["result"]
