"""Metrics of nodes and their channel."""

from prometheus_client import CollectorRegistry, generate_latest

from broker.app.node_metrics import NodeMetrics
from broker.issuance.node_ports import NodeStatus


def test_figures_are_shown_without_naming_a_node() -> None:
    """By status, kind, method and outcome: lists that do not grow with the nodes."""
    registry = CollectorRegistry()
    metrics = NodeMetrics(registry)
    metrics.show({NodeStatus.ACTIVE: 3, NodeStatus.DRAINED: 0}, connections=2, waiting=7)
    metrics.sent("want-csr")
    metrics.received("receipt", "refused")
    metrics.enrolled("token", "enrolled")
    text = generate_latest(registry).decode()
    for line in (
        'penstock_nodes{status="active"} 3.0',
        'penstock_nodes{status="drained"} 0.0',
        "penstock_node_connections 2.0",
        "penstock_node_messages_waiting 7.0",
        'penstock_node_messages_sent_total{kind="want-csr"} 1.0',
        'penstock_node_messages_received_total{kind="receipt",outcome="refused"} 1.0',
        'penstock_node_enrolments_total{method="token",outcome="enrolled"} 1.0',
    ):
        assert line in text
