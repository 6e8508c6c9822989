"""Who may connect to what: the chart's NetworkPolicies, read as a network that enforces them."""

import functools
import json
from ipaddress import ip_address, ip_network
from typing import Any

import pytest

from tests.packaging.charts import VALUE_SETS, containers, pod_specs, rendered
from tests.peers.helm import Document, Rendered, render

pytestmark = pytest.mark.peers

EVERY_POD = [{"namespaceSelector": {}, "podSelector": {}}]
"""Both, for OpenShift counts pods of the host's network by the second alone."""

BROKER = "StatefulSet/penstock"
ADMISSION = "Deployment/penstock-admission"
TEST = "Pod/penstock-test"

BROKERS_PORTS = {"acme": 8443, "plain": 8080, "agents": 8445, "operators": 8446, "metrics": 8081}

METADATA = {
    "EC2, Google, Azure": "169.254.169.254",
    "ECS": "169.254.170.2",
    "EC2 by IPv6": "fd00:ec2::254",
    "Google by IPv6": "fd20:ce::254",
    "Azure's host": "168.63.129.16",
    "Alibaba": "100.100.100.200",
}
"""Where clouds tell a node's credentials to whoever asks."""

DNS = {(53, "UDP"), (53, "TCP"), (5353, "UDP"), (5353, "TCP")}
API_SERVER = {(port, "TCP") for port in (443, 6443, 8443, 16443)}

Port = tuple[int, str]


def labels_of(made: Rendered) -> dict[str, dict[str, str]]:
    """Return the labels of each pod, by what makes it."""
    found = {}
    for one in made.documents:
        pod = one if one["kind"] == "Pod" else one.get("spec", {}).get("template")
        if pod and "metadata" in pod:
            found[f"{one['kind']}/{one['metadata']['name']}"] = pod["metadata"]["labels"]
    return found


def policies(made: Rendered, pod: str) -> list[Document]:
    """Return what is said of the pods that *pod* makes."""
    labels = labels_of(made)[pod]
    return [
        one["spec"]
        for one in made.all("NetworkPolicy")
        if one["spec"]["podSelector"]["matchLabels"].items() <= labels.items()
    ]


@functools.cache
def made_with(values: str) -> Rendered:
    """Return the chart with values, given as JSON."""
    return render(values=json.loads(values))


def policy(pod: str, **values: Any) -> Document:
    """Return the one policy of a pod of the chart with *values*."""
    (found,) = policies(made_with(json.dumps(values)), pod)
    return found


def door(found: Document, port: object) -> list[Any] | None:
    """Return who may come in by *port*; None: everybody.  A port that nobody may use is none."""
    (rule,) = [one for one in found["ingress"] if port in [each["port"] for each in one["ports"]]]
    peers: list[Any] | None = rule.get("from")
    assert peers != [], "an empty list would let everybody in"
    return peers


def open_ports(found: Document, address: str) -> set[Port] | None:
    """Return the ports and protocols by which *address* is reached; None: all."""
    opened: set[Port] = set()
    for rule in found["egress"]:
        assert rule.get("to") != [], "an empty list would let everything be reached"
        assert rule.get("ports", True), "an empty list would open every port"
        if any(is_in(address, one) for one in rule.get("to", [{"everywhere": True}])):
            if "ports" not in rule:
                return None
            opened |= {(one["port"], one["protocol"]) for one in rule["ports"]}
    return opened


def is_in(address: str, peer: Document) -> bool:
    """Tell whether an address that is no pod's is *peer*."""
    if "ipBlock" not in peer:
        return "everywhere" in peer
    where, block = ip_address(address), peer["ipBlock"]
    but = [ip_network(one) for one in block.get("except", ())]
    return where in ip_network(block["cidr"]) and not any(where in one for one in but)


@pytest.mark.parametrize("name", VALUE_SETS)
def test_every_pod_is_closed_both_ways(name: str) -> None:
    """In every set of values, `helm test` included; one policy speaks of each."""
    made = rendered(name)
    for pod in labels_of(made):
        (found,) = policies(made, pod)
        assert found["policyTypes"] == ["Ingress", "Egress"]


@pytest.mark.parametrize("name", VALUE_SETS)
def test_a_door_is_open_for_every_port_and_for_no_other(name: str) -> None:
    """A port without its rule would be closed without a word."""
    made = rendered(name)
    for pod, spec in pod_specs(made.documents):
        ports = {port["name"] for one in containers(spec) for port in one.get("ports", ())}
        (found,) = policies(made, pod)
        opened = {each["port"] for one in found.get("ingress", ()) for each in one["ports"]}
        assert opened == ports


