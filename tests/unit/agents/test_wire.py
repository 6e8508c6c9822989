"""The vocabulary of the channel: what is read, what is refused, what is passed over."""

import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from agents import wire
from agents.wire import Batch, Message, Refusal, Reply, Version, WireFault

CSR = Message("m1", "csr", {"delivery": "d", "certificate": "www", "csr_der": "AA"})
WANT = Message(
    "m2",
    "want-csr",
    {
        "delivery": "d",
        "certificate": "www",
        "names": ["a.example"],
        "key_kind": "ec-p256",
        "is_new_key": True,
    },
    seq=7,
    re="m1",
)


def test_batch_comes_back_as_it_went() -> None:
    """With its messages and what it acknowledges."""
    batch = Batch(Version(1, 0), 41, (CSR,))
    assert wire.parse_batch(batch.encode()) == batch


def test_reply_comes_back_as_it_went() -> None:
    """With what was taken, what was not, and what is new."""
    reply = Reply(Version(1, 0), ("m1",), (Refusal("m3", "not yours", is_final=True),), (WANT,))
    assert wire.parse_reply(reply.encode()) == reply


def test_event_is_one_line_of_data_with_its_number() -> None:
    """A reader resumes after the number; nothing in a message can end its line."""
    message = Message("m", "refused", {"certificate": "www", "reason": "a\nb\r\n\nc"}, seq=9)
    lines = wire.format_event(message).decode().split("\n")
    assert lines[0] == "id: 9"
    assert wire.parse_message(json.loads(lines[2].removeprefix("data: "))) == message
    assert lines[3:] == ["", ""]
    assert "\r" not in wire.format_event(message).decode()


def test_what_is_newer_is_passed_over() -> None:
    """Members and kinds that this version does not know (docs/adr/0022)."""
    document = {**WANT.document(), "later": 1, "body": {**WANT.body, "more": [1]}}
    read = wire.parse_message(document)
    assert (read.id, read.seq, read.is_known) == ("m2", 7, True)
    unknown = wire.parse_message({"id": "m", "kind": "dance", "body": {"steps": 3}})
    assert not unknown.is_known


@pytest.mark.parametrize(
    ("document", "said"),
    [
        pytest.param([], "message is no object", id="list"),
        pytest.param({"id": "m"}, "no kind", id="no-kind"),
        pytest.param({"kind": "csr", "body": dict(CSR.body)}, "no id", id="no-id"),
        pytest.param({**CSR.document(), "id": ""}, "1 to 64", id="empty-id"),
        pytest.param({**CSR.document(), "id": "x" * 65}, "1 to 64", id="long-id"),
        pytest.param({**CSR.document(), "id": "a\nb"}, "1 to 64", id="id-with-line-end"),
        pytest.param({**CSR.document(), "seq": -1}, "no count", id="negative-seq"),
        pytest.param({**CSR.document(), "seq": True}, "no count", id="seq-that-is-true"),
        pytest.param({**CSR.document(), "re": 3}, "no text", id="re"),
        pytest.param(
            {**CSR.document(), "body": {}}, "no delivery of type str", id="member-missing"
        ),
        pytest.param(
            {**WANT.document(), "body": {**WANT.body, "names": [1]}}, "else than text", id="names"
        ),
        pytest.param(
            {**WANT.document(), "body": {**WANT.body, "is_new_key": 1}}, "of type bool", id="truth"
        ),
        pytest.param(
            {
                "id": "m",
                "kind": "stated",
                "body": {"instance": "i", "agent": "1", "certificates": [{"name": "www"}]},
            },
            "certificate 0 has no names",
            id="statement",
        ),
    ],
)
def test_message_that_cannot_be_read_is_refused(document: object, said: str) -> None:
    """Saying what is wrong with it; the good one of each is read above."""
    with pytest.raises(WireFault, match=said):
        wire.parse_message(document)


@pytest.mark.parametrize(
    ("body", "said"),
    [
        pytest.param(b"", "no JSON", id="empty"),
        pytest.param(b"[" * 100_000, "no JSON", id="deep"),
        pytest.param(b"[]", "no object", id="list"),
        pytest.param(b'{"ack":0,"messages":[]}', "MAJOR.MINOR", id="no-version"),
        pytest.param(b'{"version":"1.0","ack":"7"}', "ack is no count", id="ack"),
        pytest.param(b'{"version":"1.0","messages":{}}', "messages is no list", id="messages"),
        pytest.param(b" " * (wire.MAX_BATCH_BYTES + 1), "past the limit", id="bytes"),
        pytest.param(
            Batch(Version(1, 0), 0, (CSR,) * (wire.MAX_BATCH + 1)).encode(),
            "257 messages",
            id="too-many",
        ),
    ],
)
def test_batch_that_cannot_be_read_is_refused(body: bytes, said: str) -> None:
    """Bounded before it is read."""
    with pytest.raises(WireFault, match=said):
        wire.parse_batch(body)


@pytest.mark.parametrize(
    ("theirs", "spoken"), [("1.0", "1.0"), ("1.2", "1.1"), ("1.1", "1.1")], ids=str
)
def test_the_lower_minor_is_spoken(theirs: str, spoken: str) -> None:
    """Of a side that speaks 1.1 itself."""
    assert str(wire.negotiate(Version.parse(theirs), Version(1, 1))) == spoken


def test_another_major_is_not_spoken_with() -> None:
    """The older side has to be updated."""
    with pytest.raises(WireFault, match=r"2\.0 cannot be spoken with, expected 1\.x"):
        wire.negotiate(Version(2, 0))


@pytest.mark.parametrize("text", ["", "1", "1.", "-1.0", "1.x", "1.0.0", "٣.0", "1.0000"], ids=repr)
def test_what_is_no_version_is_refused(text: str) -> None:
    """Digits and one dot."""
    with pytest.raises(WireFault, match=r"MAJOR\.MINOR"):
        Version.parse(text)


def test_signature_covers_what_rfc_9421_says() -> None:
    """The base of RFC 9421 §2.5, line by line."""
    parameters = wire.signature_input(created=1, nonce="n", key_id="ab")
    assert parameters == (
        '("@method" "@path" "@query" "content-digest");created=1;nonce="n";'
        'keyid="ab";alg="ecdsa-p256-sha256"'
    )
    base = wire.signature_base(
        method="POST",
        path="/agent/v1/messages",
        query="?",
        digest=wire.content_digest(b"{}"),
        parameters=parameters,
    )
    assert base.decode().split("\n") == [
        '"@method": POST',
        '"@path": /agent/v1/messages',
        '"@query": ?',
        '"content-digest": sha-256=:RBNvo1WzZ4oRRq0W9+hknpT7T8If536DEMBg9hyq/4o=:',
        f'"@signature-params": {parameters}',
    ]


@given(st.binary(max_size=64))
def test_octets_come_back_as_they_went(octets: bytes) -> None:
    """As base64url without padding."""
    assert wire.decode_bytes(wire.encode_bytes(octets), "x") == octets


@pytest.mark.parametrize("text", ["a", "a+b/", "ä", "ab=c"], ids=repr)
def test_what_is_no_base64url_is_refused(text: str) -> None:
    """Naming what it was to be."""
    with pytest.raises(WireFault, match="csr_der is not base64url"):
        wire.decode_bytes(text, "csr_der")
