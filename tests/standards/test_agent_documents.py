"""What docs/agents.md shows can be copied: the agent reads its TOML, the broker its YAML."""

import re
from pathlib import Path
from typing import Any

import pytest
from ruamel.yaml import YAML
from ruamel.yaml.compat import StringIO

from agents.cli import build_parser
from agents.config import AgentConfig, ConfigFault, load
from broker.config.load import parse_config
from broker.config.model import Config
from broker.policy.document import parse_policy
from tests.standards.sources import read
from tests.standards.test_samples import SHOWN

PAGE = "docs/agents.md"

BLOCK = re.compile(
    r"^ *(<!-- agent: whole -->\n *)?```(toml|yaml)\n(.*?)^ *```", re.DOTALL | re.MULTILINE
)

BASE = """\
[node]
name = "web-01"
allowed = ["/etc/nginx/tls", "/etc/penstock"]
[broker]
url = "https://broker.example:8445"
anchors = "/etc/penstock/broker-ca.pem"
[enrol]
method = "approval"
"""

CERTIFICATE = """\
[[certificate]]
name = "www"
names = ["www.corp.example"]
"""

EXPECTS = """\
[certificate.expects]
anchors = "/etc/penstock/corp-roots.pem"
"""

FILES = """\
[certificate.files]
directory = "/etc/nginx/tls/www"
"""


def blocks(language: str) -> list[tuple[bool, str]]:
    """Return each block of the page: whether it is a whole file, and its text."""
    found = []
    for whole, kind, text in BLOCK.findall(read(PAGE)):
        if kind == language:
            lines = text.splitlines()
            indent = min(len(line) - len(line.lstrip()) for line in lines if line.strip())
            found.append((bool(whole), "\n".join(line[indent:] for line in lines) + "\n"))
    return found


def loaded(text: str, place: Path) -> AgentConfig:
    """Return what the agent reads of *text*."""
    path = place / "agent.toml"
    path.write_text(text, "utf-8")
    return load(str(path))


def completed(text: str) -> str:
    """Return a fragment with what stands around it in a file."""
    if not text.startswith("[certificate."):
        return BASE + text
    files = "" if "driver]" in text else FILES
    expects = "" if "expects]" in text else EXPECTS
    return BASE + CERTIFICATE + files + expects + text


@pytest.mark.parametrize(("is_whole", "text"), blocks("toml"), ids=lambda one: str(one)[:30])
def test_agent_reads_what_is_shown(is_whole: bool, text: str, tmp_path: Path) -> None:
    """Whole files as they stand, fragments where they belong."""
    assert loaded(text if is_whole else completed(text), tmp_path).node.name


def test_a_fault_in_it_would_be_told(tmp_path: Path) -> None:
    """The check itself can fail."""
    with pytest.raises(ConfigFault):
        loaded(BASE + "[challenge]\nhttp = '0.0.0.0:80'\n", tmp_path)


def merged(base: Any, more: Any) -> Any:
    """Return *base* with what *more* says over it, sections within sections."""
    if not (isinstance(base, dict) and isinstance(more, dict)):
        return more
    return {key: merged(base.get(key), more.get(key, base.get(key))) for key in {**base, **more}}


def as_text(value: Any) -> str:
    """Return *value* as YAML."""
    out = StringIO()
    YAML(typ="safe", pure=True).dump(value, out)
    return str(out.getvalue())


def fragments() -> list[dict[str, Any]]:
    """Return the YAML that the page shows, but the pod, which is Kubernetes' to read."""
    made = [YAML(typ="safe").load(text) for _, text in blocks("yaml")]
    return [one for one in made if "initContainers" not in one]


@pytest.mark.parametrize("shown", fragments(), ids=lambda one: " ".join(one))
def test_broker_reads_what_is_shown(shown: dict[str, Any]) -> None:
    """Put into the first configuration of README, or into its policy."""
    files = {
        Path(name).name: YAML(typ="safe").load(text)
        for name, text in SHOWN.findall(read("README.md"))
    }
    config, policy = files["penstock.yaml"], files["default.yaml"]
    if shown.keys() <= set(Config.model_fields):
        nodes = fragments()[0]
        assert parse_config(as_text(merged(merged(config, nodes), shown)), "penstock.yaml").agents
    else:
        assert parse_policy(as_text(merged(policy, shown)), source="default.yaml")


def test_every_command_that_is_shown_is_there() -> None:
    """Of the agent; those of the broker are looked at with all other documents."""
    shown = set(re.findall(r"penstock-agent ([a-z][a-z-]+)", read(PAGE))) - {"service"}
    for command in shown:
        with pytest.raises(SystemExit) as ended:
            build_parser().parse_args([command, "--help"])
        assert ended.value.code == 0, command
