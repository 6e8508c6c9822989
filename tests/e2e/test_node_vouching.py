"""Nodes that enrol by a cluster's token and by a client certificate, at a real broker."""

import ssl
from collections.abc import Iterator
from datetime import timedelta
from typing import Any

import pytest
from cryptography.hazmat.primitives.asymmetric import ec, rsa

from tests.deployments.node_agents import Wanted
from tests.e2e.vouching import (
    PodAgent,
    Scene,
    host_agent,
    machine,
    of_pod,
    of_service,
    outcomes,
    pki,
    real_now,
    showing,
    vouching,
)
from tests.fakes.cluster_issuer import ClusterIssuer
from tests.peers import process
from tests.unit.protocol.builders import Authority

pytestmark = pytest.mark.e2e

HOST = "web-01.hosts.corp.example"

RULES = [
    {
        "name": "mail-alone",
        "names": ["**.mail.example.test"],
        "only": {"namespaces": ["mail"]},
        "because": "the mail team owns the zone",
    },
    {
        "name": "relay-alone",
        "names": ["**.relay.example.test"],
        "only": {"service_accounts": ["mail/postfix"]},
        "because": "one service sends",
    },
]
"""Rules of the policy about who, of all that are let in, may have what."""


@pytest.fixture(scope="module")
def scene(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Scene]:
    """Run the broker once for all tests: each has nodes of its own."""
    with vouching(tmp_path_factory.mktemp("vouching"), RULES) as made:
        yield made


def test_pod_enrols_by_its_token(scene: Scene) -> None:
    """What it is called, may have and whose it is comes from the token and its rule."""
    agent = scene.agent("whatever.example")
    token = scene.issuer.token(real_now())
    status, answer = agent.enrol(method="kubernetes", credential=token)
    assert (status, answer.get("node")) == (200, "postfix-0.mail.prod"), answer
    assert scene.node("postfix-0.mail.prod")["owner"] == "Mail"
    assert agent.poll()[0] == 200


def test_real_agent_comes_by_the_token_of_its_pod(scene: Scene) -> None:
    """It reads the token from its projected file, and is called what the token says."""
    folder = scene.folder / "pod"
    folder.mkdir()
    agent = PodAgent(
        folder,
        "sidecar.example",
        url=scene.broker.agents_url,
        anchors=scene.broker.ca_bundle,
        token=of_pod(scene, "postfix-5"),
    )
    with agent:
        process.wait_until(
            lambda: bool(scene.node("postfix-5.mail.prod")["connected"]), 90, "the agent"
        )
    assert scene.node("postfix-5.mail.prod")["method"] == "kubernetes"


@pytest.mark.parametrize(
    ("pod", "namespace", "service_account", "had"),
    [
        ("postfix-1", "mail", "postfix", ["mail", "open", "relay"]),
        ("nginx-1", "mail", "nginx", ["mail", "open"]),
        ("nginx-1", "web", "nginx", ["open"]),
    ],
    ids=["its service account", "its namespace", "neither"],
)
def test_rules_know_namespace_and_service_account_of_a_node(
    scene: Scene, pod: str, namespace: str, service_account: str, had: list[str]
) -> None:
    """What the token proved decides which names the node's own agent gets certificates for."""
    folder = scene.folder / f"{pod}-{namespace}"
    folder.mkdir()
    wanted = [
        Wanted(
            name=zone,
            names=[f"{pod}.{namespace}.{zone}.example.test"],
            directory=folder / zone,
            expects=scene.broker.ca_bundle,
        )
        for zone in ("mail", "open", "relay")
    ]
    agent = PodAgent(
        folder,
        "sidecar.example",
        url=scene.broker.agents_url,
        anchors=scene.broker.ca_bundle,
        token=of_service(scene, pod, namespace, service_account),
        wanted=wanted,
    )
    node = f"{pod}.{namespace}.prod"
    with agent:
        process.wait_until(lambda: len(outcomes(scene, node)) == len(wanted), 90, "all are decided")
    found = outcomes(scene, node)
    assert {name for name, why in found.items() if why is None} == set(had)
    assert all((one.directory / "fullchain.pem").exists() == (one.name in had) for one in wanted)
    for name in found.keys() - set(had):
        assert f"is refused by rule '{name}-alone'" in str(found[name])
        assert "not for this requester" in str(found[name])


