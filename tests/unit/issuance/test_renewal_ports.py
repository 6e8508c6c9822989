"""The ports of renewal are small, and what they speak of can be imported by name."""

import inspect

import pytest

from broker.issuance import renewal_ports
from broker.storage.sqlite import SqliteStore

STORES = [
    renewal_ports.RenewalStore,
    renewal_ports.RetirementStore,
    renewal_ports.ChainStore,
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


def test_statuses_are_those_that_are_kept() -> None:
    """A database of yesterday holds them, and so do the store's own statements."""
    words = [one.value for one in renewal_ports.RetirementStatus]
    assert words == ["waiting", "overdue", "replaced", "retired"]
