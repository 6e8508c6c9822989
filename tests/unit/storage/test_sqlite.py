"""The store is every store port at once."""

import inspect

import pytest

from broker.issuance import ports
from broker.storage.sqlite import SqliteStore

PORTS = [one for one in ports.Store.__mro__ if one.__module__ == ports.__name__]


@pytest.mark.parametrize("port", PORTS, ids=lambda port: port.__name__)
def test_store_has_every_method_of_the_port(port: type) -> None:
    """With the same parameters; that the types agree is mypy's to say."""
    methods = {name: one for name, one in vars(port).items() if inspect.iscoroutinefunction(one)}
    assert methods or port in (ports.Store, ports.CaLedger)
    for name, promised in methods.items():
        found = inspect.signature(getattr(SqliteStore, name)).parameters
        assert list(found) == list(inspect.signature(promised).parameters), name


@pytest.mark.parametrize("port", PORTS, ids=lambda port: port.__name__)
def test_store_documents_what_it_does(port: type) -> None:
    """Each method says in a sentence what it does here."""
    for name, one in vars(port).items():
        if inspect.iscoroutinefunction(one):
            assert inspect.getdoc(getattr(SqliteStore, name)), name
