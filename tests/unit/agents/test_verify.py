"""What the node itself holds a certificate to."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric import ec

from agents.verify import Expectation, Rejected, Verified, read_anchors, verify_certificate
from tests.fakes.node_authority import NOW, Issue, NodeAuthority, craft_here, pem_of

KEY = ec.generate_private_key(ec.SECP256R1())
SPKI = hashlib.sha256(
    KEY.public_key().public_bytes(
        serialization.Encoding.DER, serialization.PublicFormat.SubjectPublicKeyInfo
    )
).hexdigest()
AUTHORITY = NodeAuthority()
DAY = timedelta(days=1)


@pytest.fixture(autouse=True)
def _here(monkeypatch: pytest.MonkeyPatch) -> None:
    craft_here(monkeypatch)


def verify(
    issue: Issue | None = None, *, names: Sequence[str] = ("www.example",), **changes: Any
) -> Verified:
    """Verify a certificate for the node's key."""
    chain = changes.pop("chain", None) or AUTHORITY.certify_key(KEY, issue)
    given: dict[str, Any] = {
        "names": names,
        "spki_sha256": SPKI,
        "now": NOW,
        "anchors_pem": AUTHORITY.anchors_pem,
        **changes,
    }
    return verify_certificate(chain, Expectation(**given))


def test_what_is_expected_passes() -> None:
    """It comes back with its chain in order and what is known of it."""
    issue = Issue(["www.example", "*.www.example"], common_name="www.example")
    verified = verify(issue, names=["*.WWW.example", "www.example"], longest=(30 * DAY, None))
    assert verified.is_anchored
    assert verified.spki_sha256 == SPKI
    assert verified.not_before == NOW - timedelta(hours=1)
    assert verified.not_after == NOW - timedelta(hours=1) + 30 * DAY
    assert verified.key_usages == ("digitalSignature",)
    assert verified.chain_pem.count("BEGIN CERTIFICATE") == 2


def test_addresses_are_compared_by_what_they_mean() -> None:
    """One address has many spellings."""
    names = ["2001:0DB8:0::1", "192.0.2.1"]
    assert verify(Issue(["2001:db8::1", "192.0.2.1"]), names=names)


REFUSED: dict[str, tuple[Issue, dict[str, Any], str]] = {
    "another key": (Issue(), {"spki_sha256": "0" * 64}, "for another key"),
    "a name is missing": (Issue(), {"names": ["www.example", "b.example"]}, "b.example"),
    "a name too many": (Issue(["www.example", "x.example"]), {}, "x.example"),
    "no names": (Issue([], common_name="www.example"), {}, "missing"),
    "a common name of its own": (Issue(common_name="evil.example"), {}, "common name"),
    "a CA": (Issue(is_ca=True, usages=("key_cert_sign",)), {}, "a CA's"),
    "past the node's longest": (Issue(lasts=31 * DAY), {"longest": (29 * DAY, 90 * DAY)}, "29 d"),
    "past the broker's longest": (Issue(), {"longest": (90 * DAY, 7 * DAY)}, "past the 7 d"),
    "past what was asked": (Issue(), {"longest": (None, None, DAY)}, "past the 24 h"),
    "ended": (Issue(begins=-3 * DAY, lasts=2 * DAY), {}, "ended"),
    "begins later": (Issue(begins=timedelta(minutes=20)), {}, "begins in 20 min"),
    "older": (Issue(), {"installed_not_before": NOW}, "older than the installed one"),
    "other anchors": (Issue(), {"anchors_pem": NodeAuthority().anchors_pem}, "does not lead"),
    "empty anchors": (Issue(), {"anchors_pem": ""}, "no anchor"),
}


@pytest.mark.parametrize("case", sorted(REFUSED))
def test_what_is_refused(case: str) -> None:
    """Each is refused with what was and what should be."""
    issue, changes, said = REFUSED[case]
    with pytest.raises(Rejected, match=said):
        verify(issue, **changes)


@pytest.mark.parametrize(
    ("issue", "said"),
    [
        (Issue(begins=4 * DAY), "clock is wrong by about 3 d|clock is wrong by about 4 d"),
        (Issue(begins=-40 * DAY), "clock is wrong by about"),
    ],
    ids=["behind", "ahead"],
)
def test_a_clock_that_is_wrong_by_days_is_named(issue: Issue, said: str) -> None:
    """Whoever reads it knows where to look."""
    with pytest.raises(Rejected, match=said):
        verify(issue)


def test_a_clock_that_is_wrong_by_minutes_is_not() -> None:
    """A little is tolerated, and a little more is told without a guess."""
    assert verify(Issue(begins=timedelta(minutes=4)))
    with pytest.raises(Rejected) as caught:
        verify(Issue(begins=timedelta(hours=2)))
    assert "clock" not in caught.value.reason


def test_a_lifetime_is_counted_from_now() -> None:
    """A CA dates the beginning back by an hour: ninety days from now are ninety days."""
    assert verify(Issue(lasts=30 * DAY + timedelta(hours=1)), longest=(30 * DAY,))


def test_the_same_age_is_not_older() -> None:
    """The same certificate again, and one that begins when the installed one does."""
    assert verify(installed_not_before=NOW - timedelta(hours=1))


@pytest.mark.parametrize("text", ["", "<html>", "x" * 200_000], ids=["empty", "HTML", "large"])
def test_what_is_no_chain(text: str) -> None:
    """It is refused like any other."""
    with pytest.raises(Rejected, match="chain"):
        verify(chain=text or "\n")


def test_eleven_certificates() -> None:
    """A chain is bounded."""
    others = [NodeAuthority().intermediate for _ in range(9)]
    with pytest.raises(Rejected, match="11 certificates"):
        verify(chain=AUTHORITY.certify_key(KEY) + pem_of(*others))


def test_without_anchors_of_its_own() -> None:
    """It passes by its own signatures and says that nothing anchors it."""
    assert not verify(anchors_pem=None).is_anchored


def test_anchors_are_the_nodes_own_file(tmp_path: Path) -> None:
    """No file is configured: none is read.  One that cannot be read lets nothing pass."""
    path = tmp_path / "anchors.pem"
    path.write_text(AUTHORITY.anchors_pem, encoding="ascii")
    assert read_anchors(str(path)) == AUTHORITY.anchors_pem
    assert read_anchors(None) is None
    with pytest.raises(Rejected, match="cannot be read"):
        read_anchors(str(tmp_path / "absent"))
    path.write_bytes(b"x" * (4 * 1024 * 1024 + 1))
    with pytest.raises(Rejected, match="past"):
        read_anchors(str(path))
