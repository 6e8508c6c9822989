"""A broker that lets nodes in by every way there is, and what vouches for them."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import datetime, timedelta
from pathlib import Path
from typing import Any

from cryptography import x509
from cryptography.hazmat.primitives.asymmetric import ec, rsa
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat
from cryptography.x509.oid import ExtendedKeyUsageOID

from tests.deployments.node_agents import NodeAgent, TrustingPenstock
from tests.deployments.nodes import PlainAgent
from tests.fakes.cluster_issuer import ClusterIssuer
from tests.peers import authority
from tests.peers.token_reviews import TokenReviews
from tests.unit.protocol.builders import Authority

REVIEWED = "https://kubernetes.default.svc"
"""What the stand-in of an API server calls itself as an issuer."""

CLIENT = [(x509.ExtendedKeyUsage([ExtendedKeyUsageOID.CLIENT_AUTH]), False)]


def real_now() -> datetime:
    """Return the time of the machine, which the broker goes by."""
    return authority.real_now()


def pki(life: timedelta = timedelta(hours=1)) -> dict[str, Any]:
    """Return the ends of what a test issues."""
    now = real_now()
    return {"not_before": now - timedelta(minutes=1), "not_after": now + life}


@dataclass
class Scene:
    """A broker with two clusters and a root of machines."""

    broker: TrustingPenstock
    issuer: ClusterIssuer
    reviews: TokenReviews
    root: Authority
    issuing: Authority
    folder: Path
    count: int = 0

    def agent(self, name: str) -> PlainAgent:
        """Return an agent with a key of its own that has not enrolled."""
        self.count += 1
        folder = self.folder / f"agent-{self.count}"
        folder.mkdir()
        return PlainAgent(self.broker.agents_url, self.broker.ca_bundle, folder, name)

    def node(self, name: str) -> dict[str, Any]:
        """Return what the broker says of a node."""
        listed = {one["node"]: one for one in self.broker.json("node", "list")}
        found: dict[str, Any] = listed.get(name, {"connected": False})
        return found


@contextmanager
def vouching(tmp: Path, rules: Sequence[Mapping[str, Any]]) -> Iterator[Scene]:
    """Run a broker whose policy has *rules*, and yield it with all that vouches for its nodes."""
    issuer = ClusterIssuer(rsa.generate_private_key(65537, 2048))
    (tmp / "prod.jwks").write_bytes(issuer.key_set())
    root = Authority.root("Machines", key=ec.generate_private_key(ec.SECP256R1()), **pki())
    issuing = root.intermediate("Machines 1", key=ec.generate_private_key(ec.SECP256R1()), **pki())
    (tmp / "machines.pem").write_bytes(root.pem)
    with TokenReviews(tmp / "reviews") as reviews:
        (tmp / "reviewer").write_text(reviews.reviewer_token)
        rule = {"namespaces": ["mail"], "service_accounts": ["postfix"], "owner": "Mail"}
        reviewed = {
            **rule,
            "node": "{service_account}.{namespace}.{cluster}",
            "shared_with": ["prod"],
        }
        agents = {
            "client_anchors": str(tmp / "machines.pem"),
            "client_certificates": [
                {"names": ["*.hosts.corp.example"], "may_have": ["www.corp.example"]},
                {"names": ["*.racks.corp.example"]},
            ],
            "clusters": {
                "prod": {
                    "issuer": issuer.issuer,
                    "keys": str(tmp / "prod.jwks"),
                    "rules": [
                        {**rule, "shared_with": ["test"]},
                        {
                            "namespaces": ["web", "mail"],
                            "service_accounts": ["nginx"],
                            "shared_with": ["test"],
                        },
                    ],
                },
                "test": {
                    "issuer": REVIEWED,
                    "ca_bundle": str(reviews.ca_bundle),
                    "review": {"server": reviews.url, "token": f"file:{tmp / 'reviewer'}"},
                    "rules": [reviewed],
                },
            },
        }
        with TrustingPenstock(tmp / "broker", agents=agents, policy={"rules": rules}) as broker:
            yield Scene(broker, issuer, reviews, root, issuing, tmp)


def of_pod(scene: Scene, pod: str, **changes: Any) -> str:
    """Return the token of another pod of the service account."""
    told = {**scene.issuer.claims(real_now())["kubernetes.io"], "pod": {"name": pod}}
    return scene.issuer.token(real_now(), **{"kubernetes.io": told, **changes})


def of_service(scene: Scene, pod: str, namespace: str, service_account: str) -> str:
    """Return the token of a pod of another service account."""
    told = {
        "namespace": namespace,
        "serviceaccount": {"name": service_account, "uid": f"u-{service_account}"},
        "pod": {"name": pod, "uid": f"u-{pod}"},
    }
    return of_pod(
        scene,
        pod,
        sub=f"system:serviceaccount:{namespace}:{service_account}",
        **{"kubernetes.io": told},
    )


class PodAgent(NodeAgent):
    """A real agent whose file says that it is in a pod."""

    def write(self) -> None:
        """Write agent.toml with the other method."""
        super().write()
        text = self.config.read_text("utf-8")
        self.config.write_text(text.replace('method = "token"', 'method = "kubernetes"'), "utf-8")


def showing(agent: PlainAgent, leaf: x509.Certificate, key: Any, *issuers: Authority) -> PlainAgent:
    """Let *agent* show a client certificate that is not from the broker."""
    path = agent._folder / "machine.pem"
    own = key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption())
    chain = leaf.public_bytes(Encoding.PEM) + b"".join(one.pem for one in issuers)
    path.write_bytes(own + chain)
    bare = agent.connection

    def connection(*, is_shown: bool = True) -> Any:
        made = bare(is_shown=is_shown)
        if agent.chain_pem is None:
            made._context.load_cert_chain(path)
        return made

    agent.connection = connection  # type: ignore[method-assign]
    return agent


def machine(scene: Scene, name: str, issuer: Authority) -> tuple[x509.Certificate, Any]:
    """Return a client certificate of a machine, and its key."""
    key = ec.generate_private_key(ec.SECP256R1())
    return issuer.leaf(name, key=key, extensions=CLIENT, **pki()), key


class HostAgent(NodeAgent):
    """A real agent that enrols by the certificate that its machine has already."""

    def write(self) -> None:
        """Write the configuration, with the machine's certificate for a token."""
        super().write()
        lines = self.config.read_text("utf-8").splitlines()
        lines = [one for one in lines if not one.startswith("credential = ")]
        where = lines.index('method = "token"')
        folder = self.token_file.parent
        lines[where : where + 1] = [
            'method = "certificate"',
            f'certificate = "{folder / "machine.pem"}"',
            f'key = "{folder / "machine.key"}"',
        ]
        self.config.write_text("\n".join(lines) + "\n", "utf-8")


def host_agent(scene: Scene, name: str, **more: Any) -> HostAgent:
    """Return a real agent on a machine that has a certificate for this name."""
    leaf, key = machine(scene, name, scene.issuing)
    folder = scene.folder / name
    folder.mkdir()
    chain = (leaf, scene.issuing.certificate)
    (folder / "machine.pem").write_bytes(b"".join(one.public_bytes(Encoding.PEM) for one in chain))
    (folder / "machine.key").touch(mode=0o600)
    (folder / "machine.key").write_bytes(
        key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption())
    )
    return HostAgent(
        folder, name, url=scene.broker.agents_url, anchors=scene.broker.ca_bundle, **more
    )


def outcomes(scene: Scene, node: str) -> dict[str, str | None]:
    """Return the certificates of a node that are served, with None, and why others are not."""
    query = (
        "SELECT m.name, m.fault, d.stage FROM managed m JOIN nodes n USING (node_id)"
        " LEFT JOIN deliveries d USING (managed_id) WHERE n.name = ?"
    )
    rows = scene.broker.rows(query, node)
    return {name: fault for name, fault, stage in rows if stage == "seen" or fault is not None}
