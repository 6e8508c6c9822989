"""What the suite of whole deployments shares."""

import sys
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from typing import Any

import pytest

from tests.e2e.bad_requests import Holdings
from tests.e2e.front_door import FrontDoor, Thinking, running, thinking_ca
from tests.e2e.scene import Scene
from tests.fakes.hostile_ca import Script

MakeScene = Callable[..., Scene]


def pytest_addoption(parser: pytest.Parser) -> None:
    """Add the switch for the kill matrices in full."""
    parser.addoption(
        "--every-crash",
        action="store_true",
        help="kill the broker at every write and every call instead of a choice of them",
    )


@pytest.fixture(scope="session")
def every_crash(pytestconfig: pytest.Config) -> bool:
    """Whether the kill matrices are to be walked in full."""
    # The option is unknown where this folder was not named on the command line.
    return bool(pytestconfig.getoption("--every-crash", default=False))


@pytest.fixture
def note(request: pytest.FixtureRequest) -> Callable[[str, object], None]:
    """Note a figure beside the test's result: printed, and written into a report if there is one.

    ``record_property`` does the same, but warns where the report is of pytest's usual form.
    """

    def take(name: str, value: object) -> None:
        request.node.user_properties.append((name, value))
        sys.stdout.write(f"{name}: {value}\n")

    return take


@pytest.fixture
def make_scene(tmp_path_factory: pytest.TempPathFactory) -> Iterator[MakeScene]:
    """Start scenes that end with the test: one in front of a scripted CA for each script."""
    with ExitStack() as stack:

        def make(script: Script | None = None, **options: Any) -> Scene:
            # Named after the test its path would be too long for the operator socket.
            folder = tmp_path_factory.mktemp("scene")
            return stack.enter_context(Scene(folder, script, **options))

        yield make


@pytest.fixture(scope="session")
def front_door(tmp_path_factory: pytest.TempPathFactory) -> Iterator[FrontDoor]:
    """A broker with three communities, for requests that are refused or leave little behind."""
    # One address makes the accounts of every test of the session, in less than an hour.
    limits = {"rates": {"new_accounts": "off"}}
    with running(tmp_path_factory.mktemp("front-door"), limits=limits) as door:
        yield door


@pytest.fixture(scope="session")
def holdings(front_door: FrontDoor) -> Holdings:
    """An owner with one object of each kind."""
    return Holdings.of(front_door)


@pytest.fixture(scope="session")
def thinking(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Thinking]:
    """A broker in front of a CA that can be told to think, or to refuse."""
    with thinking_ca(tmp_path_factory.mktemp("thinking")) as made:
        yield made
