"""Tells systemd that the broker serves, and that it ends; nothing where systemd did not start it.

Until it serves, SIGHUP would end it, as it ends every process that does not ask for it; a service
manager that was told waits with a reload for as long (sd_notify(3)).
"""

from __future__ import annotations

import contextlib
import os
import socket
from collections.abc import Mapping
from typing import Final

__all__ = ["tell_service_manager"]

SEND_SECONDS: Final = 1.0
"""Longest that a datagram may wait for room with systemd, in seconds: nobody is served meanwhile,
and it takes microseconds."""


def tell_service_manager(state: str, environment: Mapping[str, str] = os.environ) -> None:
    """Send *state*, such as ``READY=1``; what systemd does or fails to do changes nothing here."""
    path = environment.get("NOTIFY_SOCKET", "")
    if not path.startswith(("/", "@")):
        return
    address = "\0" + path[1:] if path.startswith("@") else path
    with (
        contextlib.suppress(OSError),
        socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as sender,
    ):
        sender.settimeout(SEND_SECONDS)
        sender.sendto(state.encode("ascii"), address)
