"""A configuration that is tried against an assembled broker, before anything ends for it."""

from collections.abc import AsyncIterator
from copy import deepcopy
from pathlib import Path
from typing import Any

import pytest

from broker.app import policies as app_policies
from broker.app.assembly import Broker, assembled
from broker.app.config_trial import ConfigTrial
from broker.config.load import parse_with_lines
from broker.issuance.errors import Broken
from broker.issuance.events import Actor
from broker.policy.parsing import parse_files
from broker.policy.yamlfile import Faults
from tests.fakes.policy_folder import policy
from tests.peers import authority
from tests.unit.app.test_assembly import config_in
from tests.unit.config.conftest import write

ANNA = Actor("operator:anna")
UPSTREAM = {
    "kind": "built-in",
    "base_url": "http://pki.corp.example:8080",
    "profiles": {
        "server": {"usages": ["server-auth"], "lifetime": "7d", "max_lifetime": "30d"},
        "node": {"usages": ["client-auth"], "lifetime": "7d", "max_lifetime": "30d"},
    },
}

PUBLIC = {"kind": "acme", "directory": "https://ca.corp.example/directory"}


class Tried:
    """A broker at work, and the changes that are tried on it."""

    def __init__(self, broker: Broker, folder: Path) -> None:
        self.broker = broker
        self.folder = folder
        self.policies = folder / "policies"

    async def judge(self, **changes: Any) -> None:
        """Judge its configuration with *changes*."""
        given = {
            "state": str(self.broker.outside.config.state),
            "keys.passphrase": f"file:{self.folder}/key.pass",
            "policies": [str(self.policies)],
            "upstreams.more": UPSTREAM,
            **changes,
        }
        config, lines = parse_with_lines(write(given), "penstock.yaml")
        await ConfigTrial(self.broker.outside).judge(config, lines)


@pytest.fixture
async def tried(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> AsyncIterator[Tried]:
    """A broker with one policy, and a built-in CA that has not been made."""
    monkeypatch.setattr(app_policies, "parse_apart", parse_files)
    (tmp_path / "policies").mkdir()
    (tmp_path / "policies" / "default.yaml").write_bytes(policy())
    more = {"policies": [str(tmp_path / "policies")], "upstreams.more": UPSTREAM}
    async with assembled(config_in(tmp_path, **more)) as broker:
        await broker.outside.policy_watch.begin()
        yield Tried(broker, tmp_path)


async def test_what_could_serve_passes(tried: Tried) -> None:
    """Limits, another upstream that nothing needs yet."""
    await tried.judge()
    await tried.judge(**{"limits": {"body": "100KiB"}, "upstreams.other": deepcopy(UPSTREAM)})


async def test_another_state_directory_is_another_broker(tried: Tried) -> None:
    """Its line is told."""
    with pytest.raises(Faults, match=r"penstock.yaml:\d+: state: the broker works in .*/penstock"):
        await tried.judge(state="/var/lib/other")


@pytest.mark.parametrize(
    "changes",
    [
        {"listen": {"acme": {"from": "more"}, "plain": {}}},
        {"agents": {"identity": {"upstream": "more"}}, "listen.agents": {}},
    ],
    ids=["listener", "nodes"],
)
async def test_ca_that_is_needed_has_to_be_there(tried: Tried, changes: dict[str, Any]) -> None:
    """Else the listener would have no certificate, or nodes no identity."""
    with pytest.raises(Faults, match="built-in CA 'more' has not been made") as caught:
        await tried.judge(**changes)
    assert "run penstock ca init" in str(caught.value)
    await tried.broker.operations.ca_init(
        actor=ANNA, upstream="more", permitted_names=["corp.example"]
    )
    await tried.judge(**changes)


async def test_secret_that_is_not_there_is_told(tried: Tried) -> None:
    """And so is a pair that does not fit."""
    with pytest.raises(Broken, match="secret file:/nowhere cannot be read"):
        await tried.judge(**{"keys.passphrase": "file:/nowhere"})
    pair = {"certificate": "/nowhere.crt", "key": "/nowhere.key"}
    with pytest.raises(Broken, match=r"TLS certificate /nowhere\.crt"):
        await tried.judge(listen={"acme": pair, "plain": {}})


async def test_policies_are_tried_under_it(tried: Tried) -> None:
    """One that names an upstream which would be gone, a community without one."""
    root = authority.make_root("a test")
    certificate, key, _ = authority.write_server_files(
        tried.folder, authority.make_server(root, ["acme.corp.example"]), root
    )
    own = {"certificate": str(certificate), "key": str(key)}
    gone = {"upstreams.local": None, "listen": {"acme": own, "plain": {}}}
    with pytest.raises(Faults, match="no upstream is called 'local'"):
        await tried.judge(**gone)
    both = {
        "communities": {"default": {}, "lab": {}},
        "upstreams.local.communities": ["default", "lab"],
        "upstreams.more.communities": ["default"],
    }
    with pytest.raises(Faults, match=r"penstock.yaml:\d+: .*community 'lab' has no policy"):
        await tried.judge(**both)
    (tried.policies / "lab.yaml").write_bytes(policy().replace(b"default", b"lab", 1))
    await tried.judge(**both)


async def test_policies_that_are_refused_already_are_no_hindrance(tried: Tried) -> None:
    """A start would go on with those in force; not where nobody knows of it yet."""
    (tried.policies / "default.yaml").write_text("")
    with pytest.raises(Faults, match="is empty"):
        await tried.judge()
    await tried.broker.outside.policy_watch.reload(ANNA)
    await tried.judge()


async def test_files_that_a_start_reads_are_looked_at(tried: Tried) -> None:
    """Anchors of people and of communities, a short passphrase; the twin has good ones."""
    bad, good = tried.folder / "bad.pem", tried.folder / "good.pem"
    bad.write_text("no certificate")
    good.write_bytes(authority.make_root("anchors").certificate_pem)
    (tried.folder / "short").write_text("x")
    (tried.folder / "loop").symlink_to("loop")
    pair = {"certificate": str(good / "tls.crt"), "key": str(tried.folder / "loop")}
    wrong: dict[str, Any] = {
        "anchors .* are no PEM": {"operators": {"people": {}, "anchors": str(bad)}},
        "anchors .*bad": {"communities": {"default": {"anchors": str(bad)}}},
        "client anchors .*bad": {
            "listen": {"acme": {"from": "local", "client_anchors": str(bad)}, "plain": {}}
        },
        "passphrase .* 1 bytes": {"keys.passphrase": f"file:{tried.folder}/short"},
        "not a directory": {"listen": {"acme": pair, "plain": {}}},
        "CA bundle .*bad": {"upstreams.pub": {**PUBLIC, "ca_bundle": str(bad)}},
    }
    for words, changes in wrong.items():
        with pytest.raises(Broken, match=words):
            await tried.judge(**changes)
    await tried.judge(
        **{
            "operators": {"people": {}, "anchors": str(good)},
            "communities": {"default": {"anchors": str(good)}},
            "listen": {"acme": {"from": "local", "client_anchors": str(good)}, "plain": {}},
            "upstreams.pub": {**PUBLIC, "ca_bundle": str(good)},
        }
    )
