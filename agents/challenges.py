"""Answers to challenges on the node, so that a host in a closed network is validated from inside.

Only what the node's own configuration lists is answered for, and an answer can be nothing but a
token, a dot and a thumbprint: whoever rules the broker cannot make the node show anything else.
http-01 is answered by a port that is open only while there is something to answer, or by a file in
the folder of a server that has port 80 already; tls-alpn-01 by a port of its own.
"""

from __future__ import annotations

import base64
import hashlib
import re
import threading
from collections.abc import Callable, Collection, Mapping
from dataclasses import dataclass
from typing import Any, Final

from agents.challenge_ports import ChallengePorts, PortFault, alpn_context
from agents.child import ChildFault, run_child
from agents.clock import Clock, SystemClock
from agents.config import ChallengesSection
from agents.placing import PlacingFault, place, remove_placed

__all__ = ["ChallengeFault", "Responder"]

MAX_ANSWERS: Final = 1_000
"""Most answers at once; each costs a few hundred bytes, or 20 KiB for tls-alpn-01."""

LONGEST_SECONDS: Final = 24 * 3600
"""Longest that an answer is served, in seconds; the broker names minutes."""

_TOKEN: Final = re.compile(r"[A-Za-z0-9_-]{16,128}")
"""RFC 8555 §8.3: base64url, at least 128 bits of entropy; ours and those of CAs have 43."""

_AUTHORIZATION: Final = re.compile(r"[A-Za-z0-9_-]{16,128}\.[A-Za-z0-9_-]{43}")
"""RFC 8555 §8.1: token, dot, thumbprint."""

FOLDER: Final = ".well-known/acme-challenge"

Craft = Callable[[Mapping[str, Any]], dict[str, Any]]
"""Does a piece of work with keys; ``run_child`` is the one that does it in a child."""


class ChallengeFault(Exception):
    """The challenge is not answered here; the text says why."""


@dataclass(frozen=True, slots=True)
class _Answer:
    kind: str
    identifier: str
    token: str
    until: float
    """On the monotonic clock, in seconds."""


class Responder:
    """Answers challenges until they are withdrawn or their time is over.

    *names* are those that the node's configuration lists.  Safe to call from any thread.
    """

    def __init__(
        self,
        section: ChallengesSection,
        names: Collection[str],
        *,
        clock: Clock | None = None,
        craft: Craft = run_child,
        ports: ChallengePorts | None = None,
    ) -> None:
        self._section = section
        self._names = frozenset(names)
        self._clock = clock or SystemClock()
        self._craft = craft
        self._ports = ports or ChallengePorts(section.http, section.tls_alpn)
        self._answers: dict[str, _Answer] = {}
        self._lock = threading.Lock()

    def answer(self, body: Mapping[str, Any]) -> None:
        """Answer the challenge of message *body* from now on.

        Raises:
            ChallengeFault: It is none that this node answers, or the port is not to be had.
        """
        self.expire()
        kind, identifier = str(body["type"]), str(body["identifier"]).lower()
        token, authorization = str(body["token"]), str(body["key_authorization"])
        self._check(kind, identifier, token, authorization)
        seconds = max(1, min(int(body["seconds"]), LONGEST_SECONDS))
        made = _Answer(kind, identifier, token, self._clock.monotonic() + seconds)
        with self._lock:
            if len(self._answers) >= MAX_ANSWERS:
                raise ChallengeFault(f"{MAX_ANSWERS} challenges are being answered already")
            try:
                self._serve(made, authorization)
            except (PortFault, PlacingFault, ChildFault) as error:
                raise ChallengeFault(str(error)) from None
            self._answers[str(body["challenge"])] = made

    def withdraw(self, challenge: str) -> None:
        """Answer *challenge* no longer; one that isn't answered is none to withdraw."""
        with self._lock:
            made = self._answers.pop(challenge, None)
            if made is not None:
                self._take_back(made)

    def expire(self) -> None:
        """Take back what is past its time; called now and then, and with each new answer."""
        now = self._clock.monotonic()
        with self._lock:
            ended = [one for one, made in self._answers.items() if made.until <= now]
        for challenge in ended:
            self.withdraw(challenge)

    def close(self) -> None:
        """Take back everything and close the ports."""
        for challenge in list(self._answers):
            self.withdraw(challenge)
        self._ports.close()

    def _check(self, kind: str, identifier: str, token: str, authorization: str) -> None:
        if not self._is_answered(kind):
            raise ChallengeFault(f"challenges of type {kind[:30]!r} are not answered on this node")
        if identifier not in self._names:
            raise ChallengeFault(f"{identifier[:80]!r} is no name of this node")
        is_fit = _TOKEN.fullmatch(token) and _AUTHORIZATION.fullmatch(authorization)
        if not is_fit or not authorization.startswith(f"{token}."):
            raise ChallengeFault("it has no key authorization of its token")

    def _is_answered(self, kind: str) -> bool:
        if kind == "http-01":
            return self._section.http is not None or self._section.webroot is not None
        return kind == "tls-alpn-01" and self._section.tls_alpn is not None

    def _serve(self, made: _Answer, authorization: str) -> None:
        if made.kind == "tls-alpn-01":
            digest = hashlib.sha256(authorization.encode("ascii")).digest()
            certificate, key = self._make_certificate(made.identifier, digest)
            self._ports.show(made.identifier, alpn_context(certificate, key))
            return
        if self._section.webroot is not None:
            path = self._file(made.token)
            place(path, authorization.encode("ascii"), below=(self._section.webroot,))
        if self._section.http is not None:
            self._ports.tell(made.token, authorization)

    def _take_back(self, made: _Answer) -> None:
        if made.kind == "tls-alpn-01":
            if not any(one.identifier == made.identifier for one in self._others(made.kind)):
                self._ports.hide(made.identifier)
            return
        if any(one.token == made.token for one in self._others(made.kind)):
            return
        self._ports.forget(made.token)
        if self._section.webroot is not None:
            try:
                remove_placed(self._file(made.token), below=(self._section.webroot,))
            except PlacingFault:
                return  # an answer that lies about longer than it is asked for harms nobody

    def _others(self, kind: str) -> list[_Answer]:
        return [one for one in self._answers.values() if one.kind == kind]

    def _file(self, token: str) -> str:
        assert self._section.webroot is not None
        return f"{self._section.webroot.rstrip('/')}/{FOLDER}/{token}"

    def _make_certificate(self, identifier: str, digest: bytes) -> tuple[str, str]:
        encoded = base64.urlsafe_b64encode(digest).rstrip(b"=").decode("ascii")
        at = int(self._clock.now().timestamp())
        work = {"do": "alpn-certificate", "identifier": identifier, "digest": encoded, "at": at}
        made = self._craft(work)
        return str(made["certificate_pem"]), str(made["key_pem"])
