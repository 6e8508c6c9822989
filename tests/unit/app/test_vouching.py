"""Which vouchers a configuration comes to."""

import json
from pathlib import Path

import pytest

from broker.app.vouching import Vouching
from broker.channel.cluster_pods import ApiServerPods
from broker.config.agents import Agents
from broker.issuance.errors import Broken
from broker.issuance.joining_ports import Asking
from broker.issuance.node_ports import EnrolmentMethod
from broker.protocol.problems import Problem
from tests.fakes.clock import START, FakeClock
from tests.fakes.cluster_issuer import ISSUER, ClusterIssuer
from tests.unit.config.test_vouching import AGENTS
from tests.unit.protocol.builders import Authority, private_key

CLUSTER = ClusterIssuer(private_key("ES256", "cluster"))


def agents(**more: object) -> Agents:
    """Return the section with more in it."""
    return Agents.model_validate_json(json.dumps({**AGENTS, **more}))


def test_nothing_vouches_unless_it_is_told_to() -> None:
    """No cluster, no certificate: the methods are not there."""
    assert Vouching(agents(), FakeClock()).vouchers == {}


async def test_cluster_by_a_key_file(tmp_path: Path) -> None:
    """From the file to the grant."""
    path = tmp_path / "prod.jwks"
    path.write_bytes(CLUSTER.key_set())
    rule = {"namespaces": ["mail"], "service_accounts": ["postfix"], "owner": "Mail"}
    section = {"issuer": ISSUER, "keys": str(path), "rules": [rule]}
    vouching = Vouching(agents(clusters={"prod": section}), FakeClock())
    voucher = vouching.vouchers[EnrolmentMethod.KUBERNETES]
    asked = Asking(
        method=EnrolmentMethod.KUBERNETES, node="", csr_der=b"", credential=CLUSTER.token(START)
    )
    grant = await voucher.vouch(asked)
    assert (grant.node, grant.owner) == ("postfix-0.mail.prod", "Mail")
    await vouching.close()


@pytest.mark.parametrize(
    "way",
    [
        {"keys_url": "https://127.0.0.1:1/jwks"},
        {"review": {"server": "https://127.0.0.1:1", "token": "env:NOWHERE"}},
    ],
    ids=["keys_url", "review"],
)
async def test_nothing_is_asked_before_somebody_enrols(way: dict[str, object]) -> None:
    """A cluster that is away does not keep the broker from starting."""
    rule = {"namespaces": ["*"], "service_accounts": ["*"]}
    vouching = Vouching(
        agents(clusters={"prod": {"issuer": ISSUER, "rules": [rule], **way}}), FakeClock()
    )
    assert set(vouching.vouchers) == {EnrolmentMethod.KUBERNETES}
    await vouching.close()


async def test_client_certificates_by_their_anchors(tmp_path: Path) -> None:
    """The file is read at the start; what is no certificate stops it."""
    path = tmp_path / "anchors.pem"
    rules = [{"names": ["*.hosts.corp.example"]}]
    section = agents(client_anchors=str(path), client_certificates=rules)
    with pytest.raises(Broken):
        Vouching(section, FakeClock())
    path.write_text("no certificate")
    with pytest.raises(Broken):
        Vouching(section, FakeClock())
    path.write_bytes(Authority.root().pem)
    voucher = Vouching(section, FakeClock()).vouchers[EnrolmentMethod.CERTIFICATE]
    asked = Asking(method=EnrolmentMethod.CERTIFICATE, node="a.hosts.corp.example", csr_der=b"")
    with pytest.raises(Problem):
        await voucher.vouch(asked)


async def test_rule_without_upstreams_has_the_built_in_cas_of_its_community(tmp_path: Path) -> None:
    """Whoever is told of none issues nothing; a rule that names some has those."""
    path = tmp_path / "prod.jwks"
    path.write_bytes(CLUSTER.key_set())
    rule = {"namespaces": ["mail"], "service_accounts": ["postfix"]}
    section = agents(
        clusters={
            "prod": {
                "issuer": ISSUER,
                "keys": str(path),
                "rules": [{**rule, "upstreams": ["public"]}, rule],
            }
        }
    )

    def built_in(community: str) -> tuple[str, ...]:
        return {"default": ("local",)}[community]

    (prod,) = Vouching(section, FakeClock(), built_in=built_in).clusters
    assert [one.upstreams for one in prod.rules] == [("public",), ("local",)]
    (prod,) = Vouching(section, FakeClock()).clusters
    assert [one.upstreams for one in prod.rules] == [("public",), ()]


async def test_api_server_is_known_where_it_is_named() -> None:
    """For pods and Services, and for keys that it guards; nothing is asked yet."""
    rule = {"namespaces": ["*"], "service_accounts": ["*"], "names": ["{service}.svc"]}
    server = {"server": "https://127.0.0.1:1", "token": "env:NOWHERE"}
    section = agents(
        clusters={
            "prod": {
                "issuer": ISSUER,
                "keys_url": "https://127.0.0.1:1/jwks",
                "keys_token": "env:NOWHERE",
                "pods": server,
                "rules": [rule],
            }
        }
    )
    vouching = Vouching(section, FakeClock())
    assert isinstance(vouching.clusters[0].pods, ApiServerPods)
    await vouching.close()