def test_without_policies_nothing_is_closed() -> None:
    """For a cluster that has its own way; incoming ones alone can be had as well."""
    assert render(values={"networkPolicy": {"enabled": False}}).all("NetworkPolicy") == []
    for pod in (BROKER, ADMISSION):
        found = policy(pod, networkPolicy={"egress": {"enabled": False}})
        assert found["policyTypes"] == ["Ingress"]
        assert "egress" not in found


def test_who_comes_in_where_nothing_is_said() -> None:
    """ACME clients and the API server from anywhere, pods to agents and metrics, and admission."""
    found = policy(BROKER)
    assert door(found, "acme") is door(found, "plain") is None
    assert door(found, "agents") == door(found, "metrics") == EVERY_POD
    (own,) = door(found, "operators") or []
    labels = labels_of(rendered("default"))
    selected = [
        pod
        for pod, has in labels.items()
        if own["podSelector"]["matchLabels"].items() <= has.items()
    ]
    assert (selected, set(own)) == ([ADMISSION], {"podSelector"})
    webhooks = policy(ADMISSION)
    assert door(webhooks, "webhook") is None
    assert door(webhooks, "metrics") == EVERY_POD


@pytest.mark.parametrize(
    ("value", "pod", "port"),
    [
        ("acmeFrom", BROKER, "acme"),
        ("acmeFrom", BROKER, "plain"),
        ("metricsFrom", BROKER, "metrics"),
        ("metricsFrom", ADMISSION, "metrics"),
        ("webhooksFrom", ADMISSION, "webhook"),
    ],
)
def test_a_door_is_for_who_is_listed(value: str, pod: str, port: str) -> None:
    """And for nobody else."""
    listed = [{"ipBlock": {"cidr": "10.0.0.0/24"}}]
    assert door(policy(pod, networkPolicy={value: listed}), port) == listed


def test_own_pods_reach_the_agents_port_whoever_is_listed() -> None:
    """Else the webhooks' certificate would end by a list that forgot them."""
    listed = [{"ipBlock": {"cidr": "10.0.0.0/24"}}]
    first, own = door(policy(BROKER, networkPolicy={"agentsFrom": listed}), "agents") or []
    assert [first] == listed
    wanted = own["podSelector"]["matchLabels"].items()
    pods = labels_of(rendered("default"))
    assert {pod for pod, has in pods.items() if wanted <= has.items()} == {BROKER, ADMISSION, TEST}


def test_operators_are_listed_beside_admission_or_alone() -> None:
    """Without admission and without a list the door is shut, and not open to all."""
    console = {"podSelector": {"matchLabels": {"app": "console"}}}
    listed = {"operatorsFrom": [console]}
    both = door(policy(BROKER, networkPolicy=listed), "operators") or []
    assert (len(both), both[1]) == (2, console)
    without = {"enabled": False}
    assert door(policy(BROKER, admission=without, networkPolicy=listed), "operators") == [console]
    shut = policy(BROKER, admission=without)
    assert "operators" not in [each["port"] for one in shut["ingress"] for each in one["ports"]]


@pytest.mark.parametrize("kind", ["LoadBalancer", "NodePort"])
def test_agents_from_outside_come_in_where_their_service_leads_there(kind: str) -> None:
    """Else the Service would lead nowhere; a list holds all the same."""
    agents = {"agents": {"type": kind}}
    assert door(policy(BROKER, services=agents), "agents") is None
    listed = [{"ipBlock": {"cidr": "10.0.0.0/24"}}]
    found = policy(BROKER, services=agents, networkPolicy={"agentsFrom": listed})
    assert (door(found, "agents") or [])[:1] == listed


@pytest.mark.parametrize("pod", [BROKER, ADMISSION])
def test_name_servers_and_api_server_are_reached_wherever_they_are(pod: str) -> None:
    """Else neither would start; NodeLocal DNSCache and Azure's are where metadata services are."""
    found = policy(pod)
    for address in ("169.254.20.10", "168.63.129.16"):
        assert open_ports(found, address) == DNS | API_SERVER
    anywhere = open_ports(found, "10.96.0.1")
    assert anywhere is None or anywhere == DNS | API_SERVER
    tested = policy(TEST)
    assert open_ports(tested, "10.96.0.10") == DNS


