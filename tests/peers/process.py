"""One foreign process: started in a group of its own, awaited, and gone for certain.

Readiness of a foreign process can only be asked for again and again; that is the
one place in the tests where polling is right, and it always has a deadline.
"""

from __future__ import annotations

import abc
import asyncio
import contextlib
import json
import os
import random
import signal
import socket
import ssl
import subprocess
import time
import urllib.error
import urllib.request
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from types import TracebackType
from typing import Any, Final, Self

START_SECONDS: Final = 90.0
"""Longest wait for a peer to answer; the slowest, step-ca, needs about 1 s on an idle core."""

STOP_SECONDS: Final = 20.0
"""Time between SIGTERM and SIGKILL; each peer here leaves in well under 1 s."""

POLL_SECONDS: Final = 0.02

PORTS: Final = range(20_000, 32_000)
"""Below Linux's ephemeral range (32768 and up), so that no outgoing connection takes one."""

WORKERS: Final = 8
"""Most workers of one run that have ports of their own: what one gives out and has not bound yet,
no other takes."""

_PORTS_OF_THIS_WORKER: Final = PORTS[
    int(os.environ.get("PYTEST_XDIST_WORKER", "gw0").removeprefix("gw")) % WORKERS :: WORKERS
]
_given: set[int] = set()
_dice: Final = random.SystemRandom()


class PeerFailed(Exception):
    """A peer did not start, did not stop, or a client's run failed; its log is in the text."""


def free_port() -> int:
    """Return a loopback port that is free for TCP and UDP and was not given out before."""
    for _ in range(1000):
        port = _dice.choice(_PORTS_OF_THIS_WORKER)
        if port in _given:
            continue
        try:
            for kind in (socket.SOCK_STREAM, socket.SOCK_DGRAM):
                with socket.socket(socket.AF_INET, kind) as probe:
                    probe.bind(("127.0.0.1", port))
        except OSError:
            continue
        _given.add(port)
        return port
    raise PeerFailed(f"no free port between {PORTS.start} and {PORTS.stop}")


def clean_environment(home: Path, extra: Mapping[str, str] | None = None) -> dict[str, str]:
    """Return an environment that knows nothing of the person's who runs the tests."""
    return {
        "PATH": "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin",
        "HOME": str(home),
        "LANG": "C.UTF-8",
        "TZ": "UTC",
        **(extra or {}),
    }


class Peer(abc.ABC):
    """A foreign server that lives as long as a ``with`` or ``async with`` block."""

    name: str = "peer"

    def __init__(self, tmp: Path) -> None:
        self.directory = tmp
        self.directory.mkdir(parents=True, exist_ok=True)
        self.log_file = tmp / f"{self.name}.log"
        self._process: subprocess.Popen[bytes] | None = None

    @abc.abstractmethod
    def command(self) -> Sequence[str]:
        """Write the configuration and return the command line to start."""

    @abc.abstractmethod
    def is_ready(self) -> bool:
        """Ask the peer once whether it serves."""

    def environment(self) -> dict[str, str]:
        """Return the environment variables the peer is started with."""
        return clean_environment(self.directory)

    @property
    def pid(self) -> int:
        """Process id of the running peer, which is also its process group."""
        if self._process is None:
            raise PeerFailed(f"{self.name} is not running")
        return self._process.pid

    def log_text(self) -> str:
        """Return everything the peer has written to its standard output and error."""
        return self.log_file.read_text("utf-8", errors="replace")

    def start(self) -> None:
        """Start the peer and return once it answers.

        Raises:
            PeerFailed: It ended or stayed silent; the end of its log is in the text.
        """
        command = self.command()
        with self.log_file.open("ab") as log:
            self._process = subprocess.Popen(
                command,
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=subprocess.STDOUT,
                cwd=self.directory,
                env=self.environment(),
                start_new_session=True,
            )
        try:
            wait_until(self._answers_or_ended, START_SECONDS, f"{self.name} answers")
        except BaseException as error:
            self.stop()
            if isinstance(error, PeerFailed):
                raise PeerFailed(f"{error}\n{tail(self.log_text())}") from None
            raise

    def _answers_or_ended(self) -> bool:
        assert self._process is not None
        if self._process.poll() is not None:
            raise PeerFailed(f"{self.name} ended with status {self._process.returncode}")
        return self.is_ready()

    def stop(self) -> None:
        """End the peer and everything it started, and see that all of it is gone."""
        if self._process is None:
            return
        process, self._process = self._process, None
        stop_group(process, self.name)

    def kill(self) -> None:
        """End the peer as a crash would: SIGKILL, and no word of warning."""
        process, self._process = self._process, None
        if process is not None:
            os.killpg(process.pid, signal.SIGKILL)
            process.wait(STOP_SECONDS)

    def __enter__(self) -> Self:
        self.start()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.stop()

    async def __aenter__(self) -> Self:
        await asyncio.to_thread(self.start)
        return self

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        await asyncio.to_thread(self.stop)


