"""Packaged servers are really reloaded and really seen to serve the new certificate."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from agents.look import NotSeen, look
from agents.reload import ReloadFault, Renewed, reload
from tests.contract.agents.pairs import NAME, make_pair, put
from tests.peers.dovecot import Dovecot
from tests.peers.haproxy import HAProxy
from tests.peers.httpd import Httpd
from tests.peers.nginx import Nginx
from tests.peers.postfix import Postfix
from tests.peers.slapd import Slapd
from tests.peers.tls_server import TlsServer

pytestmark = pytest.mark.peers

SERVERS = (Nginx, Httpd, HAProxy, Postfix, Dovecot, Slapd)


@pytest.fixture(params=SERVERS, ids=lambda kind: kind.name)
def server(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[TlsServer]:
    """A server that has one certificate and is not started yet."""
    made: TlsServer = request.param(tmp_path / "server", tmp_path / "pair")
    if isinstance(made, Postfix):
        made.most_processes = 1  # a second one would read a broken configuration, and die of it
    put(make_pair(), made.pair)
    yield made
    made.stop()


def renewed(server: TlsServer) -> list[Renewed]:
    """Return what a reload is told about the certificate of *server*."""
    return [Renewed("host", (NAME,), server.pair)]


def test_new_certificate_is_served_after_reload(server: TlsServer) -> None:
    """A server is told to reload, and then serves what was put in place."""
    before = put(make_pair(), server.pair)
    server.start()
    assert look(server.look_section(NAME), before).fingerprint == before
    after = put(make_pair(), server.pair)
    reload(server.reload_section(), renewed(server))
    assert look(server.look_section(NAME), after).fingerprint == after


def test_broken_configuration_fails_the_reload(server: TlsServer) -> None:
    """A configuration that cannot be read fails the reload, and the old certificate stays."""
    before = put(make_pair(), server.pair)
    server.start()
    look(server.look_section(NAME), before)
    after = put(make_pair(), server.pair)
    server.break_configuration()
    with pytest.raises(ReloadFault):
        reload(server.reload_section(), renewed(server))
    assert look(server.look_section(NAME), before).fingerprint == before
    server.mend_configuration()
    reload(server.reload_section(), renewed(server))
    assert look(server.look_section(NAME), after).fingerprint == after


@pytest.mark.parametrize(
    "server", [Nginx, Dovecot, Slapd], ids=lambda kind: kind.name, indirect=True
)
def test_certificate_of_another_name_is_not_taken_for_the_new_one(server: TlsServer) -> None:
    """A server that serves another host's certificate is not seen, and the right one is."""
    put(make_pair("other.example"), server.pair)
    server.start()
    wanted = make_pair()
    with pytest.raises(NotSeen, match=f"instead of {wanted.fingerprint[:16]}"):
        look(server.look_section(NAME, attempts=2), wanted.fingerprint)
    put(wanted, server.pair)
    reload(server.reload_section(), renewed(server))
    look(server.look_section(NAME), wanted.fingerprint)
