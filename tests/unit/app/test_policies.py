"""Policies of an assembled broker: from files, or from the set that was kept."""

import asyncio
import gc
import json
import sys
from pathlib import Path
from typing import Any

import pytest
import structlog.testing

from broker.app import policies as app_policies
from broker.app.assembly import assembled
from broker.app.policies import ApartMaker, Directories, first_look, open_policies
from broker.config import Config
from broker.config.policies import made_of, policy_directories
from broker.issuance.errors import Broken
from broker.issuance.events import Actor
from broker.policy.parsing import parse_files
from broker.policy.yamlfile import Faults
from broker.storage.sqlite import SqliteStore
from tests.fakes.clock import FakeClock
from tests.fakes.fresh_store import open_fresh
from tests.fakes.policy_folder import policy
from tests.unit.app.test_assembly import config_in


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """A directory with one policy."""
    made = tmp_path / "policies"
    made.mkdir()
    (made / "default.yaml").write_bytes(policy())
    return made


@pytest.fixture
def config(tmp_path: Path, folder: Path) -> Config:
    """A configuration that reads it."""
    return config_in(tmp_path, policies=[str(folder)])


async def begun(config: Config) -> dict[str, Any]:
    """Start as ``serve`` does, and return what status tells."""
    async with assembled(config) as broker:
        await broker.outside.policy_watch.begin()
        return dict(await broker.operations.policy_status())


async def test_broken_files_at_the_start_leave_the_kept_set_in_force(
    config: Config, folder: Path
) -> None:
    """Across restarts, with the reason told; mended files take its place."""
    first = await begun(config)
    assert first["refused"] is None
    (folder / "default.yaml").write_text("")
    second = await begun(config)
    assert second["in_force"]["sha256"] == first["in_force"]["sha256"]
    assert second["in_force"]["since"] == first["in_force"]["since"]
    assert second["in_force"]["is_kept_set"]
    assert "the file is empty" in second["refused"]["faults"][0]
    (folder / "default.yaml").write_bytes(policy("30d"))
    third = await begun(config)
    assert third["refused"] is None
    assert third["in_force"]["sha256"] != first["in_force"]["sha256"]


async def test_missing_directory_at_the_start_leaves_the_kept_set_in_force(
    config: Config, folder: Path
) -> None:
    """A volume that is not mounted yet."""
    await begun(config)
    await asyncio.to_thread(folder.rename, folder.with_name("elsewhere"))
    told = await begun(config)
    assert "is not there" in told["refused"]["faults"][0]
    assert told["refused"]["is_tried_again"]


async def test_broken_files_without_a_kept_set_are_a_reason_to_stop(
    config: Config, folder: Path
) -> None:
    """As ever; and no state is made for it."""
    (folder / "default.yaml").write_text("")
    with pytest.raises(Faults, match="the file is empty"):
        await begun(config)
    assert not config.state.exists()
    config.state.mkdir(parents=True)
    await (await SqliteStore.open(config.state / "penstock.db")).close()
    with pytest.raises(Faults, match="the file is empty"):
        await begun(config)


async def test_kept_set_that_does_not_fit_the_configuration_is_no_help(
    tmp_path: Path, config: Config, folder: Path
) -> None:
    """It names an upstream that is gone: both are told, and nothing starts."""
    await begun(config)
    (folder / "default.yaml").write_text("")
    other = config_in(
        tmp_path,
        policies=[str(folder)],
        **{
            "upstreams.local": None,
            "upstreams.other": {"kind": "built-in", "base_url": "http://pki.corp.example:8080"},
            "listen": {"acme": {"from": "other"}, "plain": {}},
        },
    )
    with structlog.testing.capture_logs() as logs, pytest.raises(Faults, match="is empty"):
        await begun(other)
    assert any("cannot be used either" in line["event"] for line in logs)


async def test_commands_without_a_broker_keep_nothing(config: Config) -> None:
    """Only a broker that serves has policies in force."""
    async with assembled(config) as broker:
        assert await broker.operations.policy_history() == []


async def test_reload_by_command_and_by_watch(
    config: Config, folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The log tells each change once."""
    monkeypatch.setattr(app_policies, "parse_apart", parse_files)
    async with assembled(config) as broker:
        watch = broker.outside.policy_watch
        await watch.begin()
        with structlog.testing.capture_logs() as logs:
            (folder / "default.yaml").write_text("kind: Policy\n")
            await watch.turn()
            await watch.turn()
            await watch.turn()
            (folder / "default.yaml").write_bytes(policy())
            told = await broker.operations.policy_reload(actor=Actor("operator:anna"))
        assert told["refused"] is None
        assert not told["changed"]
        words = [line["event"] for line in logs if line["event"].startswith("polic")]
        assert words == ["policies refused", "policy files are those in force again"]


async def test_unchanged_files_are_not_parsed_again(
    config: Config, folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Only what changed goes to the child."""
    (folder / "later.yaml").write_bytes(policy().replace(b"default\n", b"lab\n", 1))
    earlier = made_of(config, await Directories(policy_directories(config)).read())
    given: list[list[str]] = []

    def parse(files: dict[str, bytes]) -> object:
        given.append(sorted(files))
        return parse_files(files)

    monkeypatch.setattr(app_policies, "parse_apart", parse)
    (folder / "default.yaml").write_bytes(policy("30d"))
    texts = await Directories(policy_directories(config)).read()
    made = await ApartMaker(config, FakeClock()).make(texts, earlier)
    assert given == [["default.yaml"]]
    assert made.current("default").cap.days == 30


async def test_large_sets_leave_no_trace(
    config: Config, folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """They are kept out of collections, and freed once they decide no more."""
    monkeypatch.setattr(app_policies, "MANY_RULES", 1)
    monkeypatch.setattr(app_policies, "parse_apart", parse_files)
    rule = {"name": "a", "because": "a test", "names": ["a.internal"], "refuse": "no"}
    maker = ApartMaker(config, FakeClock())
    source = Directories(policy_directories(config))
    earlier = made_of(config, await source.read())
    (folder / "default.yaml").write_bytes(policy() + f"rules: {json.dumps([rule])}\n".encode())
    made = await maker.make(await source.read(), earlier)
    try:
        assert gc.get_freeze_count() > 0
        assert made.whole is not None
        (rule_made,) = made.whole.rules
        former = [made]
        del made
        await maker.let_go(former)
        assert former == []
        assert sys.getrefcount(rule_made) == 2, "held by this test and the question alone"
    finally:
        gc.unfreeze()


async def test_start_with_an_older_bundle_leaves_the_kept_set_in_force(
    tmp_path: Path, config: Config
) -> None:
    """Versions only rise, across restarts as well."""
    store = await open_fresh(tmp_path / "store.db")
    try:
        found = first_look(config)
        keeper = await open_policies(config, found, store, FakeClock())
        assert keeper.refusal is None
        with pytest.raises(Broken, match="gone"):
            await open_policies(
                config, app_policies.FirstLook(error=Broken("gone")), store, FakeClock()
            )
        await keeper.begin()
        again = await open_policies(
            config, app_policies.FirstLook(error=Broken("gone")), store, FakeClock()
        )
        assert again.is_last_good
    finally:
        await store.close()


async def test_looks_are_taken_off_the_loop(config: Config) -> None:
    """A disk may take its time."""
    source = Directories(policy_directories(config))
    looks = await asyncio.gather(source.look(), source.look())
    assert looks[0] == looks[1]
