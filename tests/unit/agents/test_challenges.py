"""A node answers challenges for its own names, until they are withdrawn or their time is over."""

import hashlib
import json
from collections.abc import Mapping
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest
from cryptography import x509
from cryptography.hazmat.primitives.serialization import load_pem_private_key

from agents.challenge_ports import ChallengePorts, PortFault
from agents.challenges import ChallengeFault, Responder
from agents.config import ChallengesSection
from agents.crafting import do_work

TOKEN = "evaGxfADs6pSRb2LAv9IZf17Dt3juxGJ-PCt92wr-oA"  # the example of RFC 8555 §8.3
AUTHORIZATION = f"{TOKEN}.{'9jg46WB3rR_AHD-EBXdN7cBkH1WOu0tA3M9fm21mqTI'}"
NAMES = ("host.example", "192.0.2.1")
ACME_IDENTIFIER = x509.ObjectIdentifier("1.3.6.1.5.5.7.1.31")


class FakePorts(ChallengePorts):
    """Ports that only note what they would answer."""

    def __init__(self) -> None:
        super().__init__(None, None)
        self.told: dict[str, str] = {}
        self.shown: list[str] = []
        self.is_taken = False

    def tell(self, token: str, authorization: str) -> None:
        """Note an answer."""
        if self.is_taken:
            raise PortFault("cannot listen at 0.0.0.0:80: address already in use")
        self.told[token] = authorization

    def forget(self, token: str) -> None:
        """Forget an answer."""
        self.told.pop(token, None)

    def show(self, identifier: str, context: object) -> None:
        """Note a certificate."""
        self.shown.append(identifier)

    def hide(self, identifier: str) -> None:
        """Forget a certificate."""
        self.shown.remove(identifier)


class FakeClock:
    """A clock that goes when it is told."""

    def __init__(self) -> None:
        self.seconds = 0.0

    def now(self) -> datetime:
        """Return the time."""
        return datetime.fromtimestamp(1_800_000_000 + self.seconds, UTC)

    def monotonic(self) -> float:
        """Return seconds."""
        return self.seconds


class Node:
    """A node that answers what *section* says."""

    def __init__(self, **section: Any) -> None:
        self.ports, self.clock = FakePorts(), FakeClock()
        self.made: list[tuple[str, str]] = []
        self.responder = Responder(
            ChallengesSection(**section),
            NAMES,
            clock=self.clock,
            ports=self.ports,
            craft=self.craft,
        )

    def craft(self, work: Mapping[str, Any]) -> dict[str, Any]:
        """Do a piece of work here instead of in a child."""
        answer = do_work(json.loads(json.dumps(work)))
        self.made.append((answer["certificate_pem"], answer["key_pem"]))
        return answer

    def answer(self, challenge: str = "c1", **members: Any) -> None:
        """Answer a challenge."""
        body = {
            "challenge": challenge,
            "type": "http-01",
            "identifier": "host.example",
            "token": TOKEN,
            "key_authorization": AUTHORIZATION,
            "seconds": 600,
        }
        self.responder.answer({**body, **members})


def test_http_challenge_is_answered_and_withdrawn() -> None:
    """An answer is served from the message on until it is withdrawn; twice is no fault."""
    node = Node(http="0.0.0.0:80")
    node.answer()
    assert node.ports.told == {TOKEN: AUTHORIZATION}
    node.responder.withdraw("c1")
    node.responder.withdraw("c1")
    assert node.ports.told == {}


def test_answer_ends_with_its_time() -> None:
    """What is never withdrawn is taken back when its time is over."""
    node = Node(http="0.0.0.0:80")
    node.answer(seconds=600)
    node.clock.seconds = 599
    node.responder.expire()
    assert node.ports.told
    node.clock.seconds = 600
    node.responder.expire()
    assert node.ports.told == {}


def test_answer_lasts_a_day_at_most() -> None:
    """A broker can't have something served for ever."""
    node = Node(http="0.0.0.0:80")
    node.answer(seconds=10**9)
    node.clock.seconds = 86_400
    node.responder.expire()
    assert node.ports.told == {}


