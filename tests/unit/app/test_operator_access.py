"""People of the configuration: read again when it changes, and left alone when it is broken."""

import os
from pathlib import Path
from typing import Any

import pytest

from broker.app.operator_access import OperatorAccess, summaries
from broker.config import load_config
from broker.issuance.errors import Broken
from broker.policy.roles import Role
from broker.web.operator import COMMANDS
from tests.fakes.clock import FakeClock
from tests.unit.config.conftest import write


def described(people: dict[str, Any], **more: Any) -> str:
    """Return a configuration with these people."""
    return write({"operators": {"people": people, **more}})


JANE = {"users": ["jdoe"], "roles": {"default": ["approver"]}}
OMAR = {"users": ["omar"], "roles": {"*": ["operator"]}}


@pytest.fixture
def path(tmp_path: Path) -> Path:
    """A configuration that names jane."""
    made = tmp_path / "penstock.yaml"
    made.write_text(described({"jane": JANE}))
    return made


@pytest.fixture
def access(path: Path) -> OperatorAccess:
    """Who is known."""
    return OperatorAccess(load_config(path), FakeClock(), user_agent="penstock/test", path=path)


def put(path: Path, text: str | None, *, is_unseen: bool = False) -> None:
    """Write the file, or remove it; one that is unseen has the time of the one before."""
    if text is None:
        path.unlink()
        return
    before = path.stat()
    path.write_text(text)
    if is_unseen:
        os.utime(path, ns=(before.st_atime_ns, before.st_mtime_ns))


def known(access: OperatorAccess) -> set[str]:
    """Return which users are somebody."""
    users = ("jdoe", "omar")
    return {one for one in users if access.by_user(one, is_owner=False) is not None}


async def test_people_change_with_the_file(access: OperatorAccess, path: Path) -> None:
    """Somebody comes, and somebody goes."""
    assert known(access) == {"jdoe"}
    assert access.has_approvers()
    put(path, described({"omar": OMAR}))
    await access.refresh()
    assert known(access) == {"omar"}
    assert not access.has_approvers()


async def test_file_that_has_not_changed_is_not_read(access: OperatorAccess, path: Path) -> None:
    """Unless somebody asks for it: some file systems keep no time."""
    put(path, described({"jane": {**JANE, "users": ["omar"]}}), is_unseen=True)
    await access.refresh()
    assert known(access) == {"jdoe"}
    await access.refresh(is_asked=True)
    assert known(access) == {"omar"}


@pytest.mark.parametrize(
    "text",
    ["", "{", described({"jane": {"roles": {"default": ["operator", "approver"]}}}),
     described({}, anchors="/nowhere/anchors.pem")],
    ids=["empty", "broken", "combined", "no-anchors"],
)  # fmt: skip
async def test_broken_file_leaves_people_as_they_were(
    access: OperatorAccess, path: Path, text: str
) -> None:
    """And a good one is taken in afterwards."""
    put(path, text)
    await access.refresh()
    assert known(access) == {"jdoe"}
    assert access.failures == 1
    put(path, described({"omar": OMAR}))
    await access.refresh()
    assert (known(access), access.failures) == ({"omar"}, 0)


async def test_file_that_is_gone_leaves_people_as_they_were(
    access: OperatorAccess, path: Path
) -> None:
    """An editor may be writing it."""
    put(path, None)
    await access.refresh()
    assert known(access) == {"jdoe"}


def test_anchors_that_are_not_there_stop_the_start(tmp_path: Path) -> None:
    """Nobody would be let in, and nobody would know why."""
    path = tmp_path / "penstock.yaml"
    path.write_text(described({}, anchors="/nowhere/anchors.pem"))
    with pytest.raises(Broken, match="/nowhere"):
        OperatorAccess(load_config(path), FakeClock(), user_agent="x")


def test_person_of_a_user_has_their_roles(access: OperatorAccess) -> None:
    """And is who events name."""
    jane = access.by_user("jdoe", is_owner=False)
    assert jane is not None
    assert (jane.name, jane.held("default")) == ("jane", {Role.APPROVER})


def test_every_command_has_a_sentence() -> None:
    """It is what the description says of it."""
    found = summaries()
    assert set(found) == COMMANDS
    assert not [name for name, text in found.items() if not text]
