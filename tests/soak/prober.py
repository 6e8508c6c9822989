"""The prober: a program of its own that connects to every server each second and believes nobody.

``python -m tests.soak.prober TARGETS TRUST OUT``: TARGETS is JSON, TRUST a PEM file that may grow,
OUT gets a line of JSON for whatever changed or was wrong.  It knows neither broker nor agents.
"""

from __future__ import annotations

import hashlib
import json
import signal
import smtplib
import socket
import ssl
import sys
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final, TextIO

PERIOD_SECONDS: Final = 1.0

CONNECT_SECONDS: Final = 5.0
"""Longest that one look may take."""

LONGEST_SILENCE_SECONDS: Final = 10.0
"""How long a server may be out of reach in a row: a reload takes well under a second."""


class NotThere(Exception):
    """The server was not reached, or did not get as far as a certificate."""


@dataclass(slots=True)
class Target:
    """One server, and what was last seen there."""

    node: str
    port: int
    starttls: str | None
    snakeoil: str
    fingerprint: str = ""
    is_taken_over: bool = False
    """Whether it has served a certificate that is right; from then on every other is wrong."""
    silent_since: float | None = None
    is_silence_told: bool = False
    looks: int = 0
    misses: int = 0


@dataclass(slots=True)
class Prober:
    """Looks at all targets, again and again."""

    targets: list[Target]
    trust: Path
    out: TextIO
    _lock: threading.Lock = field(default_factory=threading.Lock)
    _context: tuple[int, ssl.SSLContext] | None = None

    def look_round(self, pool: ThreadPoolExecutor) -> None:
        """Look at every server once."""
        context = self._trusting()
        list(pool.map(lambda target: self._look(target, context), self.targets))

    def _trusting(self) -> ssl.SSLContext:
        size = self.trust.stat().st_size
        if self._context is None or self._context[0] != size:
            self._context = (size, ssl.create_default_context(cafile=str(self.trust)))
        return self._context[1]

    def _look(self, target: Target, context: ssl.SSLContext) -> None:
        target.looks += 1
        try:
            fault = None
            der = _served(target, context)
        except ssl.SSLCertVerificationError as error:
            fault = error.verify_message or str(error)
            try:
                der = _served(target, _blind())
            except NotThere as missed:
                return self._missed(target, str(missed))
        except NotThere as error:
            return self._missed(target, str(error))
        target.silent_since, target.is_silence_told = None, False
        found = hashlib.sha256(der).hexdigest()
        if fault is not None and not target.is_taken_over and found == target.snakeoil:
            return None  # the agent has not come yet
        if fault is not None:
            return self._wrong(target, found, fault)
        target.is_taken_over = True
        if found != target.fingerprint:
            target.fingerprint = found
            self._tell("served", target, fingerprint=found)
        return None

    def _wrong(self, target: Target, found: str, fault: str) -> None:
        # A root may be written down while a look is under way: one more with what is known now.
        try:
            der = _served(target, ssl.create_default_context(cafile=str(self.trust)))
        except (ssl.SSLCertVerificationError, NotThere):
            target.fingerprint = found
            self._tell("wrong", target, fingerprint=found, fault=fault)
        else:
            target.fingerprint = hashlib.sha256(der).hexdigest()
            target.is_taken_over = True
            self._tell("served", target, fingerprint=target.fingerprint)

    def _missed(self, target: Target, fault: str) -> None:
        target.misses += 1
        now = time.monotonic()
        target.silent_since = now if target.silent_since is None else target.silent_since
        if now - target.silent_since > LONGEST_SILENCE_SECONDS and not target.is_silence_told:
            target.is_silence_told = True
            self._tell("silent", target, fault=fault)

    def summary(self) -> None:
        """Write how often each was looked at."""
        for target in self.targets:
            self._tell(
                "summary",
                target,
                looks=target.looks,
                misses=target.misses,
                is_taken_over=target.is_taken_over,
            )

    def _tell(self, what: str, target: Target, **more: Any) -> None:
        now = time.time()  # noqa: TID251  the prober's own clock
        line = json.dumps({"what": what, "node": target.node, "at": now, **more})
        with self._lock:
            self.out.write(line + "\n")
            self.out.flush()


def _served(target: Target, context: ssl.SSLContext) -> bytes:
    """Return the DER of what is served; raises NotThere or SSLCertVerificationError."""
    try:
        if target.starttls == "smtp":
            return _by_smtp(target, context)
        with (
            socket.create_connection(("127.0.0.1", target.port), CONNECT_SECONDS) as plain,
            context.wrap_socket(plain, server_hostname=target.node) as tls,
        ):
            return tls.getpeercert(binary_form=True) or b""
    except ssl.SSLCertVerificationError:
        raise
    except (OSError, smtplib.SMTPException, ValueError) as error:
        raise NotThere(str(error)) from error


def _by_smtp(target: Target, context: ssl.SSLContext) -> bytes:
    # smtplib takes the name to check from the host it connected to.
    with closing(smtplib.SMTP(timeout=CONNECT_SECONDS)) as session:
        session.connect("127.0.0.1", target.port)
        session._host = target.node  # type: ignore[attr-defined]
        session.ehlo("prober.invalid")
        session.starttls(context=context)
        assert isinstance(session.sock, ssl.SSLSocket)
        return session.sock.getpeercert(binary_form=True) or b""


def _blind() -> ssl.SSLContext:
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.check_hostname = False
    context.verify_mode = ssl.CERT_NONE
    return context


def main(targets: Path, trust: Path, out: Path) -> None:
    """Look each second until SIGTERM comes."""
    is_over = threading.Event()
    signal.signal(signal.SIGTERM, lambda *_: is_over.set())
    found = [Target(**one) for one in json.loads(targets.read_text("utf-8"))]
    with out.open("a", encoding="utf-8") as file, ThreadPoolExecutor(len(found)) as pool:
        prober = Prober(found, trust, file)
        due = time.monotonic()
        while not is_over.is_set():
            prober.look_round(pool)
            due = max(due + PERIOD_SECONDS, time.monotonic())
            is_over.wait(max(0.0, due - time.monotonic()))
        prober.summary()


if __name__ == "__main__":
    main(*(Path(one) for one in sys.argv[1:]))
