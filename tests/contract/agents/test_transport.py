"""HTTPS to the broker, and to what stands in its place."""

from __future__ import annotations

import datetime
import ipaddress
import json
import socket
import threading
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec

from agents.clock import SystemClock
from agents.config import BrokerSection
from agents.errors import ClocksDiffer, Impostor, NotKnown, Refused, Unreachable
from agents.transport import ClientPair, Transport
from agents.wire import MAX_BATCH_BYTES
from tests.contract.agents.speaker import (
    SECONDS,
    Connected,
    Speaker,
    Speech,
    answering,
    read_request,
)
from tests.peers import authority, process


def transport(speaker: Speaker, environment: Mapping[str, str] | None = None, **more: Any) -> Any:
    """Return the agent's side."""
    broker = BrokerSection(url=speaker.url, anchors=str(speaker.anchors), **more)
    return Transport(broker, clock=SystemClock(), environment=environment or {}, agent="test")


def answer(status: str, body: bytes = b"{}", *fields: str) -> bytes:
    """Return an answer in HTTP/1.1."""
    head = "".join(f"{field}\r\n" for field in fields)
    return f"HTTP/1.1 {status}\r\n{head}Content-Length: {len(body)}\r\n\r\n".encode() + body


def problem(type_: str) -> bytes:
    """Return the body of a problem document."""
    return json.dumps({"type": f"urn:penstock:agent:{type_}", "detail": "because"}).encode()


def test_a_request_goes_below_the_brokers_url(tmp_path: Path) -> None:
    """With its query, its length and the host that it is for."""
    requests: list[bytes] = []
    speaker = Speaker(tmp_path, answering(answer("200 OK", b'{"a":1}'), requests=requests))
    with speaker.serving():
        speaker.url += "/behind"
        found = transport(speaker).call("POST", "/agent/v1/messages", query="a=b", body=b"{}")
    assert found.members() == {"a": 1}
    head = requests[0].decode()
    assert head.startswith("POST /behind/agent/v1/messages?a=b HTTP/1.1\r\n")
    assert f"Host: 127.0.0.1:{speaker.port}\r\n" in head
    assert head.endswith("\r\n\r\n{}")


@pytest.mark.parametrize(
    ("status", "error"),
    [
        ("400 Bad Request", Refused),
        ("409 Conflict", Refused),
        ("401 Unauthorized", NotKnown),
        ("403 Forbidden", NotKnown),
        ("429 Too Many Requests", Unreachable),
        ("503 Service Unavailable", Unreachable),
        ("302 Found", Refused),
    ],
)
def test_what_the_broker_says_is_cut_by_what_comes_next(
    tmp_path: Path, status: str, error: type[Exception]
) -> None:
    """With type and detail of its problem document; no redirect is followed."""
    speaker = Speaker(
        tmp_path, answering(answer(status, problem("some-type"), "Retry-After: 7", "Location: /x"))
    )
    with speaker.serving(), pytest.raises(error) as raised:
        transport(speaker).call("GET", "/x")
    assert "some-type: because" in str(raised.value)
    if isinstance(raised.value, Unreachable):
        assert raised.value.retry_seconds == 7.0


@pytest.mark.parametrize(
    "octets",
    [
        b"",
        b"HTTP/1.1 200 OK\r\nContent-Length: 9\r\n\r\nhalf",
        answer("200 OK", b"x" * (MAX_BATCH_BYTES + 1)),
        b"SMTP ready\r\n\r\n",
    ],
    ids=["nothing", "half", "too-much", "another-protocol"],
)
def test_what_is_no_answer_is_tried_again(tmp_path: Path, octets: bytes) -> None:
    """Something in between broke it off, or is something else."""
    speaker = Speaker(tmp_path, answering(octets))
    with speaker.serving(), pytest.raises(Unreachable):
        transport(speaker).call("GET", "/x")


def test_a_login_page_is_not_taken_for_the_broker(tmp_path: Path) -> None:
    """A portal answers every request with 200."""
    page = answer("200 OK", b"<html>log in</html>", "Content-Type: text/html")
    speaker = Speaker(tmp_path, answering(page, page))
    with speaker.serving():
        with pytest.raises(Unreachable):
            transport(speaker).open_stream("/x")
        with pytest.raises(Unreachable):
            transport(speaker).call("GET", "/x").members()