def test_pod_that_starts_anew_takes_its_place(scene: Scene) -> None:
    """It comes with another key; the former one is a stranger from then on."""
    first, second = scene.agent("x.example"), scene.agent("x.example")
    for agent in (first, second):
        token = of_pod(scene, "postfix-7")
        status, answer = agent.enrol(method="kubernetes", credential=token)
        assert status == 200, answer
    assert second.poll()[0] == 200
    assert first.poll()[0] in (401, 403)


@pytest.mark.parametrize(
    "spoil",
    [
        lambda scene: scene.issuer.token(real_now(), aud=["vault"]),
        lambda scene: scene.issuer.token(real_now() - timedelta(hours=2)),
        lambda scene: of_pod(scene, "postfix-9", sub="system:serviceaccount:mail:dovecot"),
        lambda _scene: ClusterIssuer(rsa.generate_private_key(65537, 2048)).token(real_now()),
        lambda _scene: "not-a-token",
        lambda _scene: "",
        lambda _scene: None,
    ],
    ids=["audience", "ended", "subject", "stranger", "no token", "empty", "none"],
)
def test_tokens_that_let_nobody_in(scene: Scene, spoil: Any) -> None:
    """Each gets the same answer, which says nothing of clusters, rules or nodes."""
    status, answer = scene.agent("x.example").enrol(method="kubernetes", credential=spoil(scene))
    assert status == 403, answer
    assert answer["type"].endswith(":unauthorized")
    for word in ("cluster", "issuer", "audience", "rule", "postfix"):
        assert word not in answer["detail"]


def test_token_is_reviewed_by_its_api_server(scene: Scene) -> None:
    """A token that the API server knows lets in, one that it forgot does not."""
    minted = scene.reviews.mint("postfix", namespace="mail", audience="penstock")
    status, answer = scene.agent("x.example").enrol(method="kubernetes", credential=minted)
    assert (status, answer.get("node")) == (200, "postfix.mail.test"), answer
    gone = scene.reviews.mint("postfix", namespace="mail", audience="penstock")
    scene.reviews.revoke(gone)
    assert scene.agent("x.example").enrol(method="kubernetes", credential=gone)[0] == 403


def test_host_enrols_by_its_client_certificate(scene: Scene) -> None:
    """Its intermediate comes along in the handshake; the name is the certificate's."""
    leaf, key = machine(scene, HOST, scene.issuing)
    agent = showing(scene.agent(HOST), leaf, key, scene.issuing)
    status, answer = agent.enrol(method="certificate")
    assert (status, answer.get("node")) == (200, HOST), answer
    assert scene.node(HOST)["names"] == ["www.corp.example"]


def test_real_agent_comes_by_the_certificate_of_its_machine(scene: Scene) -> None:
    """It shows what its file names once; after that it has an identity of its own."""
    name = "web-09.hosts.corp.example"
    agent = host_agent(scene, name)
    with agent:
        process.wait_until(lambda: bool(scene.node(name)["connected"]), 90, "the agent")
    found = scene.node(name)
    assert (found["method"], found["names"]) == ("certificate", ["www.corp.example"])


def test_host_is_not_another_host(scene: Scene) -> None:
    """A certificate of one machine is no other's, and no name outside the rules is a node's."""
    leaf, key = machine(scene, "web-02.hosts.corp.example", scene.root)
    agent = showing(scene.agent("web-03.hosts.corp.example"), leaf, key)
    assert agent.enrol(method="certificate")[0] == 403
    leaf, key = machine(scene, "web.other.example", scene.root)
    agent = showing(scene.agent("web.other.example"), leaf, key)
    assert agent.enrol(method="certificate")[0] == 403
    assert scene.agent(HOST).enrol(method="certificate")[0] == 403


def test_certificate_of_another_root_does_not_get_through_tls(scene: Scene) -> None:
    """The handshake ends before anything is asked."""
    stranger = Authority.root("S", key=ec.generate_private_key(ec.SECP256R1()), **pki())
    leaf, key = machine(scene, "web-04.hosts.corp.example", stranger)
    agent = showing(scene.agent("web-04.hosts.corp.example"), leaf, key)
    with pytest.raises((ssl.SSLError, OSError)):
        agent.enrol(method="certificate")


def test_identity_of_a_node_is_no_client_certificate(scene: Scene) -> None:
    """Our own node CA lets through TLS, and vouches for nobody."""
    agent = scene.agent("x.example")
    status, _ = agent.enrol(method="kubernetes", credential=of_pod(scene, "postfix-3"))
    assert status == 200
    body = {"version": "1.0", "node": HOST, "csr_der": agent.csr(), "method": "certificate"}
    status, answer = agent.ask("POST", "enrol", {**body, "agent": "0", "facts": {}})
    assert status == 403, answer
