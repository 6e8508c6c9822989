"""Who the node is to the broker."""

from __future__ import annotations

import json
from collections.abc import Mapping
from datetime import timedelta
from pathlib import Path
from typing import Any, cast

import pytest

from agents import wire
from agents.config import Authentication, BrokerSection, EnrolMethod, EnrolSection
from agents.errors import NotKnown, Refused, Unreachable
from agents.identity import Identities, Waiting
from agents.state import Folder
from agents.transport import Answer, ClientPair, Transport
from tests.fakes.agent_config import make_config
from tests.fakes.node_clock import NodeClock

PEM = "-----BEGIN CERTIFICATE-----\n{}\n-----END CERTIFICATE-----\n"


class Child:
    """A child that makes keys by their names."""

    def __init__(self, clock: NodeClock) -> None:
        self.clock = clock
        self.keys: list[str] = []
        self.is_foreign = False
        self.life_seconds = 9_000

    def __call__(self, work: Mapping[str, Any]) -> Mapping[str, Any]:
        """Do one piece of work."""
        if work["do"] == "identity-request":
            if work["path"] not in self.keys:
                self.keys.append(work["path"])
            return {"csr_der": "csr", "spki_sha256": f"spki of {work['path']}"}
        if work["do"] == "sign":
            return {"signatures": [wire.encode_bytes(b"\x01" * 64)]}
        begun = int(self.clock.now().timestamp())
        spki = "spki of another" if self.is_foreign else f"spki of {self.keys[-1]}"
        leaf = {"spki_sha256": spki, "fingerprint": "f" * 64}
        return {
            "certificates": [{**leaf, "not_before": begun, "not_after": begun + self.life_seconds}]
        }


class Line:
    """A transport that answers as a test says, and keeps what was asked."""

    def __init__(self) -> None:
        self.asked: list[dict[str, Any]] = []
        self.how: list[dict[str, Any]] = []
        self.answers: dict[str, Any] = {}
        """By method, ``identity`` for renewals: an answer's members and status, or an error."""

    def call(self, method: str, path: str, *, body: bytes, **how: Any) -> Answer:
        """Answer."""
        asked = json.loads(body)
        self.asked.append(asked)
        self.how.append(how)
        given = self.answers.get(asked.get("method", "identity"), {})
        if isinstance(given, Exception):
            raise given
        members = {
            "node_id": "n1",
            "node": "web.example.test",
            "chain_pem": PEM.format("a"),
            **given,
        }
        return Answer(members.pop("status", 200), json.dumps(members).encode())


class Node:
    """A node in a folder; a second one on it is the same after a restart."""

    def __init__(self, tmp_path: Path, **section: Any) -> None:
        self.clock = NodeClock()
        self.line, self.child = Line(), Child(self.clock)
        authentication = section.pop("authentication", Authentication.TLS)
        enrol = EnrolSection(**{"method": EnrolMethod.TOKEN, "credential": "env:JOIN", **section})
        broker = BrokerSection(
            url="https://broker.test", anchors="/a.pem", authentication=authentication
        )
        self.identities = Identities(
            make_config(enrol=enrol, broker=broker),
            Folder(str(tmp_path)),
            cast(Transport, self.line),
            self.clock,
            self.child,
        )


