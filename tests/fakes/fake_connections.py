"""Connections that nobody holds: it is only noted who was woken."""

from __future__ import annotations


class FakeConnections:
    """``node_ports.Connections``."""

    def __init__(self) -> None:
        self.woken: list[str] = []
        self.connected: set[str] = set()
        self.dropped: list[str] = []

    def wake(self, node_id: str) -> None:
        """See the port."""
        self.woken.append(node_id)

    def is_connected(self, node_id: str) -> bool:
        """See the port."""
        return node_id in self.connected

    def drop(self, node_id: str) -> None:
        """See the port."""
        self.dropped.append(node_id)
