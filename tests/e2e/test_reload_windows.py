"""Windows in which nodes may be reloaded, at a real broker: nothing touches a node outside them."""

from __future__ import annotations

import datetime
from pathlib import Path
from typing import Any, Final

import pytest

from tests.deployments.following import FollowingPenstock
from tests.deployments.node_agents import NodeAgent, Wanted
from tests.peers import process
from tests.peers.authority import real_now

pytestmark = pytest.mark.e2e

PATIENCE_SECONDS: Final = 120.0
"""Longest wait for a certificate, which takes two seconds."""

NODE: Final = "web.nodes.example.test"

ALWAYS: Final = "00:00-24:00"


def group(window: str) -> dict[str, Any]:
    """Return the rollout group of the node."""
    return {"web": {"nodes": [NODE], "windows": [window]}}


def opening() -> datetime.datetime:
    """Return when a window opens that is closed for as long as any test runs."""
    return (real_now() + datetime.timedelta(hours=12)).replace(second=0, microsecond=0)


def counting(script: Path, reloads: Path) -> str:
    """Make a reload that counts how often it is run, and return its section."""
    script.write_text(f"#!/bin/sh\necho x >> {reloads}\n")
    script.chmod(0o755)
    return f'[certificate.reload]\ncommand = ["{script}"]\n'


def newest(broker: FollowingPenstock) -> tuple[str, str | None]:
    """Return stage and note of the node's newest delivery."""
    rows = broker.rows("SELECT stage, note FROM deliveries ORDER BY generation DESC LIMIT 1")
    return rows[0] if rows else ("", None)


def test_node_is_reloaded_in_its_window_alone(tmp_path: Path) -> None:
    """A certificate is ordered and waits, and why is told; it goes when the window is open."""
    opens, home = opening(), tmp_path / "broker"
    window = f"{opens:%H:%M}-{opens + datetime.timedelta(hours=1):%H:%M}"
    home.mkdir()
    with FollowingPenstock(home, agents={"groups": group(window)}) as broker:
        reloads = tmp_path / "reloads"
        wanted = Wanted(
            name="www",
            names=[NODE],
            directory=tmp_path / "tls",
            expects=broker.ca_bundle,
            more=counting(tmp_path / "reload.sh", reloads),
        )
        agent = NodeAgent(
            tmp_path / "agent",
            NODE,
            url=broker.agents_url,
            anchors=broker.ca_bundle,
            token=broker.mint([NODE])[NODE],
            wanted=[wanted],
        )

        def wait_for(stage: str) -> None:
            process.wait_until(lambda: newest(broker)[0] == stage, PATIENCE_SECONDS, stage)

        with agent:
            wait_for("issued")
            process.wait_until(lambda: newest(broker)[1], PATIENCE_SECONDS, "why it waits")
            why = f"the window of rollout group 'web' opens {opens:%Y-%m-%dT%H:%MZ}"
            assert newest(broker) == ("issued", why)
            shown = broker.json("rollout", "show", "web")
            assert (shown["waiting"], shown["waits"][0]["why"]) == (1, why)
            assert list(wanted.directory.iterdir()) == []
            agents = broker.config_document()["agents"]
            broker.wait_taken(broker.change(agents={**agents, "groups": group(ALWAYS)}))
            wait_for("seen")
            assert (wanted.directory / "fullchain.pem").exists()
            assert reloads.read_text() == "x\n"
