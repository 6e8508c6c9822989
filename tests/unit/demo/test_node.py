"""The files of the demonstration's node; its processes are tried in tests/e2e/test_demo.py."""

from pathlib import Path

from agents.config import load
from broker.config.load import load_all
from broker.demo.instance import NODE_CA, Instance, Ports
from broker.demo.node import CERTIFICATE, NODE, NODE_NAME, Node


def broker(directory: Path) -> Instance:
    """Return a broker that serves nodes."""
    return Instance(
        name="the broker",
        directory=directory / "broker",
        ports=Ports(acme=8443, plain=8080, health=8081, agents=8445),
        validation_port=5002,
        hosts={},
        upstreams={},
        names=[NODE_NAME],
        cap="10d",
        nodes=[NODE],
    )


def node(directory: Path) -> Node:
    """Return a node of that broker."""
    return Node(
        directory=directory / "node",
        broker=broker(directory),
        root=directory / "root.pem",
        server_port=8444,
    )


def test_agent_s_file_is_a_whole_configuration(tmp_path: Path) -> None:
    """One that people can begin from."""
    made = node(tmp_path)
    made.write("a-token")
    config = load(str(made.config))
    (certificate,) = config.certificates
    assert (config.node.name, config.broker.url) == (NODE, "https://127.0.0.1:8445")
    assert (certificate.name, certificate.names) == (CERTIFICATE, (NODE_NAME,))
    assert certificate.look is not None
    assert certificate.look.connect == "127.0.0.1:8444"


def test_token_is_for_its_owner_alone(tmp_path: Path) -> None:
    """And the agent's file only says where it lies."""
    made = node(tmp_path)
    made.write("a-token")
    assert (made.directory / "join-token").stat().st_mode & 0o777 == 0o600
    assert "a-token" not in made.config.read_text("utf-8")


def test_broker_of_nodes_is_a_whole_configuration(tmp_path: Path) -> None:
    """With a CA for identities, and a rule that trusts the node with its name."""
    made = broker(tmp_path)
    made.write()
    config, policies = load_all(made.config)
    assert config.agents is not None
    assert config.agents.identity.upstream == NODE_CA
    assert policies.current("default").trusted != ()
