"""``penstock-agent adopt`` as a person types it."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from agents.config import Layout, load
from tests.contract.agents.installing import given, lay_plain, served
from tests.fakes.node_authority import Node

pytestmark = pytest.mark.peers

ROOT = Path(__file__).resolve().parents[3]

CONFIGURATION = """\
[node]
name = "web-01.example"
state = "{state}"
allowed = ["{tls}"]
[broker]
url = "https://broker.example"
anchors = "system"
[enrol]
method = "approval"
"""


def adopt(
    config: Path, path: Path, anchors: Path | None = None
) -> subprocess.CompletedProcess[str]:
    """Run the command."""
    command = [sys.executable, "-m", "agents.cli", "adopt", "--config", str(config), str(path)]
    command += [] if anchors is None else ["--anchors", str(anchors)]
    return subprocess.run(command, capture_output=True, text=True, check=False, cwd=ROOT)


@pytest.mark.parametrize("layout", [Layout.PEM, Layout.CERTBOT, Layout.COMBINED], ids=str)
def test_a_pair_of_somebody_elses_is_taken_over(tmp_path: Path, layout: Layout) -> None:
    """The written section is one that the agent reads, and the pair is renewed in its place."""
    node = Node(tmp_path)
    section = node.section(layout)
    verified, key = node.obtain(section)
    lay_plain(node, section, verified, Path(key).read_text("ascii"))
    config = node.home / "agent.toml"
    config.write_text(CONFIGURATION.format(state=node.state, tls=node.tls), encoding="ascii")
    folder = node.tls / "www"
    places = {Layout.CERTBOT: folder / "live" / "www", Layout.COMBINED: folder / "www.pem"}
    path = places.get(layout, folder)
    assert "say --anchors FILE" in adopt(config, path).stderr
    done = adopt(config, path, node.anchors)
    assert (done.returncode, done.stdout) == (0, f"adopted www: {verified.fingerprint}\n")
    (adopted,) = load(str(config)).certificates
    assert adopted.names == ("www.example",)
    assert adopted.expects.anchors == str(node.anchors)
    assert served(folder, layout) == verified.fingerprint
    renewed = node.obtain(section)
    node.install(adopted, *renewed).settle()
    assert served(folder, layout) == renewed[0].fingerprint


def test_what_cannot_be_taken_over_is_told(tmp_path: Path) -> None:
    """By its exit code and one sentence, and nothing is written."""
    scene = given(tmp_path, Layout.PEM, "plain")
    config = scene.node.home / "agent.toml"
    text = CONFIGURATION.format(state=scene.node.state, tls=scene.node.tls)
    config.write_text(text, encoding="ascii")
    (tmp_path / "other").mkdir()
    other = given(tmp_path / "other", Layout.PEM, "plain")
    key = (other.folder / "privkey.pem").read_bytes()
    (scene.folder / "privkey.pem").write_bytes(key)
    done = adopt(config, scene.folder, scene.node.anchors)
    assert done.returncode == 1
    assert "do not belong together" in done.stderr
    assert not (scene.node.home / "agent.d").exists()