def test_two_challenges_of_one_token_end_one_by_one() -> None:
    """A token that two challenges share is answered until both are withdrawn."""
    node = Node(http="0.0.0.0:80")
    node.answer("c1")
    node.answer("c2")
    node.responder.withdraw("c1")
    assert node.ports.told
    node.responder.withdraw("c2")
    assert node.ports.told == {}


def test_webroot_gets_a_file_and_loses_it(tmp_path: Path) -> None:
    """Where a server has port 80 already, the answer is a file that it serves."""
    node = Node(webroot=str(tmp_path))
    node.answer()
    path = tmp_path / ".well-known" / "acme-challenge" / TOKEN
    assert path.read_text() == AUTHORIZATION
    assert path.stat().st_mode & 0o777 == 0o644
    node.responder.close()
    assert not path.exists()


def test_webroot_that_leads_elsewhere_is_refused(tmp_path: Path) -> None:
    """A link in the web root can't have the agent write elsewhere."""
    victim = tmp_path / "victim"
    victim.mkdir()
    (tmp_path / "www").mkdir()
    (tmp_path / "www" / ".well-known").symlink_to(victim)
    with pytest.raises(ChallengeFault, match="symlink"):
        Node(webroot=str(tmp_path / "www")).answer()
    assert list(victim.iterdir()) == []


def test_alpn_challenge_is_answered_by_a_certificate_of_its_own() -> None:
    """The certificate says the digest of the key authorization, critically (RFC 8737 §3)."""
    node = Node(tls_alpn="0.0.0.0:443")
    node.answer(type="tls-alpn-01")
    assert node.ports.shown == ["host.example"]
    ((certificate_pem, key_pem),) = node.made
    certificate = x509.load_pem_x509_certificate(certificate_pem.encode())
    extension = certificate.extensions.get_extension_for_oid(ACME_IDENTIFIER)
    digest = hashlib.sha256(AUTHORIZATION.encode()).digest()
    assert extension.critical
    assert extension.value.public_bytes() == b"\x04\x20" + digest
    key = load_pem_private_key(key_pem.encode(), None)
    assert key.public_key() == certificate.public_key()
    node.responder.withdraw("c1")
    assert node.ports.shown == []


@pytest.mark.parametrize(
    ("members", "reason"),
    [
        ({"identifier": "other.example"}, "no name of this node"),
        ({"identifier": "$(touch x).example"}, "no name of this node"),
        ({"identifier": ""}, "no name of this node"),
        ({"type": "dns-01"}, "not answered on this node"),
        ({"type": "tls-alpn-01"}, "not answered on this node"),
        ({"token": "../../../../etc/cron.d/x"}, "no key authorization"),
        ({"token": "short"}, "no key authorization"),
        ({"token": TOKEN + "\n"}, "no key authorization"),
        ({"key_authorization": "<script>"}, "no key authorization"),
        ({"key_authorization": TOKEN}, "no key authorization"),
        ({"key_authorization": f"{TOKEN}.{'x' * 44}"}, "no key authorization"),
        ({"key_authorization": f"{TOKEN[:-1]}B.{'x' * 43}"}, "no key authorization"),
        ({"key_authorization": f"{AUTHORIZATION}\n"}, "no key authorization"),
    ],
)
def test_broker_cannot_have_anything_else_served(members: dict[str, str], reason: str) -> None:
    """Another's name, or an answer that is no key authorization of its token, is refused."""
    node = Node(http="0.0.0.0:80")
    with pytest.raises(ChallengeFault, match=reason):
        node.answer(**members)
    assert node.ports.told == {}


def test_port_that_is_taken_is_told() -> None:
    """Where the port isn't to be had, the challenge is not answered, and that is said."""
    node = Node(http="0.0.0.0:80")
    node.ports.is_taken = True
    with pytest.raises(ChallengeFault, match="address already in use"):
        node.answer()


def test_challenges_have_a_limit() -> None:
    """A broker can't fill the node's memory with answers."""
    node = Node(http="0.0.0.0:80")
    for number in range(1000):
        node.answer(f"c{number}")
    with pytest.raises(ChallengeFault, match="1000 challenges"):
        node.answer("one more")
