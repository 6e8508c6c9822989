"""What the broker asks beside certificates."""

from __future__ import annotations

import io
from pathlib import Path
from typing import Any

import pytest

from agents import bundles
from agents.config import AgentConfig, BundleSection
from agents.log import Log
from agents.mailbox import Outbox
from agents.placing import DiskFault
from agents.services import Services
from agents.state import State, StateFault
from agents.wire import Message
from tests.fakes.agent_config import make_config
from tests.fakes.node_clock import NodeClock
from tests.peers import authority


class Node:
    """A node that wants one bundle and answers no challenge."""

    def __init__(self, tmp_path: Path) -> None:
        bundle = BundleSection(name="anchors", file=str(tmp_path / "out" / "anchors.pem"))
        made = make_config(bundles=(bundle,))
        self.config = AgentConfig(
            node=type(made.node)(
                name="web.example.test",
                state=str(tmp_path / "state"),
                allowed=(str(tmp_path / "out"),),
            ),
            broker=made.broker,
            enrol=made.enrol,
            bundles=made.bundles,
        )
        state = State(str(tmp_path / "state"))
        self.outbox = Outbox(state.outbox)
        self.done: list[str] = []
        clock = NodeClock()
        self.services = Services(
            config=lambda: self.config,
            folder=state.bundles,
            outbox=self.outbox,
            done=lambda message: self.done.append(message.id),
            clock=clock,
            log=Log(clock, to=io.StringIO()),
        )

    def told(self) -> list[tuple[str, dict[str, Any]]]:
        """Return what was told."""
        return [(message.kind, dict(message.body)) for _, message in self.outbox.next()]


def bundle(**more: Any) -> Message:
    """Return a bundle on its way."""
    body = {"bundle": "anchors", "content": "anchors", "version": 2, "pem": "", **more}
    return Message("b", "bundle", body, 1)


def challenge() -> Message:
    """Return a wish for an answer."""
    body = {
        "challenge": "c1", "type": "http-01", "identifier": "other.example.test", "token": "t",
        "key_authorization": "t.k", "seconds": 60,
    }  # fmt: skip
    return Message("a", "answer-challenge", body, 2)


def test_a_bundle_that_is_not_configured_is_left_alone(tmp_path: Path) -> None:
    """The broker cannot have a file written that the node does not want."""
    node = Node(tmp_path)
    node.services.work([bundle(bundle="other")])
    assert node.told() == []
    assert node.done == ["b"]
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize("pem", ["", "no PEM"])
def test_a_bundle_that_is_none_is_not_installed(tmp_path: Path, pem: str) -> None:
    """The old one stays, and nothing is told of it."""
    node = Node(tmp_path)
    node.services.work([bundle(pem=pem)])
    assert node.told() == []
    assert node.services.version("anchors") == 0


def test_a_bundle_that_the_disk_refuses_is_put_off(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It stays in the inbox, for the broker would send it again only when it changes."""
    node = Node(tmp_path)
    (tmp_path / "out").mkdir()
    monkeypatch.setattr(bundles, "place", disk_full)
    sent = bundle(pem=authority.make_root("Root").certificate_pem.decode())
    with pytest.raises(StateFault, match="no space left"):
        node.services.work([sent])
    assert node.done == []
    monkeypatch.undo()
    node.services.work([sent])
    assert node.done == ["b"]
    assert node.services.version("anchors") == 2


def disk_full(path: str, *_: object, **__: object) -> None:
    """Place nothing."""
    raise DiskFault(f"{path}: no space left on device")


def test_a_challenge_that_cannot_be_answered_is_told(tmp_path: Path) -> None:
    """This node answers none: its configuration says so."""
    node = Node(tmp_path)
    node.services.work([challenge()])
    ((kind, body),) = node.told()
    assert (kind, body["challenge"]) == ("challenge-failed", "c1")
    assert node.done == ["a"]


def test_a_withdrawal_of_what_nobody_answers_is_done_with(tmp_path: Path) -> None:
    """It comes after a restart."""
    node = Node(tmp_path)
    node.services.work([Message("w", "withdraw-challenge", {"challenge": "c1"}, 3)])
    assert node.done == ["w"]


def test_bundles_and_challenges_are_done_in_turn_with_their_own_kind(tmp_path: Path) -> None:
    """One bundle waits for no other."""
    services = Node(tmp_path).services
    assert services.key_of(bundle()) == "bundle anchors"
    assert services.key_of(challenge()) == "challenges"
    services.tick()
    services.take_up()
    services.stop()
