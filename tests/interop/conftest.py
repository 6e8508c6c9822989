"""What the interop suite shares: one name server, and a Penstock in front of each CA."""

from collections.abc import Callable, Iterator, Mapping
from contextlib import ExitStack

import pytest

from tests.deployments.cas import (
    DNS_ZONE,
    WEB_ZONE,
    BehindBuiltIn,
    BehindPebble,
    BehindStepCa,
    Deployment,
)
from tests.peers.bind import Bind


def pytest_addoption(parser: pytest.Parser) -> None:
    """Add the switches of the matrix of clients and CAs."""
    parser.addoption(
        "--every-verb",
        action="store_true",
        help="let each client do at each CA all that it offers, instead of each pair once",
    )
    parser.addoption(
        "--interop-report", metavar="PATH", help="write what the matrix came to into this file"
    )


KINDS: Mapping[str, Callable[..., Deployment]] = {
    "pebble": BehindPebble,
    "step-ca": BehindStepCa,
    "built-in": BehindBuiltIn,
}


@pytest.fixture(scope="session")
def name_server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Bind]:
    """A name server in which every name of the suite leads to loopback."""
    zones = ["example.test", "challenges.test"]
    with Bind(tmp_path_factory.mktemp("named"), zones=zones) as server:
        for zone in (WEB_ZONE, DNS_ZONE):
            server.add_a(f"*.{zone}")
        yield server


@pytest.fixture(scope="module", params=list(KINDS))
def deployment(
    request: pytest.FixtureRequest,
    tmp_path_factory: pytest.TempPathFactory,
    name_server: Bind,
) -> Iterator[Deployment]:
    """A Penstock in front of one CA."""
    with ExitStack() as stack:
        yield KINDS[request.param](tmp_path_factory.mktemp(request.param), stack, name_server)