@pytest.mark.parametrize("pod", [BROKER, ADMISSION, TEST])
def test_name_servers_and_api_server_are_reached_where_they_are_said_to_be(pod: str) -> None:
    """And nowhere else by those ports: 443 is that of most of what is not to be reached."""
    name_servers = [{"ipBlock": {"cidr": "10.96.0.10/32"}}]
    api_server = [{"ipBlock": {"cidr": "10.0.0.0/24"}}]
    ca = [{"ipBlock": {"cidr": "198.51.100.7/32"}}]
    egress = {"to": ca, "dnsTo": name_servers, "apiServerTo": api_server}
    found = policy(pod, networkPolicy={"egress": egress})
    assert open_ports(found, "192.0.2.7") == set()
    assert open_ports(found, "10.96.0.10") == DNS
    assert open_ports(found, "10.0.0.5") == (set() if pod == TEST else API_SERVER)


def test_the_broker_reaches_cas_and_what_it_validates_but_no_metadata_of_a_cloud() -> None:
    """A request that it is talked into brings no credentials of its node."""
    found = policy(BROKER)
    for address in ("192.0.2.7", "10.1.2.3", "2001:db8::7"):
        assert open_ports(found, address) is None
    for address in METADATA.values():
        assert open_ports(found, address) == DNS | API_SERVER
    assert EVERY_POD[0] in [peer for rule in found["egress"] for peer in rule.get("to", ())]


def test_the_broker_reaches_no_more_than_is_listed() -> None:
    """The twin: but by the ports of name servers and API server, which are open to any address."""
    listed = [{"ipBlock": {"cidr": "10.0.0.0/8"}}]
    found = policy(BROKER, networkPolicy={"egress": {"to": listed}})
    assert open_ports(found, "10.1.2.3") is None
    assert open_ports(found, "192.0.2.7") == DNS | API_SERVER
    assert [rule["to"] for rule in found["egress"] if "to" in rule] == [listed]


def test_without_exceptions_the_broker_reaches_all() -> None:
    """By a rule without a list: some networks match nodes by no block of addresses."""
    everywhere = policy(BROKER, networkPolicy={"egress": {"except": []}})
    assert {} in everywhere["egress"]
    assert all(open_ports(everywhere, address) is None for address in METADATA.values())
    listed = [{"ipBlock": {"cidr": "10.0.0.0/8"}}]
    narrow = policy(BROKER, networkPolicy={"egress": {"except": [], "to": listed}})
    assert {} not in narrow["egress"]


@pytest.mark.parametrize("pod", [BROKER, ADMISSION])
def test_lists_that_are_taken_out_open_nothing(pod: str) -> None:
    """Null is how Helm takes a value out; without ports for it, a rule would open all of them."""
    names = ("to", "dnsPorts", "dnsTo", "apiServerPorts", "apiServerTo")
    found = policy(pod, networkPolicy={"egress": dict.fromkeys(names)})
    assert open_ports(found, "169.254.169.254") == set()
    doors = ("acmeFrom", "agentsFrom", "operatorsFrom", "metricsFrom", "webhooksFrom")
    assert policy(pod, networkPolicy=dict.fromkeys(doors)) == policy(pod)
    whole = policy(pod, networkPolicy={"egress": None})
    assert whole == policy(pod, networkPolicy={"egress": {"enabled": False}})


@pytest.mark.parametrize(("pod", "ports"), [(ADMISSION, {8446, 8445}), (TEST, {8445})])
def test_others_reach_the_broker_alone(pod: str, ports: set[int]) -> None:
    """Neither the world nor other pods, by the ports that the broker has."""
    found = policy(pod)
    rules = [rule for rule in found["egress"] if "to" in rule]
    assert [{one["port"] for one in rule["ports"]} for rule in rules] == [ports]
    assert ports <= set(BROKERS_PORTS.values())
    labels = labels_of(rendered("default"))
    for peer in rules[0]["to"]:
        wanted = peer["podSelector"]["matchLabels"].items()
        assert [pod for pod, has in labels.items() if wanted <= has.items()] == [BROKER]


def test_ports_are_those_of_the_broker() -> None:
    """What is said by number is what its container listens on."""
    spec = dict(pod_specs(rendered("default").documents))[BROKER]
    ports = {one["name"]: one["containerPort"] for one in spec["containers"][0]["ports"]}
    assert ports == BROKERS_PORTS


def test_a_node_can_be_drained() -> None:
    """The broker's budget lets its one pod go; of the admission process one stays."""
    made = rendered("default")
    broker = made.one("PodDisruptionBudget", "penstock")["spec"]
    assert broker["maxUnavailable"] == made.one("StatefulSet", "penstock")["spec"]["replicas"] == 1
    assert "minAvailable" not in broker
    beside = made.one("PodDisruptionBudget", "penstock-admission")["spec"]
    replicas = made.one("Deployment", "penstock-admission")["spec"]["replicas"]
    assert 0 < beside["minAvailable"] < replicas
    for one in (broker, beside):
        assert one["unhealthyPodEvictionPolicy"] == "AlwaysAllow"