def wait_until(is_so: Callable[[], bool], seconds: float, what: str) -> None:
    """Return as soon as *is_so* holds.

    Raises:
        PeerFailed: It did not hold within *seconds*.
    """
    deadline = time.monotonic() + seconds
    while not is_so():
        if time.monotonic() > deadline:
            raise PeerFailed(f"not within {seconds:g} s: {what}")
        time.sleep(POLL_SECONDS)


def stop_group(process: subprocess.Popen[bytes], name: str) -> None:
    """End *process* and its group: SIGTERM, then SIGKILL, then look that none is left."""
    with contextlib.suppress(ProcessLookupError):
        os.killpg(process.pid, signal.SIGTERM)
    with contextlib.suppress(subprocess.TimeoutExpired):
        process.wait(STOP_SECONDS)
    with contextlib.suppress(ProcessLookupError):
        os.killpg(process.pid, signal.SIGKILL)
    process.wait(STOP_SECONDS)
    wait_until(lambda: not is_group_alive(process.pid), STOP_SECONDS, f"{name} is gone")


def is_group_alive(group: int) -> bool:
    """Say whether any process of *group* is left."""
    try:
        os.killpg(group, 0)
    except ProcessLookupError:
        return False
    return True


def is_listening(port: int, address: str = "127.0.0.1") -> bool:
    """Say whether a TCP connection to loopback *port* is accepted."""
    try:
        with socket.create_connection((address, port), timeout=1):
            return True
    except OSError:
        return False


def get(url: str, ca_bundle: Path | None = None, *, seconds: float = 10) -> bytes:
    """Return the body that *url* answers with; for a peer's own management pages."""
    return exchange(url, None, ca_bundle, seconds=seconds)


def post_json(
    url: str, document: Mapping[str, Any], ca_bundle: Path | None = None, *, seconds: float = 10
) -> bytes:
    """Send *document* as JSON to a peer's management page and return the answer's body."""
    return exchange(url, json.dumps(document).encode(), ca_bundle, seconds=seconds)


def opener(
    ca_bundle: Path | None, client: tuple[Path, Path] | None = None
) -> urllib.request.OpenerDirector:
    """Return what opens URLs on loopback, past any proxy, trusting *ca_bundle* alone.

    *client* is the certificate to show, and its key.
    """
    handlers: list[urllib.request.BaseHandler] = [urllib.request.ProxyHandler({})]
    if ca_bundle is not None:
        context = ssl.create_default_context(cafile=str(ca_bundle))
        if client is not None:
            context.load_cert_chain(*client)
        handlers.append(urllib.request.HTTPSHandler(context=context))
    return urllib.request.build_opener(*handlers)


def exchange(url: str, body: bytes | None, ca_bundle: Path | None, *, seconds: float) -> bytes:
    """Do one HTTP request to a peer on loopback, past any proxy of the environment.

    Raises:
        PeerFailed: The peer refused, or could not be reached.
    """
    try:
        with opener(ca_bundle).open(url, body, timeout=seconds) as answer:
            content: bytes = answer.read()
            return content
    except urllib.error.HTTPError as error:
        with error:
            text = error.read().decode("utf-8", "replace")
        raise PeerFailed(f"{url} answered {error.code}: {text}") from None
    except (OSError, TimeoutError) as error:
        raise PeerFailed(f"{url} can't be reached: {error}") from error


def is_answering(url: str, ca_bundle: Path | None = None) -> bool:
    """Say whether *url* answers a GET with success."""
    try:
        get(url, ca_bundle, seconds=2)
    except PeerFailed:
        return False
    return True


def tail(text: str, lines: int = 40) -> str:
    """Return the last *lines* lines of a log."""
    return "\n".join(text.splitlines()[-lines:])
