"""The certificate that admission shows to the API server."""

from datetime import timedelta
from pathlib import Path

import pytest
import structlog

from broker.app.admission_tls import AdmissionTls
from broker.app.own_files import PairFiles
from tests.fakes.clock import FakeClock
from tests.peers import authority


class Site:
    """A folder that an agent writes a pair to."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.root = authority.make_root("cluster")
        self.clock = FakeClock(authority.real_now())
        self.files = PairFiles(folder / "tls.pem", folder / "tls.key", b"")
        self.changes = 0
        self.tls = AdmissionTls(self.files, self.clock, self._changed)

    def _changed(self) -> None:
        self.changes += 1

    def refresh(self) -> bool:
        """Have it look; tell whether another pair is shown now."""
        before = self.changes
        self.tls.refresh()
        return self.changes > before

    def write(self) -> None:
        """Put a new pair there."""
        server = authority.make_server(self.root, ["penstock-admission.penstock.svc"])
        authority.write_server_files(self.folder, server, self.root)

    @property
    def roots(self) -> str:
        """The root in PEM."""
        return self.root.certificate_pem.decode("ascii")


@pytest.fixture
def site(tmp_path: Path) -> Site:
    """Nothing is there yet."""
    return Site(tmp_path)


async def test_before_there_is_a_pair_nobody_is_served(site: Site) -> None:
    """It starts all the same: the pair comes by an agent that starts beside it."""
    assert not site.refresh()
    assert await site.tls.why_not() == "there is no certificate yet"
    assert site.tls.not_after is None
    assert not site.tls.is_by(site.roots)


async def test_a_pair_is_taken_up_when_it_comes_and_when_it_changes(site: Site) -> None:
    """And is not read again while it stays."""
    site.write()
    assert site.refresh()
    assert not site.refresh()
    assert await site.tls.why_not() is None
    first = site.tls._shown
    site.write()
    assert site.refresh()
    assert site.tls._shown is not first


async def test_a_pair_that_does_not_fit_leaves_the_one_before(site: Site) -> None:
    """It is told once, and a good one that follows is taken."""
    site.write()
    site.tls.refresh()
    before = site.tls._shown
    (site.folder / "tls.key").write_bytes(b"no key")
    with structlog.testing.capture_logs() as lines:
        assert not site.refresh()
        assert not site.refresh()
    assert len(lines) == 1
    assert site.tls._shown is before
    site.write()
    assert site.refresh()


async def test_a_certificate_that_has_ended_is_told(site: Site) -> None:
    """By the probe; it is shown on, for there is no better one."""
    site.write()
    site.tls.refresh()
    site.clock.advance(timedelta(days=10_000))
    why = await site.tls.why_not()
    assert why is not None
    assert why.startswith("certificate ended")


def test_roots_are_ours_when_our_certificate_leads_to_them(site: Site) -> None:
    """Among others, as in a rotation; without them it is believed by nobody."""
    site.write()
    site.tls.refresh()
    other = authority.make_root("other").certificate_pem.decode("ascii")
    assert site.tls.is_by(site.roots)
    assert site.tls.is_by(other + site.roots)
    for roots in (other, "", "no PEM", "é"):
        assert not site.tls.is_by(roots)
