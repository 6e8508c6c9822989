"""The further ports of certificates at nodes are small, and the store has them."""

import inspect

import pytest

from broker.issuance import managed_ports, node_ports
from broker.storage.sqlite import SqliteStore

STORES = [
    node_ports.ManagedStore,
    node_ports.DeliveryStore,
    managed_ports.ManagedLists,
    managed_ports.DeliveryLists,
    managed_ports.RenewalLooks,
]


@pytest.mark.parametrize("port", STORES, ids=lambda port: port.__name__)
def test_port_is_small_and_the_store_has_it(port: type) -> None:
    """At most seven methods, each with the arguments of the port."""
    methods = [name for name, one in vars(port).items() if inspect.iscoroutinefunction(one)]
    assert 0 < len(methods) <= 7
    for name in methods:
        asked = inspect.signature(getattr(port, name)).parameters
        offered = inspect.signature(getattr(SqliteStore, name)).parameters
        assert list(asked) == list(offered)
