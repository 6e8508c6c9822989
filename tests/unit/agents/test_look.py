"""A server counts as looked at only if it serves the new certificate itself."""

import contextlib
import hashlib
import ssl
from collections.abc import Callable
from datetime import timedelta
from pathlib import Path

import pytest
from cryptography.hazmat.primitives.serialization import Encoding

from agents.config import LookSection, StartTls
from agents.look import LONGEST_PAUSE_SECONDS, NotSeen, Unanswered, look
from tests.peers import authority

SECTION = LookSection(host="192.0.2.1", port=443, server_name="host.example", attempts=4)


class Served:
    """A certificate that a server may serve."""

    def __init__(self, folder: Path, *names: str) -> None:
        made = authority.make_server(authority.make_root("Root"), names)
        folder.mkdir()
        self._files = folder / "certificate.pem", folder / "key.pem"
        self._files[0].write_bytes(made.certificate_pem)
        self._files[1].write_bytes(made.key_pem())
        self.fingerprint = hashlib.sha256(made.certificate.public_bytes(Encoding.DER)).hexdigest()

    def context(self) -> ssl.SSLContext:
        """Return what a server serves it by."""
        made = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        made.load_cert_chain(*self._files)
        return made


class FakeConnection:
    """A TLS server in memory; without a context it is silent."""

    def __init__(self, context: ssl.SSLContext | None, *, greeting: bytes = b"") -> None:
        self._incoming, self._outgoing = ssl.MemoryBIO(), ssl.MemoryBIO()
        self._talk: ssl.SSLObject | None = None
        if context is not None:
            self._talk = context.wrap_bio(self._incoming, self._outgoing, server_side=True)
        self._outgoing.write(greeting)
        self.is_closed = False

    def send(self, octets: bytes) -> None:
        """Take in what the client says and go on with the handshake."""
        self._incoming.write(octets)
        if self._talk is not None:
            with contextlib.suppress(ssl.SSLWantReadError):
                self._talk.do_handshake()

    def receive(self, most_bytes: int) -> bytes:
        """Return what the server says; one that is silent says it until the time is over."""
        if not self._outgoing.pending:
            raise Unanswered("no answer in time")
        return self._outgoing.read(most_bytes)

    def close(self) -> None:
        """Be left."""
        self.is_closed = True


class FakeServer:
    """Answers each connection with the next of what it was given, then with the last again."""

    def __init__(self, *answers: FakeConnection | Served | str) -> None:
        self._answers = list(answers)
        self.connections: list[FakeConnection] = []
        self.pauses: list[float] = []
        self.now = 0.0

    def connect(self, section: LookSection, seconds: float) -> FakeConnection:
        """Return a connection, or refuse one."""
        assert section.host == "192.0.2.1"
        assert 0 < seconds <= 5
        answer = self._answers.pop(0) if len(self._answers) > 1 else self._answers[0]
        if isinstance(answer, str):
            raise Unanswered(answer)
        made = FakeConnection(answer.context()) if isinstance(answer, Served) else answer
        self.connections.append(made)
        return made

    def pause(self, seconds: float) -> None:
        """Let time pass."""
        self.pauses.append(seconds)
        self.now += seconds

    def look(self, fingerprint: str, section: LookSection = SECTION) -> int:
        """Look for *fingerprint* and return how many attempts it took."""
        time: Callable[[], float] = lambda: self.now  # noqa: E731
        seen = look(section, fingerprint, connect=self.connect, pause=self.pause, monotonic=time)
        assert seen.fingerprint == fingerprint
        return seen.attempts


@pytest.fixture
def new(tmp_path: Path) -> Served:
    """The certificate that was put in place."""
    return Served(tmp_path / "new", "host.example")


@pytest.fixture
def old(tmp_path: Path) -> Served:
    """The one before it, for the same name."""
    return Served(tmp_path / "old", "host.example")


def test_new_certificate_is_seen(new: Served) -> None:
    """A server that serves the new one is seen at the first attempt, and left."""
    server = FakeServer(new)
    assert server.look(new.fingerprint) == 1
    assert [one.is_closed for one in server.connections] == [True]


def test_server_that_reloads_late_is_seen_in_the_end(new: Served, old: Served) -> None:
    """A server may serve the old one, or nobody at all, for a moment after a reload."""
    server = FakeServer(old, "connection refused", new)
    assert server.look(new.fingerprint) == 3
    assert server.pauses == [0.2, 0.4]


def test_old_certificate_is_not_the_new_one(new: Served, old: Served) -> None:
    """A server that goes on with the old one was not seen, and what it serves is told."""
    server = FakeServer(old)
    with pytest.raises(NotSeen, match=f"serves certificate {old.fingerprint[:16]}") as caught:
        server.look(new.fingerprint)
    assert caught.value.served == old.fingerprint
    assert len(server.connections) == SECTION.attempts


def test_certificate_of_another_name_is_not_the_new_one(new: Served, tmp_path: Path) -> None:
    """A server that serves another host's certificate was not seen."""
    other = Served(tmp_path / "other", "other.example")
    with pytest.raises(NotSeen, match="instead of"):
        FakeServer(other).look(new.fingerprint)


def test_silence_is_told_as_silence(new: Served) -> None:
    """A server that accepts and says nothing was not seen."""
    with pytest.raises(NotSeen, match=r"192\.0\.2\.1:443: no answer in time") as caught:
        FakeServer(FakeConnection(None)).look(new.fingerprint)
    assert caught.value.served is None


def test_what_is_no_tls_is_told(new: Served) -> None:
    """A server that speaks in the clear was not seen."""
    section = LookSection(host="192.0.2.1", port=443, server_name=None, attempts=1)
    server = FakeServer(FakeConnection(None, greeting=b"HTTP/1.1 400 Bad Request\r\n"))
    with pytest.raises(NotSeen, match="no TLS handshake"):
        server.look(new.fingerprint, section)


def test_time_for_all_attempts_ends_them(new: Served, old: Served) -> None:
    """However many attempts there are, the time for them is kept, and pauses stop growing."""
    server = FakeServer(old)
    section = LookSection(
        host="192.0.2.1",
        port=443,
        server_name=None,
        attempts=1000,
        timeout=timedelta(seconds=20),
    )
    with pytest.raises(NotSeen):
        server.look(new.fingerprint, section)
    assert sum(server.pauses) == pytest.approx(20)
    assert max(server.pauses) == LONGEST_PAUSE_SECONDS


def test_starttls_that_is_refused_is_told(new: Served) -> None:
    """What goes wrong before TLS is told as what it is."""
    section = LookSection(
        host="192.0.2.1", port=25, server_name="host.example", starttls=StartTls.SMTP, attempts=1
    )
    server = FakeServer(FakeConnection(None, greeting=b"554 no\r\n"))
    with pytest.raises(NotSeen, match=r"192\.0\.2\.1:25: the SMTP server answered '554 no'"):
        server.look(new.fingerprint, section)
    assert server.connections[0].is_closed


def test_server_name_is_a_name(new: Served) -> None:
    """The name is sent to a server that chooses by it; a wildcard or an address never is."""
    asked: list[str | None] = []

    def note(_talk: object, name: str | None, _front: ssl.SSLContext) -> None:
        asked.append(name)

    def answering() -> FakeConnection:
        context = new.context()
        context.sni_callback = note
        return FakeConnection(context)

    for name in ("host.example", "*.host.example", "192.0.2.1", "2001:db8::1", None):
        section = LookSection(host="192.0.2.1", port=443, server_name=name)
        FakeServer(answering()).look(new.fingerprint, section)
    assert asked == ["host.example", None, None, None, None]
