"""What is spoken before TLS is strict and bounded, and believes nothing said in the clear."""

import pytest

from agents.config import StartTls
from agents.starttls import MAX_LINE_BYTES, StartTlsFault, start_tls

OID = b"1.3.6.1.4.1.1466.20037"
LDAP_YES = b"\x30\x0c\x02\x01\x01\x78\x07\x0a\x01\x00\x04\x00\x04\x00"
LDAP_LONG = (
    b"\x30\x84\x00\x00\x00\x10\x02\x01\x01\x78\x84\x00\x00\x00\x07\x0a\x01\x00\x04\x00\x04\x00"
)
SMTP = (b"220-mail.example ESMTP\r\n220 hello\r\n", b"250-mail.example\r\n250 STARTTLS\r\n")
GO = b"220 2.0.0 Ready\r\n"


class FakeLine:
    """A server that says its lines one after the other, so many bytes at a time."""

    def __init__(self, *said: bytes, step: int = 4096) -> None:
        self._said = list(said)
        self._left = self._said.pop(0) if self._said else b""
        self._step = step
        self.heard = b""

    def send(self, octets: bytes) -> None:
        """Hear *octets* and say the next thing."""
        self.heard += octets
        self._left += self._said.pop(0) if self._said else b""

    def receive(self, most_bytes: int) -> bytes:
        """Return some of what is said."""
        count = min(most_bytes, self._step)
        found, self._left = self._left[:count], self._left[count:]
        return found


@pytest.mark.parametrize("step", [1, 7, 4096])
def test_smtp_is_begun(step: int) -> None:
    """A server that offers STARTTLS is asked for it (RFC 3207)."""
    line = FakeLine(*SMTP, GO, step=step)
    start_tls(StartTls.SMTP, line)
    assert line.heard == b"EHLO [127.0.0.1]\r\nSTARTTLS\r\n"


@pytest.mark.parametrize("step", [1, 4096])
def test_imap_is_begun(step: int) -> None:
    """Untagged answers are passed over (RFC 3501 §6.2.1)."""
    line = FakeLine(
        b"* OK [CAPABILITY IMAP4rev1] ready\r\n", b"* BYE not\r\na1 OK now\r\n", step=step
    )
    start_tls(StartTls.IMAP, line)
    assert line.heard == b"a1 STARTTLS\r\n"


@pytest.mark.parametrize("answer", [LDAP_YES, LDAP_LONG], ids=["short", "long lengths"])
def test_ldap_is_begun(answer: bytes) -> None:
    """The extended operation is asked for, whichever form of lengths the server writes."""
    line = FakeLine(b"", answer, step=3)
    start_tls(StartTls.LDAP, line)
    assert line.heard == b"\x30\x1d\x02\x01\x01\x77\x18\x80\x16" + OID


CLEAR = b"250 injected\r\n"


@pytest.mark.parametrize(
    ("kind", "said", "reason"),
    [
        (StartTls.SMTP, (b"554 go away\r\n",), "answered '554 go away' instead of 220"),
        (StartTls.SMTP, (SMTP[0], b"250 mail.example\r\n"), "does not offer STARTTLS"),
        (StartTls.SMTP, (*SMTP, b"454 no key\r\n"), "answered '454 no key' instead of 220"),
        (StartTls.SMTP, (*SMTP, GO + CLEAR), "in the clear behind the go-ahead"),
        (StartTls.SMTP, (b"220-more\r\n" * 100,), "more than 64 lines"),
        (StartTls.SMTP, (b"220 " + b"x" * 10_000,), f"longer than {MAX_LINE_BYTES} bytes"),
        (StartTls.SMTP, (b"220",), "ended before it was whole"),
        (StartTls.SMTP, (b"HTTP/1.1 400 Bad\x1b[2J\r\n",), r"'HTTP/1.1 400 Bad\?\[2J'"),
        (StartTls.IMAP, (b"* PREAUTH hello\r\n",), "greeted with"),
        (StartTls.IMAP, (b"* OK\r\n", b"a1 NO never\r\n"), "answered 'a1 NO never' to STARTTLS"),
        (StartTls.IMAP, (b"* OK\r\n", b"a1 OK\r\n* OK clear\r\n"), "in the clear"),
        (StartTls.IMAP, (b"* OK\r\n", b"* x\r\n" * 100), "more than 64 lines"),
        (StartTls.LDAP, (b"", LDAP_YES[:9] + b"\x02" + LDAP_YES[10:]), "with result 2"),
        (StartTls.LDAP, (b"", LDAP_YES[:4] + b"\x02" + LDAP_YES[5:]), "to another request"),
        (StartTls.LDAP, (b"", LDAP_YES + b"x"), "in the clear"),
        (StartTls.LDAP, (b"", b"\x30\x84\x7f\xff\xff\xff"), "longer than 4096 bytes"),
        (StartTls.LDAP, (b"", b"\x30\x80\x00"), "a length of an unknown form"),
        (StartTls.LDAP, (b"", b"HTTP/1.1 400"), "sent no message"),
        (StartTls.LDAP, (b"", LDAP_YES[:5]), "ended before it was whole"),
        (StartTls.LDAP, (b"", b"\x30\x05\x02\x01\x01\x78\x09"), "ended before it was whole"),
    ],
)
def test_server_that_does_otherwise_is_refused(
    kind: StartTls, said: tuple[bytes, ...], reason: str
) -> None:
    """A server that refuses, says too much, too little or something else is told as that."""
    with pytest.raises(StartTlsFault, match=reason):
        start_tls(kind, FakeLine(*said))