@pytest.fixture(autouse=True)
def _token(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("JOIN", "join-token")


def test_a_node_enrols_by_its_token_and_is_itself_after_a_restart(tmp_path: Path) -> None:
    """The token is read when it is needed; the leaf alone is what TLS shows."""
    node = Node(tmp_path)
    assert not node.identities.is_usable()
    node.line.answers["token"] = {"chain_pem": PEM.format("leaf") + PEM.format("issuer")}
    node.identities.enrol()
    (asked,) = node.line.asked
    assert (asked["method"], asked["credential"], asked["csr_der"]) == (
        "token",
        "join-token",
        "csr",
    )
    again = Node(tmp_path).identities
    assert again.is_usable()
    assert again.current is not None
    pair = again.pair()
    assert pair is not None
    assert Path(pair.certificate).read_text() == PEM.format("leaf")
    assert pair.key == node.child.keys[0]


def test_a_token_that_is_not_there_is_tried_again_later(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It may be mounted late; nothing was sent without it."""
    monkeypatch.delenv("JOIN")
    node = Node(tmp_path)
    with pytest.raises(Unreachable, match=r"enrol\.credential"):
        node.identities.enrol()
    assert node.line.asked == []


def test_a_projected_token_is_read_anew_at_each_try(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The cluster replaces it every hour."""
    node = Node(tmp_path, method=EnrolMethod.KUBERNETES)
    node.line.answers["kubernetes"] = Unreachable("away")
    for token in ("first", "second"):
        monkeypatch.setenv("JOIN", token)
        with pytest.raises(Unreachable):
            node.identities.enrol()
    assert [one["credential"] for one in node.line.asked] == ["first", "second"]
    assert len(node.child.keys) == 1


def test_a_client_certificate_is_shown_in_the_handshake(tmp_path: Path) -> None:
    """And nothing of it is sent in the body."""
    node = Node(
        tmp_path,
        method=EnrolMethod.CERTIFICATE,
        credential=None,
        certificate="/m.pem",
        key="/m.key",
    )
    node.identities.enrol()
    assert node.line.how[0]["pair"] == ClientPair("/m.pem", "/m.key")
    assert node.line.asked[0]["credential"] is None


def test_approval_is_waited_for_by_asking_again_with_the_same_key(tmp_path: Path) -> None:
    """Also over a restart: who approves has seen the key's fingerprint."""
    node = Node(tmp_path, method=EnrolMethod.APPROVAL, credential=None)
    waiting = {"status": 202, "request": "r1", "fingerprint": "SHA256:x", "retry_seconds": 5}
    node.line.answers["approval"] = waiting
    with pytest.raises(Waiting) as raised:
        node.identities.enrol()
    assert (raised.value.fingerprint, raised.value.retry_seconds) == ("SHA256:x", 5.0)
    again = Node(tmp_path, method=EnrolMethod.APPROVAL, credential=None)
    again.identities.enrol()
    assert again.line.asked[0]["request"] == "r1"
    assert again.child.keys == node.child.keys
    assert again.identities.is_usable()


def test_an_identity_for_another_key_is_not_taken(tmp_path: Path) -> None:
    """Whoever answers so is not the broker that was asked."""
    node = Node(tmp_path)
    node.child.is_foreign = True
    with pytest.raises(Unreachable, match="another key"):
        node.identities.enrol()
    assert node.identities.current is None


@pytest.mark.parametrize(
    "answer",
    [{"chain_pem": 3}, {"chain_pem": "x" * 70_000}, {"node_id": 5}],
    ids=["no-text", "too-long", "no-id"],
)
def test_an_answer_without_an_identity_is_not_taken(tmp_path: Path, answer: dict[str, Any]) -> None:
    """It is tried again."""
    node = Node(tmp_path)
    node.line.answers["token"] = answer
    with pytest.raises(Unreachable):
        node.identities.enrol()


def test_it_is_renewed_at_two_thirds_of_its_life_with_the_same_key(tmp_path: Path) -> None:
    """9,000 s of life: due after 6,000."""
    node = Node(tmp_path)
    node.identities.enrol()
    node.clock.advance(timedelta(seconds=5_999))
    assert not node.identities.is_renewal_due()
    node.clock.advance(timedelta(seconds=1))
    assert node.identities.is_renewal_due()
    node.identities.renew()
    assert not node.identities.is_renewal_due()
    assert len(node.child.keys) == 1
    assert node.line.how[1]["pair"] is not None


@pytest.mark.parametrize(
    ("life_seconds", "pause_seconds"), [(60, 6), (3_600, 360), (9_000, 600), (604_800, 600)]
)
def test_tries_to_renew_it_lie_apart_as_its_life_allows(
    tmp_path: Path, life_seconds: int, pause_seconds: float
) -> None:
    """Ten minutes, or a tenth of a short life: a try that fails leaves time for others."""
    node = Node(tmp_path)
    assert node.identities.renewal_pause() == 600
    node.child.life_seconds = life_seconds
    node.identities.enrol()
    assert node.identities.renewal_pause() == pause_seconds


def test_after_its_end_it_comes_back_by_the_key_that_it_had(tmp_path: Path) -> None:
    """Signed, for TLS would refuse the identity that has ended."""
    node = Node(tmp_path)
    node.identities.enrol()
    node.clock.advance(timedelta(seconds=9_001))
    assert not node.identities.is_usable()
    node.identities.enrol()
    assert [one["method"] for one in node.line.asked] == ["token", "former"]
    assert node.line.how[1]["sign"] is not None
    assert node.line.how[1]["pair"] is None
    assert node.identities.is_usable()


@pytest.mark.parametrize(
    "refusal", [Refused(409, "away-too-long", ""), NotKnown(403, "revoked", "")]
)
def test_refused_as_former_it_comes_as_a_stranger_with_another_key(
    tmp_path: Path, refusal: Exception
) -> None:
    """The old identity stays until there is a new one."""
    node = Node(tmp_path)
    node.identities.enrol()
    node.line.answers["former"] = refusal
    node.line.answers["token"] = Unreachable("away")
    with pytest.raises(Unreachable):
        node.identities.enrol()
    assert node.identities.current is not None
    node.line.answers.pop("token")
    node.identities.enrol()
    assert [one["method"] for one in node.line.asked] == ["token"] + ["former", "token"] * 2
    assert len(node.child.keys) == 2


def test_where_a_load_balancer_ends_tls_each_request_is_signed(tmp_path: Path) -> None:
    """Over method, path, query and digest (RFC 9421 §2.5); no client certificate is shown."""
    node = Node(tmp_path, authentication=Authentication.SIGNED)
    node.identities.enrol()
    assert node.identities.pair() is None
    sign = node.identities.signer()
    assert sign is not None
    headers = sign("POST", "/agent/v1/messages", "?", b"{}")
    assert headers["Content-Digest"] == wire.content_digest(b"{}")
    assert headers["Signature-Input"].startswith('penstock=("@method" "@path" "@query"')
    assert f'keyid="{"f" * 64}"' in headers["Signature-Input"]
    assert headers["Signature"].startswith("penstock=:AQEB")
    other = sign("POST", "/agent/v1/messages", "?", b"{}")
    assert headers["Signature-Input"] != other["Signature-Input"]


def test_a_spoilt_identity_is_none(tmp_path: Path) -> None:
    """The node enrols again rather than not at all."""
    Folder(str(tmp_path)).put("identity", {"node_id": "n1", "not_after": "soon"})
    assert Node(tmp_path).identities.current is None
