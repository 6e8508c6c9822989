"""The part of the desk about policies."""

from collections.abc import AsyncIterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from broker.app.policies import PolicyWatch
from broker.operations.policies import PolicyDesk
from broker.operations.rooms import Rooms
from broker.policy.manifest import Seal
from broker.web.operator import OperationError
from tests.fakes.fresh_store import open_fresh
from tests.fakes.policy_folder import policy
from tests.unit.issuance.test_policy_keeping import ANNA, Keeping


class Scene(Keeping):
    """A desk beside a keeper."""

    def desk(self) -> PolicyDesk:
        """Return a desk that knows of nothing but policies."""
        rooms: Any = Rooms.__new__(Rooms)
        object.__setattr__(rooms, "store", self.store)
        watch = PolicyWatch(self.keeper, self.store)
        object.__setattr__(rooms, "policy_reloads", watch)
        return PolicyDesk(rooms)


@pytest.fixture
async def scene(tmp_path: Path) -> AsyncIterator[Scene]:
    """A desk whose keeper has begun."""
    store = await open_fresh(tmp_path / "store.db")
    made = Scene(store)
    await made.keeper.begin()
    yield made
    await store.close()


async def test_status_tells_what_is_in_force_and_what_is_refused(scene: Scene) -> None:
    """With every fault."""
    desk = scene.desk()
    told = await desk.policy_status()
    assert told["in_force"]["sha256"] == scene.keeper.loaded.texts.sha256
    assert told["in_force"]["version"] is None
    assert told["policies"]["default"]["file"] == "default.yaml"
    assert told["refused"] is None
    scene.folder.files["default.yaml"] = b"kind: Policy\n"
    told = await desk.policy_reload(actor=ANNA)
    assert told["changed"] is False
    assert told["refused"]["sha256"] == scene.folder.texts().sha256
    assert len(told["refused"]["faults"]) > 1


async def test_signed_set_tells_its_version_and_signers(scene: Scene) -> None:
    """Who said yes."""
    keeper = scene.keeper
    keeper.loaded = replace(keeper.loaded, seal=Seal(version=7, signers=("anna", "ben")))
    told = await scene.desk().policy_status()
    assert (told["in_force"]["version"], told["in_force"]["signers"]) == (7, ["anna", "ben"])


async def test_history_names_who_and_why(scene: Scene) -> None:
    """The latest first."""
    scene.folder.files["default.yaml"] = policy("30d")
    desk = scene.desk()
    assert (await desk.policy_reload(actor=ANNA))["changed"] is True
    latest, first = await desk.policy_history()
    assert (latest["by"], latest["reason"]) == ("operator:anna", "ticket 7")
    assert first["by"] == "system"
    assert await desk.policy_history(limit=1) == [latest]


async def test_files_of_an_earlier_set_are_shown(scene: Scene) -> None:
    """By the beginning of its digest, and not by a guess."""
    desk = scene.desk()
    sha256 = scene.keeper.loaded.texts.sha256
    found = await desk.policy_set(sha256=sha256[:12].upper())
    assert found["texts"] == {"default.yaml": policy().decode()}
    assert found["bundle"] == {}
    with pytest.raises(OperationError, match="no set of policies begins with"):
        await desk.policy_set(sha256="0" * 12)
    with pytest.raises(OperationError, match="8 characters or more"):
        await desk.policy_set(sha256="ab")
