"""Tells systemd how the agent is doing (sd_notify(3)); nothing where systemd did not start it."""

from __future__ import annotations

import contextlib
import os
import socket
from collections.abc import Mapping

from agents.clock import Clock

__all__ = ["Notifier"]


class Notifier:
    """Sends datagrams to the socket that systemd named."""

    def __init__(self, clock: Clock, environment: Mapping[str, str] = os.environ) -> None:
        self._clock = clock
        self._path = environment.get("NOTIFY_SOCKET", "")
        self.watchdog_seconds = _watchdog_seconds(environment)

    def ready(self) -> None:
        """It runs, or runs again after a reload."""
        self._send("READY=1")

    def reloading(self) -> None:
        """It reads its configuration anew; ``ready`` follows."""
        # CLOCK_MONOTONIC, as Type=notify-reload wants it.
        self._send(f"RELOADING=1\nMONOTONIC_USEC={int(self._clock.monotonic() * 1_000_000)}")

    def stopping(self) -> None:
        """It ends."""
        self._send("STOPPING=1")

    def alive(self) -> None:
        """It is not stuck."""
        if self.watchdog_seconds is not None:
            self._send("WATCHDOG=1")

    def status(self, text: str) -> None:
        """Show *text* in ``systemctl status``."""
        self._send("STATUS=" + text.replace("\n", " ")[:200])

    def _send(self, state: str) -> None:
        if not self._path.startswith(("/", "@")):
            return
        address = "\0" + self._path[1:] if self._path.startswith("@") else self._path
        # Nothing that systemd does or fails to do may touch what is being served.
        with (
            contextlib.suppress(OSError),
            socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as sender,
        ):
            sender.settimeout(1.0)
            sender.sendto(state.encode("utf-8"), address)


def _watchdog_seconds(environment: Mapping[str, str]) -> float | None:
    """Return how often to say that one is alive: at half of the time that systemd waits."""
    text = environment.get("WATCHDOG_USEC", "")
    meant_for = environment.get("WATCHDOG_PID", "")
    if not (text.isascii() and text.isdigit()) or int(text) == 0:
        return None
    if meant_for and meant_for != str(os.getpid()):
        return None
    return int(text) / 2_000_000