def test_a_broker_under_another_root_is_an_impostor(tmp_path: Path) -> None:
    """Nothing was sent to it; the same agent takes the right one."""
    requests: list[bytes] = []
    right = Speaker(tmp_path / "right", answering(answer("200 OK")))
    wrong = Speaker(tmp_path / "wrong", answering(answer("200 OK"), requests=requests))
    wrong.anchors = right.anchors
    with wrong.serving(), pytest.raises(Impostor, match=r"look at broker\.anchors"):
        transport(wrong).call("GET", "/x")
    assert requests in ([], [b""])
    with right.serving():
        transport(right).call("GET", "/x")


def test_a_broker_of_another_name_is_an_impostor(tmp_path: Path) -> None:
    """Whatever CA vouches for it."""
    speaker = Speaker(tmp_path, [])
    other = Speaker(
        tmp_path / "other",
        answering(answer("200 OK")),
        server=authority.make_server(speaker.root, ["other.example.test"]),
    )
    other.anchors = speaker.anchors
    with other.serving(), pytest.raises(Impostor):
        transport(other).call("GET", "/x")


@pytest.mark.parametrize("days", [-3, 3], ids=["ended", "not-begun"])
def test_a_certificate_out_of_its_time_names_the_clock(tmp_path: Path, days: int) -> None:
    """Either it has ended, or this node's clock is wrong: both are named."""
    speaker = Speaker(tmp_path / "a", [])
    key = ec.generate_private_key(ec.SECP256R1())
    begin = authority.real_now() + datetime.timedelta(days=days)
    names = x509.SubjectAlternativeName([x509.IPAddress(ipaddress.ip_address("127.0.0.1"))])
    made = (
        x509.CertificateBuilder()
        .subject_name(x509.Name([]))
        .issuer_name(speaker.root.certificate.subject)
        .public_key(key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(begin)
        .not_valid_after(begin + datetime.timedelta(days=1))
        .add_extension(names, critical=True)
        .sign(speaker.root.key, hashes.SHA256())
    )
    other = Speaker(tmp_path / "b", answering(answer("200 OK")), server=authority.Signer(made, key))
    other.anchors = speaker.anchors
    with other.serving(), pytest.raises(Impostor, match="the clock of this node says"):
        transport(other).call("GET", "/x")


def test_a_client_certificate_is_shown_where_there_is_one(tmp_path: Path) -> None:
    """The node's identity, to the broker alone."""
    shown: list[bytes | None] = []

    def speak(connected: Connected) -> None:
        read_request(connected)
        shown.append(connected.getpeercert(binary_form=True))
        connected.sendall(answer("200 OK"))

    speaker = Speaker(tmp_path, [speak, speak])
    client = authority.make_client(speaker.root, "node")
    certificate, key, _ = authority.write_server_files(tmp_path / "c", client, speaker.root)
    with speaker.serving():
        transport(speaker).call("GET", "/x", pair=ClientPair(str(certificate), str(key)))
        transport(speaker).call("GET", "/x")
    assert shown[0] is not None
    assert shown[1] is None


def test_a_stale_signature_is_made_anew_once(tmp_path: Path) -> None:
    """What was signed before the broker started is not believed; a second refusal is the clock's.

    It says nothing of who asks, so nobody enrols anew for it.
    """
    stale = answer("401 Unauthorized", problem("stale-signature"))
    requests: list[bytes] = []
    speeches = answering(stale, answer("200 OK"), stale, stale, requests=requests)
    made: list[str] = []

    def sign(method: str, path: str, query: str, body: bytes) -> Mapping[str, str]:
        made.append(f"{method} {path}{query}")
        return {"Signature": f"penstock=:{len(made)}:"}

    with Speaker(tmp_path, speeches).serving() as speaker:
        side = transport(speaker)
        side.call("GET", "/x", query="a=b", sign=sign)
        with pytest.raises(ClocksDiffer, match="the clock of this node says"):
            side.call("GET", "/x", sign=sign)
    assert made == ["GET /x?a=b"] * 2 + ["GET /x?"] * 2
    assert b"Signature: penstock=:2:" in requests[1]


def speak_for_long(*answers: bytes, requests: list[bytes]) -> Speech:
    """Return a speech that reads and answers several requests, then waits for the end."""

    def say(connected: Connected) -> None:
        for one in answers:
            requests.append(read_request(connected))
            connected.sendall(one)
        requests.append(read_request(connected))

    return say


def test_what_is_repeatable_goes_over_one_connection(tmp_path: Path) -> None:
    """Until it is released; what is not has one of its own, and the kept one stays."""
    first: list[bytes] = []
    second: list[bytes] = []
    ok = answer("200 OK")
    speeches = [speak_for_long(ok, ok, requests=first), *answering(ok, requests=second)]
    with Speaker(tmp_path, speeches).serving() as speaker:
        side = transport(speaker)
        for number in (b"1", b"2"):
            side.call("POST", "/x", body=number, is_repeatable=True)
        side.release()
        side.call("POST", "/x", body=b"3")
    assert [one[-1:] for one in first] == [b"1", b"2", b""]
    assert [b"Connection: keep-alive\r\n" in one for one in first[:2]] == [True, True]
    assert b"Connection: close\r\n" in second[0]


def test_one_that_the_broker_closed_is_replaced(tmp_path: Path) -> None:
    """It restarts, or thinks that it has waited for long enough; each request is answered once."""
    requests: list[bytes] = []
    ok = answer("200 OK")
    with Speaker(tmp_path, answering(ok, ok, ok, requests=requests)).serving() as speaker:
        side = transport(speaker)
        for number in (b"1", b"2", b"3"):
            side.call("POST", "/x", body=number, is_repeatable=True)
        side.release()
    assert [one[-1:] for one in requests] == [b"1", b"2", b"3"]


def test_one_that_is_closed_when_it_is_asked_is_replaced_once(tmp_path: Path) -> None:
    """The broker read and gave up; what is signed is signed anew, as a signature is good once."""
    requests: list[bytes] = []
    ok = answer("200 OK")
    made: list[str] = []

    def sign(*_: object) -> Mapping[str, str]:
        made.append("")
        return {"Signature": f"penstock=:{len(made)}:"}

    speeches = [speak_for_long(ok, requests=requests), *answering(ok, requests=requests)]
    with Speaker(tmp_path, speeches).serving() as speaker:
        side = transport(speaker)
        for number in (b"1", b"2"):
            side.call("POST", "/x", body=number, sign=sign, is_repeatable=True)
        side.release()
    assert [one[-1:] for one in requests] == [b"1", b"2", b"2"]
    assert [b"Signature: penstock=:%d:" % n in one for n, one in enumerate(requests, 1)] == [
        True
    ] * 3


def test_half_an_answer_over_a_kept_connection_is_not_asked_for_at_once(tmp_path: Path) -> None:
    """Something did happen; the sender tries again in its own time."""
    requests: list[bytes] = []
    ok, half = answer("200 OK"), b"HTTP/1.1 2"

    def say(connected: Connected) -> None:
        for one in (ok, half):
            requests.append(read_request(connected))
            connected.sendall(one)

    speeches = [say, *answering(ok, requests=requests)]
    with Speaker(tmp_path, speeches).serving() as speaker:
        side = transport(speaker)
        side.call("POST", "/x", body=b"1", is_repeatable=True)
        with pytest.raises(Unreachable):
            side.call("POST", "/x", body=b"2", is_repeatable=True)
        side.call("POST", "/x", body=b"3", is_repeatable=True)
        side.release()
    assert [one[-1:] for one in requests] == [b"1", b"2", b"3"]


def test_another_identity_has_a_connection_of_its_own(tmp_path: Path) -> None:
    """What was kept shows the one before, and is closed."""
    requests: list[bytes] = []
    ok = answer("200 OK")
    speaker = Speaker(
        tmp_path,
        [speak_for_long(ok, requests=requests), *answering(ok, requests=requests)],
    )
    client = authority.make_client(speaker.root, "node")
    certificate, key, _ = authority.write_server_files(tmp_path / "c", client, speaker.root)
    pair = ClientPair(str(certificate), str(key))
    with speaker.serving():
        side = transport(speaker)
        side.call("POST", "/x", body=b"1", is_repeatable=True)
        side.call("POST", "/x", body=b"2", pair=pair, is_repeatable=True)
        side.release()
    assert [one[-1:] for one in requests] == [b"1", b"", b"2"]


def test_a_stream_brings_its_lines_and_tells_its_silence(tmp_path: Path) -> None:
    """In chunks as they come; a silent one is told from one that has ended."""
    may_end = threading.Event()

    def speak(connected: Connected) -> None:
        read_request(connected)
        connected.sendall(
            b"HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\n"
            b"Transfer-Encoding: chunked\r\n\r\n8\r\n: beat\n\n\r\n5\r\ndata:\r\n4\r\n x\r\n\r\n"
        )
        may_end.wait(SECONDS)
        connected.sendall(b"0\r\n\r\n")

    with Speaker(tmp_path, [speak]).serving() as speaker:
        stream = transport(speaker).open_stream("/x")
        assert [stream.line(SECONDS) for _ in range(3)] == [": beat", "", "data: x"]
        with pytest.raises(TimeoutError):
            stream.line(0.05)
        may_end.set()
        with pytest.raises(Unreachable, match="ended"):
            stream.line(SECONDS)
        stream.close()


def test_a_wait_for_a_line_can_be_ended_from_outside(tmp_path: Path) -> None:
    """As at a stop, or when the identity is to be renewed."""
    may_end = threading.Event()

    def speak(connected: Connected) -> None:
        read_request(connected)
        connected.sendall(b"HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\n\r\n: beat\n")
        may_end.wait(SECONDS)

    with Speaker(tmp_path, [speak]).serving() as speaker:
        stream = transport(speaker).open_stream("/x")
        stream.line(SECONDS)
        threading.Timer(0.05, stream.interrupt).start()
        with pytest.raises(Unreachable):
            stream.line(SECONDS)
        may_end.set()
        stream.close()


class ConnectProxy:
    """A proxy that connects one caller, or refuses."""

    def __init__(self, reply: bytes) -> None:
        self._reply = reply
        self._listener = socket.create_server(("127.0.0.1", 0))
        self._listener.settimeout(SECONDS)
        self.port = int(self._listener.getsockname()[1])
        self.head = b""
        self.thread = threading.Thread(target=self._run, daemon=True)
        self.thread.start()

    def _run(self) -> None:
        caller, _ = self._listener.accept()
        with caller, self._listener:
            caller.settimeout(SECONDS)
            self.head = read_request(caller)
            if not self._reply.startswith(b"HTTP/1.1 200"):
                caller.sendall(self._reply)
                return
            port = int(self.head.split(b" ")[1].rpartition(b":")[2])
            with socket.create_connection(("127.0.0.1", port)) as server:
                caller.sendall(self._reply)
                back = threading.Thread(target=_pump, args=(server, caller), daemon=True)
                back.start()
                _pump(caller, server)
                back.join(SECONDS)


def _pump(source: socket.socket, sink: socket.socket) -> None:
    try:
        while part := source.recv(65_536):
            sink.sendall(part)
        sink.shutdown(socket.SHUT_WR)
    except OSError:
        pass


@pytest.fixture
def speaker(tmp_path: Path) -> Iterator[Speaker]:
    """Return a broker that answers once."""
    with Speaker(tmp_path, answering(answer("200 OK"))).serving() as made:
        yield made


def test_a_proxy_is_asked_to_connect(speaker: Speaker) -> None:
    """TLS goes through it to the broker, who alone has to show a certificate."""
    proxy = ConnectProxy(b"HTTP/1.1 200 Connection established\r\n\r\n")
    environment = {"HTTPS_PROXY": f"http://user:pass@127.0.0.1:{proxy.port}"}
    assert transport(speaker, environment).call("GET", "/x").status == 200
    proxy.thread.join(SECONDS)
    assert proxy.head.startswith(f"CONNECT 127.0.0.1:{speaker.port} HTTP/1.1\r\n".encode())
    assert b"Proxy-Authorization: Basic dXNlcjpwYXNz\r\n" in proxy.head


def test_no_proxy_is_asked_for_what_is_reached_without_it(speaker: Speaker) -> None:
    """NO_PROXY names it; nobody listens where the proxy would be."""
    environment = {
        "HTTPS_PROXY": f"http://127.0.0.1:{process.free_port()}",
        "NO_PROXY": "127.0.0.0/8",
    }
    assert transport(speaker, environment).call("GET", "/x").status == 200


def test_a_proxy_that_refuses_is_told_without_its_login(speaker: Speaker) -> None:
    """With its status."""
    proxy = ConnectProxy(b"HTTP/1.1 407 Proxy Authentication Required\r\n\r\n")
    environment = {"HTTPS_PROXY": f"http://user:s3cret@127.0.0.1:{proxy.port}"}
    with pytest.raises(Unreachable, match="answers 407") as raised:
        transport(speaker, environment).call("GET", "/x")
    assert "s3cret" not in str(raised.value)
    transport(speaker).call("GET", "/x")


def test_nobody_listening_is_tried_again(tmp_path: Path) -> None:
    """And so is a file of anchors that is not there yet."""
    broker = BrokerSection(
        url=f"https://127.0.0.1:{process.free_port()}", anchors=str(tmp_path / "none")
    )
    side = Transport(broker, clock=SystemClock(), environment={})
    with pytest.raises(Unreachable, match=r"broker\.anchors"):
        side.call("GET", "/x")
    speaker = Speaker(tmp_path, [])
    side.use(BrokerSection(url=broker.url, anchors=str(speaker.anchors)))
    with pytest.raises(Unreachable, match="refused"):
        side.call("GET", "/x")
